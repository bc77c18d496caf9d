//! A small WebDriver client: one Chromium behind one chromedriver, both ended with the [`Browser`].

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dfs_e2e::http::Http;
use dfs_e2e::process::free_ports;
use dfs_e2e::wait::eventually;
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Makes a missing browser a failure.
const REQUIRED: &str = "DFS_BROWSER_TESTS";
/// How long a browser may take to start on a busy machine.
const START: Duration = Duration::from_mins(2);
/// How long a page may take to show what is waited for.
pub(crate) const SHOWN: Duration = Duration::from_mins(1);
/// The key of an element's reference (W3C WebDriver, section 12.2).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window.
#[derive(Debug)]
pub(crate) struct Browser {
    driver: Child,
    http: Http,
    session: Option<String>,
    /// Profile and logs.
    dir: TempDir,
    /// One browser at a time: CI has two cores.
    _turn: OwnedMutexGuard<()>,
}

impl Browser {
    /// A fresh browser; `None`, with a word why, where none is installed and none is demanded.
    #[allow(clippy::print_stderr)] // A test that did not run says so.
    pub(crate) async fn start() -> Option<Self> {
        let found = [installed("chromium"), installed("chromedriver")];
        let [Some(chromium), Some(chromedriver)] = found else {
            assert!(
                std::env::var(REQUIRED).as_deref() != Ok("1"),
                "{REQUIRED}=1 demands a browser: install chromium and chromium-driver"
            );
            eprintln!("skipped: chromium and chromedriver are not installed");
            return None;
        };
        let turn = turn().await;
        let dir = tempfile::tempdir().expect("a directory for the profile");
        let port = free_ports(1)[0];
        let log = std::fs::File::create(dir.path().join("driver.log")).unwrap();
        let driver = Command::new(chromedriver)
            .arg(format!("--port={port}"))
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("chromedriver starts");
        let mut browser = Self {
            driver,
            http: Http::new(&format!("127.0.0.1:{port}")),
            session: None,
            dir,
            _turn: turn,
        };
        eventually("chromedriver answers", START, || async {
            let reply = browser.http.get("/status").await;
            reply.map(drop).map_err(|error| error.to_string())
        })
        .await;
        let wanted = capabilities(&chromium, &browser.dir.path().join("profile"));
        let made = browser.call(Method::POST, "/session", wanted).await;
        browser.session = Some(made["sessionId"].as_str().unwrap().to_owned());
        Some(browser)
    }

    /// One command; what it answers.
    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        let session = self.session.as_ref().map(|id| format!("/session/{id}"));
        let uri = format!("{}{path}", session.unwrap_or_default());
        let reply = if method == Method::POST {
            self.http.post_json(&uri, &body).await
        } else {
            self.http.get(&uri).await
        };
        let reply = reply.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let answer: Value = reply.json();
        assert!(reply.status.is_success(), "{path}: {answer:#}");
        answer["value"].clone()
    }

    /// Opens an address and waits until it is loaded.
    pub(crate) async fn open(&self, url: &str) {
        self.call(Method::POST, "/url", json!({ "url": url })).await;
    }

    /// Runs a function's body in the page; what it returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        self.call(Method::POST, "/execute/sync", body).await
    }

    /// The text of what a selector finds, as a reader sees it.
    pub(crate) async fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.innerText ?? ''");
        self.run(&script).await.as_str().unwrap_or("").to_owned()
    }

    /// Waits until an expression of the page is true.
    pub(crate) async fn wait(&self, what: &str, expression: &str) {
        let script = format!(
            "return ({expression}) ? '' : document.title + ': ' + document.body.innerText.slice(0, 3000)"
        );
        eventually(what, SHOWN, || async {
            match self.run(&script).await.as_str() {
                Some("") => Ok(()),
                shown => Err(shown.unwrap_or("no document").to_owned()),
            }
        })
        .await;
    }

    /// Waits until an element shows a text.
    pub(crate) async fn shows(&self, selector: &str, text: &str) {
        let expression =
            format!("document.querySelector({selector:?})?.innerText.includes({text:?})");
        self.wait(&format!("{selector} shows {text:?}"), &expression)
            .await;
    }

    /// Clicks as a person does: what is covered or hidden cannot be clicked.
    pub(crate) async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        let path = format!("/element/{element}/click");
        self.call(Method::POST, &path, json!({})).await;
    }

    /// Types into an element; into a file input, the path of a file.
    pub(crate) async fn type_into(&self, selector: &str, text: &str) {
        let element = self.find(selector).await;
        let path = format!("/element/{element}/value");
        self.call(Method::POST, &path, json!({ "text": text }))
            .await;
    }

    async fn find(&self, selector: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = self.call(Method::POST, "/element", wanted).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// A command of the browser's own protocol.
    pub(crate) async fn devtools(&self, command: &str, params: Value) -> Value {
        let body = json!({ "cmd": command, "params": params });
        self.call(Method::POST, "/goog/cdp/execute", body).await
    }

    /// The window's width in pixels; narrow ones are a phone's.
    pub(crate) async fn resize(&self, width: u32) {
        let phone = width < 600;
        let metrics = json!({
            "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": phone,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
    }

    /// `light` or `dark`.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let wanted = json!({ "features": features });
        self.devtools("Emulation.setEmulatedMedia", wanted).await;
    }

    /// The whole page as `target/screenshots/NAME.png`.
    pub(crate) async fn picture(&self, name: &str) {
        let wanted = json!({ "format": "png", "captureBeyondViewport": true });
        let taken = self.devtools("Page.captureScreenshot", wanted).await;
        let png = STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/screenshots");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(format!("{name}.png")), png).unwrap();
    }

    /// What the browser had to complain of since the last look.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self
            .call(Method::POST, "/se/log", json!({ "type": "browser" }))
            .await;
        let lines = log.as_array().unwrap().iter();
        lines
            .map(|line| format!("{} {}", line["level"], line["message"]))
            .collect()
    }
}

impl Drop for Browser {
    /// The session first: a browser whose driver is killed would go on alone.
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            let _ended = end_session(&self.http.address, session);
        }
        let _killed = self.driver.kill();
        let _waited = self.driver.wait();
    }
}

/// Blocking, so that it works in a test that panics.
fn end_session(address: &str, session: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(START))?;
    let request = format!(
        "DELETE /session/{session} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut first = [0; 64];
    stream.read(&mut first).map(drop)
}

async fn turn() -> OwnedMutexGuard<()> {
    static TURN: std::sync::LazyLock<Arc<Mutex<()>>> = std::sync::LazyLock::new(Arc::default);
    TURN.clone().lock_owned().await
}

fn installed(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).map(|dir| dir.join(name));
    found.find(|path| path.is_file())
}

fn capabilities(chromium: &Path, profile: &Path) -> Value {
    let args = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        "--window-size=1100,900",
    ];
    let mut args: Vec<String> = args.map(str::to_owned).into();
    args.push(format!("--user-data-dir={}", profile.display()));
    json!({ "capabilities": { "alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": { "binary": chromium, "args": args },
        "goog:loggingPrefs": { "browser": "ALL" },
    } } })
}
