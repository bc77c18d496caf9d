//! Many roles on one port: a request that names a hosted datanode goes to it, health and metrics to
//! the admin routes, everything else to the tracker and its doors.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use dfs_protocol::routes::{DATANODE_HEADER, admin};
use dfs_protocol::{DatanodeId, ErrorCode, Problem};
use dfs_runtime::problem::ProblemResponse;
use dfs_runtime::shutdown::Shutdown;
use tower::{Service, ServiceExt as _};

/// What only roles call on the tracker.
const INTERNAL: &str = "/internal/";

/// A datanode behind the switchboard.
#[derive(Clone)]
pub struct Hosted {
    /// Tells its uuid as it is now: a reset changes it.
    pub identity: Arc<dyn Fn() -> DatanodeId + Send + Sync>,
    /// Its routes, request layer included.
    pub router: Router,
}

/// One router over all of them. Each router brings its own request layer. Once `closing` is
/// triggered, requests from outside are refused, while the roles still reach each other: the
/// tracker's last changes go into the datanodes' journals.
pub fn switchboard(
    tracker: Router,
    admin_routes: Router,
    hosted: Vec<Hosted>,
    closing: Shutdown,
) -> Router {
    Router::new().fallback_service(Switch(Arc::new(Lines {
        tracker,
        admin_routes,
        hosted,
        closing,
    })))
}

struct Lines {
    tracker: Router,
    admin_routes: Router,
    hosted: Vec<Hosted>,
    closing: Shutdown,
}

impl Lines {
    fn choose(&self, request: &Request) -> Result<Router, Problem> {
        if let Some(named) = request.headers().get(DATANODE_HEADER) {
            let id = named.to_str().ok().and_then(|text| text.parse().ok());
            let found = id.and_then(|id: DatanodeId| {
                self.hosted.iter().find(|hosted| (hosted.identity)() == id)
            });
            return found.map(|hosted| hosted.router.clone()).ok_or_else(|| {
                Problem::new(
                    ErrorCode::WrongDatanode,
                    "no datanode of that id lives behind this port",
                )
            });
        }
        match request.uri().path() {
            admin::LIVEZ | admin::READYZ | admin::METRICS => Ok(self.admin_routes.clone()),
            path if self.closing.is_triggered() && !path.starts_with(INTERNAL) => Err(
                Problem::new(ErrorCode::Unavailable, "the store is being stopped")
                    .next("start it again, then try again"),
            ),
            _ => Ok(self.tracker.clone()),
        }
    }
}

#[derive(Clone)]
struct Switch(Arc<Lines>);

impl Service<Request> for Switch {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let chosen = self.0.choose(&request);
        Box::pin(async move {
            match chosen {
                Ok(router) => router.oneshot(request).await,
                Err(problem) => Ok(ProblemResponse(problem).into_response()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;

    use super::*;

    async fn ask(board: &Router, path: &str, datanode: Option<&str>) -> (u16, String) {
        let mut request = Request::get(path);
        if let Some(id) = datanode {
            request = request.header(DATANODE_HEADER, id);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = board.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 4096)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn i21_requests_reach_the_datanode_that_they_name_and_no_other() {
        let (trigger, closing) = dfs_runtime::shutdown::shutdown_pair();
        let named =
            |text: &'static str| Router::new().route("/x", get(move || async move { text }));
        let ids = [DatanodeId::from_u128(1), DatanodeId::from_u128(2)];
        let hosted = |id: DatanodeId, text| Hosted {
            identity: Arc::new(move || id),
            router: named(text),
        };
        let health = Router::new().route("/livez", get(|| async { "ok" }));
        let board = switchboard(
            named("tracker"),
            health,
            vec![hosted(ids[0], "one"), hosted(ids[1], "two")],
            closing,
        );
        assert_eq!(ask(&board, "/x", None).await, (200, "tracker".to_owned()));
        let (one, two) = (ids[0].to_string(), ids[1].to_string());
        assert_eq!(ask(&board, "/x", Some(&one)).await.1, "one");
        assert_eq!(ask(&board, "/x", Some(&two)).await.1, "two");
        let other = DatanodeId::from_u128(3).to_string();
        assert_eq!(ask(&board, "/x", Some(&other)).await.0, 421);
        assert_eq!(ask(&board, "/x", Some("nonsense")).await.0, 421);
        assert_eq!(ask(&board, "/livez", None).await.1, "ok");
        assert_eq!(ask(&board, "/none", None).await.0, 404);
        trigger.trigger();
        assert_eq!(ask(&board, "/x", None).await.0, 503);
        assert_eq!(ask(&board, "/x", Some(&one)).await.1, "one");
        assert_eq!(ask(&board, "/internal/heartbeat", None).await.0, 404);
    }
}
