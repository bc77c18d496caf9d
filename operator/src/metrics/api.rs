//! Calls to the API server, counted where all of them pass.

use std::task::{Context, Poll};

use dfs_runtime::label_enum;
use dfs_runtime::metrics::{Label, registered};
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use prometheus::{IntCounterVec, Opts, Registry};
use tower::{BoxError, Service};

label_enum! {
    /// What was asked for.
    pub enum ApiVerb: "verb" {
        /// A get, a list, or the beginning of a watch.
        Read = "read",
        /// A new object, or a subresource such as an eviction.
        Create = "create",
        /// A whole object in the place of another: the lease.
        Replace = "replace",
        /// A server-side apply.
        Apply = "apply",
        /// A deletion.
        Delete = "delete",
    }
}

label_enum! {
    /// How the API server answered.
    pub enum ApiResult: "result" {
        /// It did what was asked.
        Ok = "ok",
        /// There is no such object: often just the answer to a question.
        NotFound = "not-found",
        /// The object had changed, or exists already.
        Conflict = "conflict",
        /// It asks to wait.
        Throttled = "throttled",
        /// It refuses: permissions, quota, admission, schema.
        Rejected = "rejected",
        /// It failed or was not reached.
        Failed = "failed",
    }
}

impl ApiVerb {
    fn of(method: &Method) -> Self {
        match *method {
            Method::POST => Self::Create,
            Method::PUT => Self::Replace,
            Method::PATCH => Self::Apply,
            Method::DELETE => Self::Delete,
            _ => Self::Read,
        }
    }
}

impl ApiResult {
    fn of(status: StatusCode) -> Self {
        match status.as_u16() {
            404 => Self::NotFound,
            409 => Self::Conflict,
            429 => Self::Throttled,
            400..=499 => Self::Rejected,
            500.. => Self::Failed,
            _ => Self::Ok,
        }
    }
}

/// `dfs_operator_api_calls_total`.
#[derive(Debug, Clone)]
pub struct ApiMetrics {
    calls: IntCounterVec,
}

impl ApiMetrics {
    /// Registers every series.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = Opts::new(
            "dfs_operator_api_calls_total",
            "Calls to the API server by what was asked and how it answered",
        );
        let labels = [ApiVerb::NAME, ApiResult::NAME];
        let calls = registered(registry, IntCounterVec::new(options, &labels)?)?;
        for verb in ApiVerb::ALL {
            for result in ApiResult::ALL {
                calls.with_label_values(&[verb.as_str(), result.as_str()]);
            }
        }
        Ok(Self { calls })
    }

    /// A client whose calls are counted.
    pub fn counting(&self, client: Client) -> Client {
        let namespace = client.default_namespace().to_owned();
        let metrics = self.clone();
        Client::new(Counting { client, metrics }, namespace)
    }

    /// Calls so far.
    pub fn count(&self, verb: ApiVerb, result: ApiResult) -> u64 {
        self.of(verb, result).get()
    }

    fn of(&self, verb: ApiVerb, result: ApiResult) -> prometheus::IntCounter {
        self.calls
            .with_label_values(&[verb.as_str(), result.as_str()])
    }
}

struct Counting {
    client: Client,
    metrics: ApiMetrics,
}

impl Service<Request<Body>> for Counting {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // The client waits for its turn by itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let verb = ApiVerb::of(request.method());
        let (client, metrics) = (self.client.clone(), self.metrics.clone());
        Box::pin(async move {
            let answer = client.send(request).await;
            let status = answer.as_ref().map(Response::status);
            let result = status.map_or(ApiResult::Failed, ApiResult::of);
            metrics.of(verb, result).inc();
            Ok(answer?)
        })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::api::{Api, DeleteParams};

    use super::*;

    #[tokio::test]
    async fn calls_are_counted_by_what_was_asked_and_how_it_was_answered() {
        let metrics = ApiMetrics::register(&Registry::new()).unwrap();
        let server = tower::service_fn(|request: Request<Body>| async move {
            let (code, reason) = match *request.method() {
                Method::DELETE => (409, "Conflict"),
                _ => (404, "NotFound"),
            };
            let body = serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure",
                "code": code, "reason": reason, "message": reason,
            });
            let answer = Response::builder().status(code);
            answer
                .body(Body::from(body.to_string().into_bytes()))
                .map_err(BoxError::from)
        });
        let client = metrics.counting(Client::new(server, "default"));
        let pods: Api<Pod> = Api::default_namespaced(client);
        assert!(pods.get_opt("absent").await.unwrap().is_none());
        pods.delete("changed", &DeleteParams::default())
            .await
            .unwrap_err();
        assert_eq!(metrics.count(ApiVerb::Read, ApiResult::NotFound), 1);
        assert_eq!(metrics.count(ApiVerb::Delete, ApiResult::Conflict), 1);
        assert_eq!(metrics.count(ApiVerb::Read, ApiResult::Ok), 0);
    }
}
