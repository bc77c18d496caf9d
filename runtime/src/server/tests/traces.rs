//! Whose trace a request belongs to, and who hears of it.

use std::io;
use std::sync::{Arc, Mutex};

use dfs_protocol::TraceContext;
use dfs_protocol::problem::Problem;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::trace;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";

async fn served() -> Served {
    // What the request would tell another role.
    let told = || async { format!("{:?}", trace::outgoing("call").header) };
    let router = Router::new().route("/told", get(told));
    serve_router(ServerLimits::default(), router).await
}

async fn get_with(served: &Served, path: &str, fields: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n");
    let answer = served.talk(request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn a_request_is_handed_on_under_the_trace_that_it_came_with() {
    let served = served().await;
    let (head, told) = get_with(&served, "/told", PARENT).await;
    assert!(head.contains(&format!("x-request-id: {TRACE}")), "{head}");
    // Nothing is written down here: whose part it is stays, that it is written down does not.
    let handed_on = format!("00-{TRACE}-00f067aa0ba902b7-00");
    assert!(told.contains(&handed_on), "{told}");
}

#[tokio::test]
async fn a_request_without_a_good_trace_gets_one() {
    let served = served().await;
    let bad = [
        "",
        "traceparent: x\r\n",
        "traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01\r\n",
    ];
    for fields in bad {
        let (head, told) = get_with(&served, "/told", fields).await;
        let id = head.split_once("x-request-id: ").unwrap().1;
        let id = id.split("\r\n").next().unwrap();
        let told = told.split('"').nth(1).unwrap();
        let context: TraceContext = told.parse().unwrap();
        assert_eq!(context.trace.to_string(), id, "{fields}");
        assert_ne!(id, TRACE);
    }
}

#[tokio::test]
async fn an_error_names_the_trace_beside_the_clients_own_id() {
    let served = served().await;
    let (_, body) = get_with(&served, "/nowhere", PARENT).await;
    let problem: Problem = serde_json::from_str(&body).unwrap();
    assert_eq!((&*problem.request_id, &*problem.trace_id), (TRACE, TRACE));

    let own = format!("{PARENT}x-request-id: mine-1\r\n");
    let (head, body) = get_with(&served, "/nowhere", &own).await;
    let problem: Problem = serde_json::from_str(&body).unwrap();
    assert!(head.contains("x-request-id: mine-1"), "{head}");
    assert_eq!(
        (&*problem.request_id, &*problem.trace_id),
        ("mine-1", TRACE)
    );
    let (_, text) = get_with(&served, "/nowhere", &format!("{own}Accept: text/plain\r\n")).await;
    assert!(
        text.contains(&format!("trace {TRACE}\nrequest mine-1\n")),
        "{text}"
    );
}

/// Log lines of a test.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn the_log_names_the_trace() {
    let lines = Lines::default();
    let log = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(lines.clone())
        .finish();
    // Of this thread, which serves as well.
    let _until = tracing::subscriber::set_default(log);
    let served = served().await;
    let own = format!("{PARENT}x-request-id: mine-1\r\n");
    get_with(&served, "/told", &own).await;
    eventually(|| {
        let text = lines.0.lock().unwrap().clone();
        let text = String::from_utf8(text).unwrap();
        let ended = text.lines().find(|line| line.contains("request ended"));
        ended.is_some_and(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["span"]["trace"] == TRACE && line["span"]["id"] == "mine-1"
        })
    })
    .await;
}
