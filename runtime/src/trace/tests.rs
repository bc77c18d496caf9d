use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use prometheus::Registry;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

use super::metrics::Drop;
use super::tracer::QUEUE;
use super::*;
use crate::clock::SystemClock;
use crate::metrics::Label as _;
use crate::net::{Connection, Connector};
use crate::rng::SharedRng;

/// Far above what any test needs on a busy machine.
const DEADLINE: std::time::Duration = std::time::Duration::from_mins(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    Refuses,
    Hangs,
}

/// A collector without a network.
#[derive(Debug)]
struct FakeCollector {
    mood: Mutex<Mood>,
    called: AtomicUsize,
    bodies: Arc<Mutex<Vec<Value>>>,
}

impl FakeCollector {
    fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(mood),
            called: AtomicUsize::new(0),
            bodies: Arc::default(),
        })
    }

    /// Every span that came.
    fn spans(&self) -> Vec<Value> {
        let bodies = self.bodies.lock().unwrap();
        let spans = bodies
            .iter()
            .map(|body| &body["resourceSpans"][0]["scopeSpans"][0]["spans"]);
        spans
            .flat_map(|spans| spans.as_array().unwrap().clone())
            .collect()
    }
}

#[async_trait]
impl Connector for FakeCollector {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        assert_eq!(address, "collector:4318");
        self.called.fetch_add(1, Ordering::SeqCst);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (mood, bodies) = (*self.mood.lock().unwrap(), self.bodies.clone());
        tokio::spawn(answer(far, mood, bodies));
        Ok(Box::new(near))
    }
}

/// Reads one request and answers it.
async fn answer(mut stream: DuplexStream, mood: Mood, bodies: Arc<Mutex<Vec<Value>>>) {
    let mut request = Vec::new();
    let (head, length) = loop {
        stream.read_buf(&mut request).await.unwrap();
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.split_once("content-length: ").unwrap().1;
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            break (head.len() + 4, length);
        }
    };
    while request.len() < head + length {
        stream.read_buf(&mut request).await.unwrap();
    }
    assert!(request.starts_with(b"POST /below/v1/traces HTTP/1.1\r\n"));
    let status = match mood {
        Mood::Takes => {
            let body = serde_json::from_slice(&request[head..]).unwrap();
            bodies.lock().unwrap().push(body);
            "200 OK"
        }
        Mood::Refuses => "503 Busy",
        Mood::Hangs => std::future::pending().await,
    };
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}");
    stream.write_all(answer.as_bytes()).await.unwrap();
}

fn start(ratio: f64, collector: &Arc<FakeCollector>) -> (Tracer, Exporting, TraceMetrics) {
    let metrics = TraceMetrics::register(&Registry::new()).unwrap();
    let settings = TraceSettings {
        collector: "http://collector:4318/below/".parse().unwrap(),
        ratio,
    };
    let resource = Resource {
        service: "dfs-gateway",
        instance: "gateway-0".to_owned(),
    };
    let parts = TracerParts {
        clock: SystemClock::shared(),
        rng: SharedRng::from_seed(3),
        connector: collector.clone(),
        metrics: metrics.clone(),
    };
    let (tracer, exporting) = Tracer::start(settings, resource, parts);
    (tracer, exporting, metrics)
}

fn context(sampled: bool) -> TraceContext {
    let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
    TraceContext {
        sampled,
        ..text.parse().unwrap()
    }
}

