//! A router that knows its endpoints, so that a metric can have a series for each of them before
//! anybody calls it.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::MethodRouter;
use futures_util::FutureExt as _;
use http::header::ALLOW;
use http::{Method, Request};
use tower::ServiceExt as _;

use super::MethodLabel;

/// A route's pattern and one method that it takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// As the router has it, never a raw path.
    pub route: String,
    /// The method.
    pub method: MethodLabel,
}

/// A router and its endpoints.
#[derive(Debug)]
pub struct Routes {
    /// Serves them.
    pub router: Router,
    /// What is known of them: none of those that were mounted by hand.
    pub endpoints: Vec<Endpoint>,
}

impl Routes {
    /// Mounts a table of patterns and their methods.
    pub fn mount<S: Clone + Send + Sync + 'static>(
        table: impl IntoIterator<Item = (impl Into<String>, MethodRouter<S>)>,
        state: S,
    ) -> Self {
        let mut router = Router::new();
        let mut endpoints = Vec::new();
        for (route, methods) in table {
            let route = route.into();
            endpoints.extend(
                methods_of(methods.clone().with_state(state.clone())).map(|method| {
                    let route = route.clone();
                    Endpoint { route, method }
                }),
            );
            router = router.route(&route, methods);
        }
        Self {
            router: router.with_state(state),
            endpoints,
        }
    }

    /// Both, side by side.
    #[must_use]
    pub fn merge(mut self, other: Self) -> Self {
        let Self { router, endpoints } = other;
        self.router = self.router.merge(router);
        self.endpoints.extend(endpoints);
        self
    }

    /// The same endpoints behind a layer.
    #[must_use]
    pub fn map(self, layer: impl FnOnce(Router) -> Router) -> Self {
        Self {
            router: layer(self.router),
            endpoints: self.endpoints,
        }
    }
}

impl From<Router> for Routes {
    fn from(router: Router) -> Self {
        Self {
            router,
            endpoints: Vec::new(),
        }
    }
}

/// What axum answers to a method that no route of ours has: 405, and which ones there are. It is made
/// at once, without any handler.
fn methods_of(route: MethodRouter<(), Infallible>) -> impl Iterator<Item = MethodLabel> + use<> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = Method::TRACE;
    let answer: Option<Result<Response, Infallible>> = route.oneshot(request).now_or_never();
    let answer = answer.and_then(Result::ok);
    let allowed = answer
        .as_ref()
        .and_then(|answer| answer.headers().get(ALLOW));
    let allowed = allowed
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let methods: Vec<MethodLabel> = allowed
        .split(',')
        .filter_map(|name| Method::from_bytes(name.trim().as_bytes()).ok())
        .map(|method| MethodLabel::of(&method))
        .collect();
    methods.into_iter()
}

#[cfg(test)]
mod tests {
    use axum::extract::DefaultBodyLimit;
    use axum::routing::{get, post};

    use super::*;

    #[test]
    fn endpoints_are_what_the_router_takes() {
        async fn handler() {}
        let table = [
            ("/a/{*path}", get(handler).delete(handler)),
            ("/b", post(handler).layer(DefaultBodyLimit::max(1))),
        ];
        let routes = Routes::mount(table, ());
        let found: Vec<(&str, MethodLabel)> = routes
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.route.as_str(), endpoint.method))
            .collect();
        let wanted = [
            ("/a/{*path}", MethodLabel::Get),
            ("/a/{*path}", MethodLabel::Head),
            ("/a/{*path}", MethodLabel::Delete),
            ("/b", MethodLabel::Post),
        ];
        assert_eq!(found, wanted);
    }
}
