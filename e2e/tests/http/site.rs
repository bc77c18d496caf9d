//! The running store that the tests of this binary share: started when the first test needs it,
//! ended after the last one that holds it, and clean by fsck at its end (I33).

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use dfs_e2e::cluster::{CALM_HEARTS, Cluster, Options, SOON};
use dfs_e2e::http::{RawReply, Reply, raw_exchange};
use dfs_e2e::store::Store;
use prometheus::Registry;
use serde_json::Value;

/// Bytes of a full chunk.
pub(crate) const CHUNK: usize = 256 * 1024;
/// Largest file.
pub(crate) const MAX_FILE: usize = 8 * CHUNK;
/// No answer takes that long.
pub(crate) const WITHIN: Duration = Duration::from_secs(90);

pub(crate) struct Site {
    pub(crate) address: String,
    pub(crate) store: Store,
    registries: Vec<Registry>,
    end: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The shared store.
pub(crate) fn site() -> Arc<Site> {
    static SHARED: Mutex<Weak<Site>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(site) = shared.upgrade() {
        return site;
    }
    let site = Arc::new(Site::start(options()));
    *shared = Arc::downgrade(&site);
    site
}

fn options() -> Options {
    Options {
        tracker: |config| {
            config.chunk_size = CHUNK as u64;
            config.heartbeat_interval = CALM_HEARTS;
        },
        gateway: |config| config.max_file_bytes = MAX_FILE as u64,
        ..Options::default()
    }
}

impl Site {
    /// A store of a test's own.
    pub(crate) fn start(options: Options) -> Self {
        let (end, ending) = mpsc::channel();
        let (started, starting) = mpsc::channel();
        let thread = std::thread::spawn(move || keep(options, &started, &ending));
        let (address, registries) = starting.recv().expect("the store starts");
        Self {
            store: Store::new(&address),
            address,
            registries,
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// The sum over all roles of a metric's samples whose line holds `part`.
    pub(crate) fn metric(&self, part: &str) -> f64 {
        let encoder = prometheus::TextEncoder::new();
        let mut sum = 0.0;
        for registry in &self.registries {
            let text = encoder.encode_to_string(&registry.gather()).unwrap();
            let samples = text
                .lines()
                .filter(|line| !line.starts_with('#') && line.contains(part));
            sum += samples
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum::<f64>();
        }
        sum
    }

    /// Sends bytes as they are; what comes back until the server closes.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> RawReply {
        let bytes = bytes.as_ref();
        let reply = raw_exchange(&self.address, bytes, WITHIN).await.unwrap();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
        assert!(reply.closed, "no end after {shown:?}: {}", reply.text());
        reply
    }

    /// Any request; the body is small.
    pub(crate) async fn ask(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> Reply {
        let body = dfs_client::http::whole(body);
        let sent = self
            .store
            .door
            .send(method.parse().unwrap(), uri, headers, body)
            .await;
        sent.unwrap_or_else(|error| panic!("{method} {uri}: {error}"))
    }

    /// Every name that begins so.
    pub(crate) async fn names(&self, prefix: &str) -> Vec<String> {
        self.store.list(prefix).await
    }

    /// The store still takes and gives files, and no handler has panicked.
    pub(crate) async fn works(&self) {
        let name = format!("works-{:016x}", fastrand::u64(..));
        self.store.put(&name, "all is well").await;
        assert_eq!(self.store.get(&name).await, "all is well");
        self.store.delete(&name).await;
        let panics = self.metric("dfs_http_handler_panics_total");
        assert!(panics.abs() < 0.5, "{panics} handlers panicked");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop(self.end.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().expect("the store is clean at its end");
        }
    }
}

type Started = (String, Vec<Registry>);

/// Keeps a store until the other side hangs up.
fn keep(options: Options, started: &mpsc::Sender<Started>, ending: &mpsc::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let cluster = Cluster::start(options).await;
        let mut registries = vec![cluster.tracker.registry.clone()];
        registries.extend(cluster.datanodes.iter().map(|role| role.registry.clone()));
        let address = cluster.tracker.address.to_string();
        started.send((address, registries)).unwrap();
        let _hung_up = ending.recv();
        cluster.store().wait_fsck_clean(SOON).await;
    });
}

/// Checks a problem's shape (RFC 9457).
pub(crate) fn assert_problem(reply: &Reply, status: u16, code: &str, what: &str) {
    let text = reply.text();
    assert_eq!(reply.status.as_u16(), status, "{what}: {text}");
    assert_eq!(
        reply.header("content-type"),
        "application/problem+json",
        "{what}"
    );
    let problem: Value = reply.json();
    assert_fields(&problem, status, code, what);
}

/// The same for an answer read from a raw socket.
pub(crate) fn assert_raw_problem(reply: &RawReply, status: u16, code: &str, what: &str) {
    let text = reply.text();
    assert_eq!(reply.status(), Some(status), "{what}: {text}");
    let (head, body) = text.split_once("\r\n\r\n").expect("a whole header");
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("content-type: application/problem+json"),
        "{what}: {head}"
    );
    // Several answers may stand one behind the other.
    let first = serde_json::Deserializer::from_str(body).into_iter().next();
    let problem: Value = first
        .unwrap_or_else(|| panic!("{what}: no body: {text}"))
        .unwrap_or_else(|error| panic!("{what}: {error}: {text}"));
    assert_fields(&problem, status, code, what);
}

fn assert_fields(problem: &Value, status: u16, code: &str, what: &str) {
    assert_eq!(problem["status"], status, "{what}");
    assert_eq!(
        problem["type"],
        format!("urn:dfs:problem:{code}"),
        "{what}: {problem}"
    );
    for field in ["title", "detail"] {
        let text = problem[field].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{what}: no {field}: {problem}");
    }
}

/// Percent-encodes everything but unreserved characters and `/`.
pub(crate) fn encode(name: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").unwrap();
        }
    }
    text
}