fn begin(tracer: &Tracer, parent: Option<TraceContext>, by_role: bool) -> (Current, Span) {
    let ids = SharedRng::from_seed(5);
    tracer.request(&ids, parent, by_role, || "GET /files".to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_request_and_its_calls_arrive_as_one_trace() {
    let collector = FakeCollector::new(Mood::Takes);
    let (tracer, exporting, metrics) = start(1.0, &collector);
    let parent = context(false);
    let (current, mut request) = begin(&tracer, Some(parent), false);
    request.number("http.response.status_code", 503);
    request.failed("server-error");
    let call = current.clone().scope(async { outgoing("locate") }).await;
    let carried_on = call.header.unwrap().to_str().unwrap().to_owned();
    let carried_on: TraceContext = carried_on.parse().unwrap();
    assert_eq!(call.context, Some(carried_on));
    assert!(carried_on.sampled && carried_on.trace == parent.trace);
    let mut span = call.span;
    span.text("server.address", || "tracker:6000");
    drop(span);
    drop(request);
    exporting.finish().await;

    let spans = collector.spans();
    assert_eq!(spans.len(), 2);
    assert_eq!(metrics.exported.get(), 2);
    let (call, request) = (&spans[0], &spans[1]);
    assert_eq!(request["traceId"], parent.trace.to_string());
    assert_eq!(request["parentSpanId"], parent.span.to_string());
    assert_eq!(request["kind"], 2);
    assert_eq!(request["name"], "GET /files");
    assert_eq!(
        request["status"],
        serde_json::json!({"code": 2, "message": "server-error"})
    );
    let number =
        serde_json::json!({"key": "http.response.status_code", "value": {"intValue": "503"}});
    assert_eq!(request["attributes"][0], number);
    assert_eq!(call["parentSpanId"], request["spanId"]);
    assert_eq!(call["spanId"], carried_on.span.to_string());
    assert_eq!(call["kind"], 3);
    let bodies = collector.bodies.lock().unwrap();
    let resource = &bodies[0]["resourceSpans"][0]["resource"]["attributes"];
    assert_eq!(resource[0]["value"]["stringValue"], "dfs-gateway");
    assert_eq!(resource[1]["value"]["stringValue"], "gateway-0");
}

#[tokio::test(start_paused = true)]
async fn off_hands_on_whose_request_it_is_and_connects_to_nobody() {
    let parent = context(true);
    let (current, span) = begin(&Tracer::off(), Some(parent), true);
    assert_eq!(span.context(), None);
    let call = current.scope(async { outgoing("locate") }).await;
    assert_eq!(call.context, Some(parent), "as it came");
    assert_eq!(call.span.context(), None);

    let (current, _span) = begin(&Tracer::off(), None, false);
    let first = current.context().trace;
    let call = current.scope(carried(async { outgoing("locate") })).await;
    assert_eq!(call.context.unwrap().trace, first);
    assert!(!call.context.unwrap().sampled);

    let nobody = outgoing("heartbeat");
    assert!(nobody.header.is_none() && nobody.context.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_request_spawns_belongs_to_it() {
    let (current, _span) = begin(&Tracer::off(), None, false);
    let trace = current.context().trace;
    let spawned = current.scope(async {
        let alone = tokio::spawn(async { outgoing("locate").context });
        let ours = tokio::spawn(carried(async { outgoing("locate").context }));
        (alone.await.unwrap(), ours.await.unwrap())
    });
    let (alone, ours) = spawned.await;
    assert_eq!(alone, None);
    assert_eq!(ours.unwrap().trace, trace);
}

#[tokio::test(start_paused = true)]
async fn who_is_outside_does_not_decide_what_is_written_down() {
    let collector = FakeCollector::new(Mood::Takes);
    let (none, _exporting, _metrics) = start(0.0, &collector);
    assert_eq!(begin(&none, Some(context(true)), false).1.context(), None);
    assert!(
        begin(&none, Some(context(true)), true)
            .1
            .context()
            .is_some()
    );
    let (all, _exporting, _metrics) = start(1.0, &collector);
    assert!(
        begin(&all, Some(context(false)), false)
            .1
            .context()
            .is_some()
    );
    // A role that does not write a request down: neither do we.
    assert_eq!(begin(&all, Some(context(false)), true).1.context(), None);
    assert_eq!(begin(&all, None, true).1.context(), None);

    let (some, _exporting, _metrics) = start(0.25, &collector);
    let written = (0..1000).filter(|_| begin(&some, None, false).1.context().is_some());
    let written = written.count();
    assert!((200..300).contains(&written), "{written}");
}

/// Spans by reason for which they were dropped.
fn dropped(metrics: &TraceMetrics) -> Vec<u64> {
    let reasons = Drop::ALL.iter();
    reasons.map(|reason| metrics.dropped.get(*reason)).collect()
}

#[tokio::test]
async fn a_collector_that_hangs_slows_no_request_and_what_it_does_not_get_is_counted() {
    let collector = FakeCollector::new(Mood::Hangs);
    let (tracer, exporting, metrics) = start(1.0, &collector);
    // One batch may be with the collector; the rest has to fit into the queue.
    let (done, all_ended) = tokio::sync::oneshot::channel();
    let requests = QUEUE + 2000;
    std::thread::spawn(move || {
        for _ in 0..requests {
            drop(begin(&tracer, None, false));
        }
        let _test_gave_up = done.send(());
    });
    let ended = tokio::time::timeout(DEADLINE, all_ended).await;
    ended.expect("requests wait for the exporter").unwrap();
    assert!(
        metrics.dropped.get(Drop::QueueFull) > 0,
        "{:?}",
        dropped(&metrics)
    );
    assert_eq!(metrics.exported.get(), 0);
    // The end is held up for a moment only.
    let finished = tokio::time::timeout(DEADLINE, exporting.finish()).await;
    finished.expect("the end waits for the collector");
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_refuses_or_is_silent_is_counted_and_asked_again() {
    let collector = FakeCollector::new(Mood::Refuses);
    let (tracer, exporting, metrics) = start(1.0, &collector);
    let failures = async |wanted: u64| {
        let reached = async {
            while metrics.failures.get() < wanted {
                tokio::task::yield_now().await;
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(DEADLINE, reached).await.unwrap();
    };
    drop(begin(&tracer, None, false));
    failures(1).await;
    *collector.mood.lock().unwrap() = Mood::Hangs;
    drop(begin(&tracer, None, false));
    failures(2).await;
    assert_eq!(dropped(&metrics), [0, 2, 0]);
    *collector.mood.lock().unwrap() = Mood::Takes;
    drop(begin(&tracer, None, false));
    exporting.finish().await;
    assert_eq!(collector.spans().len(), 1);
    assert_eq!(metrics.exported.get(), 1);
    assert_eq!(collector.called.load(Ordering::SeqCst), 3);
    drop(begin(&tracer, None, false));
    assert_eq!(dropped(&metrics), [0, 2, 1], "nobody sends any more");
}

#[test]
fn collectors_are_reached_over_plain_http() {
    let path = |text: &str| text.parse::<Collector>().map(|at| at.to_string());
    assert_eq!(
        path("http://otel:4318"),
        Ok("http://otel:4318/v1/traces".to_owned())
    );
    assert_eq!(
        path("http://[::1]:4318/otlp/"),
        Ok("http://[::1]:4318/otlp/v1/traces".to_owned())
    );
    assert_eq!(path("https://otel:4318"), Err(ParseCollectorError::Tls));
    for bad in [
        "",
        "otel:4318",
        "grpc://otel:4317",
        "http://a@b:1",
        "http://otel:0",
        "http://otel:99999",
        "http://otel:",
        "http://b/?x",
    ] {
        assert_eq!(path(bad), Err(ParseCollectorError::Malformed), "{bad}");
    }
}
