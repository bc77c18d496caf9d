//! One request is followed from the door to the last hop.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use dfs_datanode::DatanodeConfig;
use dfs_e2e::cluster::{Cluster, Options};
use dfs_e2e::http::Reply;
use dfs_e2e::wait::eventually;
use dfs_protocol::{Problem, SpanId, TraceContext, TraceId};
use dfs_runtime::clock::SystemClock;
use dfs_runtime::net::TcpConnector;
use dfs_runtime::rng::SharedRng;
use dfs_runtime::server::{ServerLimits, ServerMetrics, serve};
use dfs_runtime::shutdown::{ShutdownTrigger, shutdown_pair};
use dfs_runtime::trace::{Exporting, Resource, TraceMetrics, TraceSettings, Tracer, TracerParts};
use dfs_tracker::TrackerConfig;
use http::{Method, StatusCode};
use prometheus::Registry;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::consistency::Gateway;
use crate::kit::{CHUNK_BYTES, DEADLINE, calm_options};

/// A span, with whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    service: String,
    instance: String,
    trace: String,
    id: String,
    parent: String,
    name: String,
    is_server: bool,
}

type Spans = Arc<Mutex<Vec<Seen>>>;

/// Takes what roles export, and keeps every word of it.
struct Collector {
    spans: Spans,
    said: Arc<Mutex<String>>,
    address: String,
    _until: ShutdownTrigger,
}

#[derive(Clone)]
struct Kept(Spans, Arc<Mutex<String>>);

async fn take(State(kept): State<Kept>, body: String) {
    let batch: Value = serde_json::from_str(&body).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for resource in batch["resourceSpans"].as_array().unwrap() {
        let facts = &resource["resource"]["attributes"];
        for span in resource["scopeSpans"][0]["spans"].as_array().unwrap() {
            kept.0.lock().unwrap().push(Seen {
                service: text(&facts[0]["value"]["stringValue"]),
                instance: text(&facts[1]["value"]["stringValue"]),
                trace: text(&span["traceId"]),
                id: text(&span["spanId"]),
                parent: text(&span["parentSpanId"]),
                name: text(&span["name"]),
                is_server: span["kind"] == 2,
            });
        }
    }
    kept.1.lock().unwrap().push_str(&body);
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (spans, said) = (Spans::default(), Arc::<Mutex<String>>::default());
        let router = Router::new().route("/v1/traces", post(take));
        let router = router.with_state(Kept(spans.clone(), said.clone()));
        let metrics = ServerMetrics::register(&Registry::new(), "api").unwrap();
        let (until, shutdown) = shutdown_pair();
        let limits = ServerLimits::default();
        tokio::spawn(serve(listener, router, limits, metrics, shutdown));
        Self {
            spans,
            said,
            address,
            _until: until,
        }
    }

    /// The spans of a trace, once every one of `wanted` (who, what) is there.
    async fn trace(&self, trace: TraceId, wanted: &[(&str, &str)]) -> Vec<Seen> {
        let trace = trace.to_string();
        eventually("the spans arrive", DEADLINE, || async {
            let spans = self.spans.lock().unwrap().clone();
            let spans: Vec<Seen> = spans.into_iter().filter(|s| s.trace == trace).collect();
            let mut left = spans.clone();
            for (service, name) in wanted {
                let at = left
                    .iter()
                    .position(|s| s.service == *service && s.name == *name);
                let at = at.ok_or_else(|| format!("no {service} {name} in {spans:#?}"))?;
                left.remove(at);
            }
            Ok(spans)
        })
        .await
    }
}

/// Where this test's roles export to: knobs of a cluster are functions without a memory.
static COLLECTOR: OnceLock<String> = OnceLock::new();
static EXPORTING: Mutex<Vec<Exporting>> = Mutex::new(Vec::new());

fn tracer(service: &'static str, instance: &str) -> Tracer {
    let settings = TraceSettings {
        collector: COLLECTOR.get().unwrap().parse().unwrap(),
        ratio: 1.0,
    };
    let resource = Resource {
        service,
        instance: instance.to_owned(),
    };
    let parts = TracerParts {
        clock: SystemClock::shared(),
        rng: SharedRng::from_entropy(),
        connector: TcpConnector::shared(),
        metrics: TraceMetrics::register(&Registry::new()).unwrap(),
    };
    let (tracer, exporting) = Tracer::start(settings, resource, parts);
    let mut all = EXPORTING.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(exporting);
    tracer
}

