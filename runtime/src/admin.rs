//! The admin listener: `/livez`, `/readyz`, `/metrics`. It has its own port and its own small caps,
//! so that health stays answerable while the API is saturated.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dfs_protocol::problem::{ErrorCode, Problem};
use dfs_protocol::routes::admin::{LIVEZ, METRICS, READYZ};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;

use crate::problem::{ProblemResponse, with_fallbacks};
use crate::server::{ServerLimits, ServerMetrics, serve};
use crate::shutdown::Shutdown;

/// Named checks that a role sets; ready when there is at least one and none fails. Clones share
/// the checks.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>);

impl Readiness {
    /// Nothing checked yet: not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says how a check stands; `Err` holds the reason in a few words.
    pub fn set(&self, name: &'static str, state: Result<(), String>) {
        let mut checks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        checks.insert(name, state);
    }

    /// Whether the role should get traffic.
    pub fn is_ready(&self) -> bool {
        let checks = self.checks();
        !checks.is_empty() && checks.values().all(Result::is_ok)
    }

    /// Every check as it stands.
    pub fn checks(&self) -> BTreeMap<&'static str, Result<(), String>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// One line per check: `[ok] name` or `[failed] name: reason`.
    pub fn describe(&self) -> String {
        let checks = self.checks();
        if checks.is_empty() {
            return "[failed] starting: no check was made yet\n".to_owned();
        }
        let lines = checks.into_iter().map(|(name, state)| match state {
            Ok(()) => format!("[ok] {name}\n"),
            Err(reason) => format!("[failed] {name}: {reason}\n"),
        });
        lines.collect()
    }
}

#[derive(Debug, Clone)]
struct Admin {
    readiness: Readiness,
    registries: Arc<[Registry]>,
}

/// The admin routes. Several registries come out as one exposition.
pub fn admin_router(readiness: Readiness, registries: Vec<Registry>) -> Router {
    let admin = Admin {
        readiness,
        registries: registries.into(),
    };
    let router = Router::new()
        .route(LIVEZ, get(|| async { "ok\n" }))
        .route(READYZ, get(readyz))
        .route(METRICS, get(metrics));
    with_fallbacks(router).with_state(admin)
}

/// Serves the admin routes with [`ServerLimits::admin`] until the shutdown.
pub async fn serve_admin(
    listener: TcpListener,
    router: Router,
    metrics: ServerMetrics,
    shutdown: Shutdown,
) {
    serve(listener, router, ServerLimits::admin(), metrics, shutdown).await;
}

async fn readyz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let ready = admin.readiness.is_ready();
    let verbose = query.as_deref().unwrap_or("").split('&');
    let verbose = verbose
        .map(|pair| pair.split('=').next())
        .any(|key| key == Some("verbose"));
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let text = if verbose {
        admin.readiness.describe()
    } else if ready {
        "ok\n".to_owned()
    } else {
        "not ready; see /readyz?verbose\n".to_owned()
    };
    (status, text).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Result<Response, ProblemResponse> {
    let families = merge(admin.registries.iter().flat_map(Registry::gather));
    let text = TextEncoder::new()
        .encode_to_string(&families)
        .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
    let media_type = [(CONTENT_TYPE, prometheus::TEXT_FORMAT)];
    Ok((media_type, text).into_response())
}

/// Families of the same name become one: an exposition may name each family once.
fn merge(families: impl Iterator<Item = MetricFamily>) -> Vec<MetricFamily> {
    let mut merged: BTreeMap<String, MetricFamily> = BTreeMap::new();
    for mut family in families {
        match merged.get_mut(family.name()) {
            Some(first) => first.mut_metric().append(family.mut_metric()),
            None => {
                merged.insert(family.name().to_owned(), family);
            }
        }
    }
    merged.into_values().collect()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(router: &Router, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_each_check_and_its_reason() {
        let readiness = Readiness::new();
        let router = admin_router(readiness.clone(), Vec::new());
        assert_eq!(ask(&router, "/livez").await, (200, "ok\n".to_owned()));
        assert_eq!(ask(&router, "/readyz").await.0, 503);
        readiness.set("catalog", Ok(()));
        assert_eq!(ask(&router, "/readyz").await, (200, "ok\n".to_owned()));
        readiness.set("tracker", Err("not heard for 9 s".to_owned()));
        assert_eq!(ask(&router, "/readyz").await.0, 503);
        let verbose = "[ok] catalog\n[failed] tracker: not heard for 9 s\n".to_owned();
        assert_eq!(ask(&router, "/readyz?verbose").await, (503, verbose));
        readiness.set("tracker", Ok(()));
        let verbose = "[ok] catalog\n[ok] tracker\n".to_owned();
        assert_eq!(ask(&router, "/readyz?verbose=1").await, (200, verbose));
    }

    #[tokio::test]
    async fn several_registries_name_each_family_once() {
        let registries = ["tracker", "gateway"].map(|role| {
            let registry = Registry::new();
            crate::process::register(&registry, role).unwrap();
            registry
        });
        let router = admin_router(Readiness::new(), registries.to_vec());
        let (status, text) = ask(&router, "/metrics").await;
        assert_eq!(status, 200);
        assert_eq!(text.matches("# TYPE dfs_build_info ").count(), 1, "{text}");
        for role in ["tracker", "gateway"] {
            assert!(text.contains(&format!("role=\"{role}\"")), "{text}");
        }
    }
}
