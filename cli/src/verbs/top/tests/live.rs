//! The loop and the one frame, against a door in this process.

use std::collections::VecDeque;
use std::time::Duration;

use dfs_client::HttpClient;
use dfs_runtime::net::TcpConnector;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;
use tokio::sync::mpsc;

use super::drawing::lines;
use super::*;
use crate::exit::Exit;
use crate::store::Store;
use crate::verbs::tests::fake::Fake;
use crate::verbs::tests::run;
use crate::verbs::top::model::Watch;
use crate::verbs::top::view::View;
use crate::verbs::top::{live_on, look};

const DEADLINE: Duration = Duration::from_mins(1);

/// A door that serves this picture's two looks.
async fn door() -> Fake {
    let fake = Fake::start().await;
    let looks: VecDeque<_> = [
        json!([node(1, Some(told(7, 1000, [0, 0, 0])))]),
        json!([node(1, Some(told(7, 3000, [4 << 20, 2 << 20, 0])))]),
    ]
    .into();
    fake.doings().answers = [
        ("/status", [json!(healthy())].into()),
        ("/nodes", looks),
        (
            "/hot",
            [json!(hot(1000, 10, 2)), json!(hot(3000, 20, 3))].into(),
        ),
    ]
    .into();
    fake
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.expect(what);
}

#[tokio::test]
async fn one_frame_is_plain_text_with_rates_or_one_document() {
    let (fake, dir) = (door().await, tempfile::tempdir().unwrap());
    // Standard output is no terminal here: that alone asks for one frame.
    for line in ["dfs top --once --interval 200ms", "dfs top -i 200ms"] {
        let mut looks = VecDeque::from([json!([node(1, Some(told(7, 1000, [0, 0, 0])))])]);
        looks.push_back(json!([node(1, Some(told(7, 3000, [4 << 20, 2 << 20, 0])))]));
        fake.doings().answers.insert("/nodes", looks);
        let (exit, captured) = run(&fake, dir.path(), line).await;
        assert_eq!(exit, Exit::Done, "{}", captured.stderr());
        let text = captured.stdout();
        for part in [
            "00000001",
            "10.0.0.1:6001",
            "2.0 MiB/s",
            "films/hot one.mkv",
        ] {
            assert!(text.contains(part), "{part}:\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "no control sequences: {text}");
        assert!(!text.contains("q quit"), "{text}");
    }
    let (exit, captured) = run(&fake, dir.path(), "dfs top -o json -i 200ms").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    let document: serde_json::Value = serde_json::from_str(&captured.stdout()).unwrap();
    assert_eq!(document["nodes"][0]["traffic"]["read_bytes"], 4 << 20);
    assert_eq!(document["hot"]["files"][0]["path"], "films/hot one.mkv");
}

#[tokio::test]
async fn a_tracker_of_an_earlier_version_is_shown_without_hot_files() {
    let (fake, dir) = (door().await, tempfile::tempdir().unwrap());
    fake.doings().missing.insert("/hot");
    let (exit, captured) = run(&fake, dir.path(), "dfs top --once -i 200ms").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    let text = captured.stdout();
    assert!(text.contains("00000001"), "{text}");
    assert!(text.contains("does not tell hot files"), "{text}");
}

#[tokio::test]
async fn a_silent_store_is_watched_until_it_answers_again() {
    let fake = door().await;
    let store = Store::new(
        HttpClient::new(TcpConnector::shared()),
        fake.address.as_str(),
    );
    let interval = Duration::from_millis(10);
    let picture = Picture::first(look(&store).await.unwrap());
    let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
    let (keys, mut events) = mpsc::channel(4);
    let press = |letter| Event::Key(KeyEvent::new(KeyCode::Char(letter), KeyModifiers::NONE));
    let looks = || fake.doings().authorizations.len();
    // Two looks after the store fell silent the first of them is drawn.
    fake.doings().refuse = u32::MAX;
    let before = looks();
    let watch = Watch::new(picture, interval);
    let view = View::new(true);
    let script = async {
        until("looks that fail", || looks() >= before + 9).await;
        keys.send(press('q')).await.unwrap();
    };
    let watching = live_on(
        &mut terminal,
        &mut events,
        &store,
        watch.clone(),
        view.clone(),
        interval,
    );
    let (exit, ()) = tokio::join!(watching, script);
    assert_eq!(exit.unwrap(), Exit::Done);
    let text = lines(terminal.backend().buffer()).join("\n");
    assert!(text.contains("NO ANSWER since"), "{text}");
    assert!(text.contains("00000001"), "{text}");
    fake.doings().refuse = 0;
    let before = looks();
    let script = async {
        until("looks that succeed", || looks() >= before + 9).await;
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        keys.send(Event::Key(control)).await.unwrap();
    };
    let watching = live_on(&mut terminal, &mut events, &store, watch, view, interval);
    let (exit, ()) = tokio::join!(watching, script);
    assert_eq!(exit.unwrap(), Exit::Interrupted);
    let text = lines(terminal.backend().buffer()).join("\n");
    assert!(!text.contains("NO ANSWER"), "{text}");
    assert!(
        text.contains("2.0 MiB/s") || text.contains("read -"),
        "{text}"
    );
}