fn options() -> Options {
    Options {
        tracker: |config: &mut TrackerConfig| {
            (calm_options(3).tracker)(config);
            config.tracer = tracer("dfs-tracker", "tracker");
        },
        datanode: |config: &mut DatanodeConfig| {
            (calm_options(3).datanode)(config);
            config.tracer = tracer("dfs-datanode", &config.advertise);
        },
        ..calm_options(3)
    }
}

async fn send(
    gateway: &Gateway,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> (TraceContext, Reply) {
    let context = TraceContext {
        trace: TraceId::from_random(fastrand::u128(..)),
        span: SpanId::from_random(fastrand::u64(..)),
        // The gateway's own decision counts.
        sampled: false,
    };
    let text = context.to_string();
    let headers = [("traceparent", text.as_str())];
    let body = dfs_client::http::whole(body);
    let store = gateway.store();
    let sent = store.door.send(method, path, &headers, body);
    (context, sent.await.unwrap())
}

/// The one span of `spans` that is under `parent` and of that kind.
fn below<'a>(spans: &'a [Seen], parent: &str, name: &str, is_server: bool) -> &'a Seen {
    let found = spans
        .iter()
        .filter(|s| s.parent == parent && s.name == name && s.is_server == is_server);
    let found: Vec<&Seen> = found.collect();
    assert_eq!(
        found.len(),
        1,
        "{name} under {parent}: {found:?} of {spans:#?}"
    );
    found[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn one_request_is_followed_from_the_door_to_the_tracker_and_along_the_chain() {
    let collector = Collector::start().await;
    COLLECTOR.set(collector.address.clone()).unwrap();
    let mut cluster = Cluster::start(options()).await;
    let gateway = Gateway::traced(&cluster, "gateway-1", tracer("dfs-gateway", "gateway")).await;

    let bytes = cluster.bytes(CHUNK_BYTES / 2);
    let path = "/files/secret-plans/walnut";
    let (put, reply) = send(&gateway, Method::PUT, path, bytes.clone()).await;
    assert_eq!(reply.ok().header("x-request-id"), put.trace.to_string());
    let hop = ("dfs-datanode", "write");
    let door = ("dfs-gateway", "PUT /files/{*path}");
    let commit = ("dfs-gateway", "commit");
    let call = ("dfs-tracker", "POST /internal/call/{name}");
    // Three hops, and the calls of the first two to the next.
    let wanted = [door, commit, call, hop, hop, hop, hop, hop];
    let spans = collector.trace(put.trace, &wanted).await;
    let door = below(&spans, &put.span.to_string(), door.1, true);
    let commit = below(&spans, &door.id, "commit", false);
    let at_tracker = below(&spans, &commit.id, call.1, true);
    assert_eq!(at_tracker.service, "dfs-tracker");
    let mut hops = BTreeSet::new();
    let mut above = door;
    for _ in 0..3 {
        let asked = below(&spans, &above.id, "write", false);
        above = below(&spans, &asked.id, "write", true);
        assert_eq!(above.service, "dfs-datanode");
        hops.insert(above.instance.clone());
    }
    assert_eq!(hops.len(), 3, "each datanode once: {spans:#?}");

    let (get, reply) = send(&gateway, Method::GET, path, Vec::new()).await;
    assert!(reply.ok().body == bytes);
    let read = ("dfs-datanode", "read");
    let door = ("dfs-gateway", "GET /files/{*path}");
    let spans = collector.trace(get.trace, &[door, call, read]).await;
    let door = below(&spans, &get.span.to_string(), door.1, true);
    let locate = below(&spans, &door.id, "locate", false);
    below(&spans, &locate.id, call.1, true);
    let asked = below(&spans, &door.id, "read", false);
    below(&spans, &asked.id, read.1, true);

    let (lost, reply) = send(&gateway, Method::GET, "/files/secret-plans/hazel", vec![]).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    let problem: Problem = reply.json();
    assert_eq!(problem.trace_id, lost.trace.to_string());
    // What roles say to each other by themselves is nobody's request.
    let said = collector.said.lock().unwrap().clone();
    assert!(
        !said.contains("secret-plans") && !said.contains("heartbeat"),
        "{said}"
    );
}
