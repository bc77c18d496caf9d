//! The harness itself: a check that cannot fail would make every test that uses it worthless.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use dfs_e2e::http::{Http, RawSocket, raw_exchange};
use dfs_e2e::ledger::{Content, Ledger, compare};
use dfs_e2e::process::{Process, ProcessSpec, free_ports};
use dfs_e2e::wait::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(90);

fn shell(script: &str) -> ProcessSpec {
    ProcessSpec {
        name: "shell".to_owned(),
        binary: PathBuf::from("/bin/sh"),
        args: vec!["-c".to_owned(), script.to_owned()],
        env: Vec::new(),
        handle_limit: None,
    }
}

async fn log_holds(process: &Process, text: &str, times: usize) {
    eventually(text, SOON, || async {
        let log = process.log();
        let found = log.matches(text).count();
        if found >= times { Ok(()) } else { Err(log) }
    })
    .await;
}

fn state_of(pid: u32) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.to_owned())
        .unwrap_or_default();
    rest.split_whitespace().next().unwrap_or("gone").to_owned()
}

#[tokio::test]
async fn a_process_is_logged_killed_and_started_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(shell("echo started; exec sleep 600"), dir.path()).unwrap();
    log_holds(&process, "started", 1).await;
    assert!(process.resident_bytes().unwrap() > 0);
    assert!(process.status().unwrap().is_none());
    assert_eq!(process.kill_9().unwrap().signal(), Some(9));
    assert_eq!(
        process.kill_9().unwrap().signal(),
        Some(9),
        "twice is harmless"
    );
    process.pause().unwrap_err();
    process.restart().unwrap();
    log_holds(&process, "started", 2).await;
    process.terminate().unwrap();
    assert_eq!(process.wait(SOON).await.signal(), Some(15));
}

#[tokio::test]
async fn a_paused_process_stands_still_and_a_dropped_one_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(shell("exec sleep 600"), dir.path()).unwrap();
    let pid = process.pid();
    let state = |wanted: &'static str| async move {
        eventually(wanted, SOON, || async {
            let state = state_of(pid);
            if state == wanted { Ok(()) } else { Err(state) }
        })
        .await;
    };
    process.pause().unwrap();
    state("T").await;
    process.resume().unwrap();
    state("S").await;
    process.pause().unwrap();
    drop(process);
    state("gone").await;
}

#[tokio::test]
async fn a_limit_of_handles_reaches_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut spec = shell("ulimit -n");
    spec.handle_limit = Some(77);
    let mut process = Process::start(spec, dir.path()).unwrap();
    assert!(process.wait(SOON).await.success());
    log_holds(&process, "77", 1).await;
}

#[test]
fn free_ports_differ() {
    let mut ports = free_ports(20);
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 20);
}

#[tokio::test]
#[should_panic(expected = "never: not within")]
async fn waiting_for_what_never_comes_fails_with_the_reason() {
    let deadline = Duration::from_millis(50);
    eventually("never", deadline, || async {
        Err::<(), _>("no".to_owned())
    })
    .await;
}

/// Answers one connection with these bytes, then closes.
async fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let _request = stream.read(&mut request).await;
            let _answered = stream.write_all(bytes).await;
        }
    });
    address
}

#[tokio::test]
async fn any_status_is_an_answer_and_a_short_body_is_an_error() {
    let address =
        answering(b"HTTP/1.1 404 Not Found\r\nx-a: b\r\ncontent-length: 2\r\n\r\n{}").await;
    let reply = Http::new(&address).get("/x").await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.header("x-a")), (404, "b"));
    assert!(reply.json::<serde_json::Value>().is_object());
    let raw = raw_exchange(&address, "GET / HTTP/1.1\r\n\r\n", SOON)
        .await
        .unwrap();
    assert_eq!(
        (raw.status(), raw.answers(), raw.closed),
        (Some(404), 1, true)
    );
    let short = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort").await;
    Http::new(&short).get("/x").await.unwrap_err();
    let mut socket = RawSocket::connect(&short).await.unwrap();
    let silent = socket.read(Duration::from_millis(50)).await;
    assert!(!silent.closed && silent.bytes.is_empty());
}

#[tokio::test]
async fn the_ledger_finds_lost_changed_and_resurrected_files_and_half_done_uploads() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    let (one, two) = (Content::of(b"one"), Content::of(b"two"));
    let ledger = Ledger::open(&path).unwrap();
    for name in ["kept", "lost", "changed", "deleted", "replacing"] {
        ledger.ask(name, Some(&one)).unwrap();
        ledger.ack(name, Some(&one)).unwrap();
    }
    ledger.ask("deleted", None).unwrap();
    ledger.ack("deleted", None).unwrap();
    ledger.ask("replacing", Some(&two)).unwrap();
    for name in ["open-whole", "open-absent", "open-partial"] {
        ledger.ask(name, Some(&two)).unwrap();
    }
    drop(ledger);
    // The client died within a line.
    let torn = std::fs::read(&path).unwrap();
    std::fs::write(&path, [torn.as_slice(), b"{\"path\":\"to"].concat()).unwrap();
    let allowed = Ledger::load(&path).unwrap();
    assert_eq!(allowed.len(), 8);
    let store = |found: &[(&'static str, &Content)]| {
        let found: BTreeMap<&str, Content> = found
            .iter()
            .map(|(name, content)| (*name, (*content).clone()))
            .collect();
        move |path: String| std::future::ready(Ok(found.get(path.as_str()).cloned()))
    };
    let good = [
        ("kept", &one),
        ("lost", &one),
        ("changed", &one),
        ("replacing", &two),
        ("open-whole", &two),
    ];
    let comparison = compare(&allowed, store(&good)).await;
    assert!(comparison.broken.is_empty(), "{:?}", comparison.broken);
    assert_eq!(
        (
            comparison.acked,
            comparison.open_visible,
            comparison.open_absent
        ),
        (5, 2, 2)
    );
    let partial = Content::of(b"tw");
    let bad = [
        ("kept", &one),
        ("changed", &two),
        ("deleted", &one),
        ("replacing", &one),
        ("open-partial", &partial),
    ];
    let comparison = compare(&allowed, store(&bad)).await;
    let broken: Vec<&str> = comparison
        .broken
        .iter()
        .filter_map(|line| line.split(':').next())
        .collect();
    assert_eq!(broken, ["changed", "deleted", "lost", "open-partial"]);
    let silent = compare(&allowed, |_| {
        std::future::ready(Err("no answer".to_owned()))
    })
    .await;
    assert_eq!(
        silent.broken.len(),
        8,
        "a store that cannot say has kept nothing"
    );
}

#[test]
fn rot_within_the_ledger_is_an_error_not_a_shorter_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ledger");
    std::fs::write(
        &path,
        "rot\n{\"path\":\"a\",\"effect\":null,\"acked\":true}\n",
    )
    .unwrap();
    Ledger::load(&path).unwrap_err();
}

#[test]
#[should_panic(expected = "is not built")]
fn a_missing_binary_is_a_clear_error() {
    dfs_e2e::process::binary("dfs-that-is-not-there");
}
