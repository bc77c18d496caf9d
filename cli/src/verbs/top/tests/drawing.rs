//! What is on the screen, whatever its size.

use std::time::Duration;

use dfs_protocol::status::{RepairPriority, RepairStatus, RepairTaskStatus};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::*;
use crate::verbs::top::draw::draw;
use crate::verbs::top::frame::{Room, frame};
use crate::verbs::top::model::Watch;
use crate::verbs::top::view::{Action, Next, SortKey, View, action};

fn watch(picture: Picture) -> Watch {
    Watch::new(picture, Duration::from_secs(2))
}

fn drawn(watch: &Watch, view: &mut View, seconds: i64, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|screen| {
            let area = screen.area();
            draw(watch, view, at(seconds), area, screen.buffer_mut());
        })
        .unwrap();
    terminal.backend().buffer().clone()
}

/// The screen's lines.
pub(super) fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width.max(1));
    let cells = buffer.content.chunks(width);
    cells
        .map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect())
        .collect()
}

fn shown(watch: &Watch, seconds: i64, size: (u16, u16)) -> String {
    lines(&drawn(watch, &mut View::new(true), seconds, size)).join("\n")
}

#[test]
fn an_ordinary_terminal_shows_datanodes_traffic_repair_and_hot_files() {
    let text = shown(&watch(busy()), 2, (80, 24));
    for part in [
        "Healthy: every chunk has all its replicas.",
        "traffic    read 2.0 MiB/s (5.0 files), write 1.0 MiB/s (0.5 files), copy 0 B/s",
        "repair     nothing to do",
        "DATANODE  LIVENESS  STATE",
        "00000001  live      in service     3.0 GiB     7.0 GiB",
        "1.0 MiB/s    2.0 MiB/s",
        "00000003  DEAD",
        "    12.0      0.5    5.0 MiB  films/hot one.mkv",
        "q quit  ? help  sorted by state",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    // A datanode that started anew has no rate yet, and no negative one.
    let anew = text.lines().find(|line| line.contains("00000002")).unwrap();
    assert!(anew.trim_end().ends_with("-            -"), "{anew}");
    // Who is dead comes first.
    assert!(text.find("00000003") < text.find("00000001"), "{text}");
}

#[test]
fn a_wide_terminal_shows_every_column_and_a_tiny_one_what_matters_most() {
    let wide = shown(&watch(busy()), 2, (120, 40));
    assert!(wide.contains("ADDRESS") && wide.contains("1,234"), "{wide}");
    let tiny = shown(&watch(busy()), 2, (40, 10));
    for part in ["Healthy", "traffic", "DATANODE", "DEAD", "OUT", "q quit"] {
        assert!(tiny.contains(part), "{part}:\n{tiny}");
    }
    assert!(!tiny.contains("ADDRESS") && !tiny.contains("HOT"), "{tiny}");
    assert!(tiny.contains("2.0 MiB/s"), "{tiny}");
}

#[test]
fn every_size_is_drawn_and_nothing_is_out_of_its_room() {
    let mut picture = busy();
    picture.sample.status.safe_mode = Some("two datanodes have not reported".to_owned());
    let mut watch = watch(picture);
    watch.failed("nobody listens there".to_owned());
    for width in 0..90 {
        for height in 0..30 {
            let mut view = View::new(true);
            let room = Room {
                width: width.into(),
                height: height.into(),
            };
            let rows = frame(&watch, &mut view, at(9), room);
            assert!(rows.len() <= room.height, "{room:?}: {rows:?}");
            view.help = true;
            let rows = frame(&watch, &mut view, at(9), room);
            assert!(rows.len() <= room.height, "{room:?}: {rows:?}");
            if width > 0 && height > 0 {
                let _drawn = drawn(&watch, &mut View::new(true), 9, (width, height));
            }
        }
    }
}

#[test]
fn a_store_that_does_not_answer_keeps_its_picture_and_says_since_when() {
    let mut watch = watch(busy());
    assert!(!shown(&watch, 3, (80, 24)).contains("NO ANSWER"));
    // A look that does not come back is silence before it fails.
    let text = shown(&watch, 62, (80, 24));
    assert!(text.contains("NO ANSWER since"), "{text}");
    assert!(text.contains("(1 min 0 s)"), "{text}");
    watch.failed("connection refused\nand more".to_owned());
    for size in [(80, 24), (120, 40), (40, 10)] {
        let text = shown(&watch, 3, size);
        assert!(text.contains("NO ANSWER since"), "{text}");
        assert!(text.contains("00000001"), "the picture stays: {text}");
    }
    let wide = shown(&watch, 3, (120, 40));
    assert!(wide.contains("then: connection refused "), "{wide}");
    watch.answered(sample(4, Vec::new()));
    assert!(!shown(&watch, 5, (80, 24)).contains("NO ANSWER"));
}

#[test]
fn repair_shows_how_far_it_is_and_when_it_ends() {
    let with_repair = |seconds, bytes| {
        let mut sample = sample(seconds, Vec::new());
        sample.status.healthy = false;
        sample.status.repair = RepairStatus {
            queued: [(RepairPriority::LastReplica, 7)].into(),
            active: 6,
            bytes_remaining: bytes,
            eta_seconds: Some(185),
            tasks: vec![
                RepairTaskStatus {
                    chunk: dfs_protocol::ChunkId::from_u128(1),
                    priority: RepairPriority::LastReplica,
                    source: id(1),
                    target: id(2),
                    bytes: 64 << 20,
                };
                5
            ],
        };
        sample
    };
    let picture = Picture::first(with_repair(0, 4 << 30)).then(with_repair(1, 1 << 30));
    let text = shown(&watch(picture), 1, (120, 40));
    assert!(
        text.contains("[#########---] 75 %  about 3 min 5 s to go, 1.0 GiB to copy"),
        "{text}"
    );
    assert!(text.contains("00000001 -> 00000002"), "{text}");
    assert!(text.contains("and 2 more"), "{text}");
    assert!(text.contains("ATTENTION: "), "{text}");
}

#[test]
fn alarms_are_red_only_where_colours_are_wanted_and_always_in_words() {
    let watch = watch(busy());
    for colours in [true, false] {
        let buffer = drawn(&watch, &mut View::new(colours), 2, (80, 24));
        let red = buffer.content.iter().any(|cell| cell.fg == Color::Red);
        assert_eq!(red, colours);
        // Bold and reverse alone are left: they show on any background.
        for cell in &buffer.content {
            assert_eq!(cell.bg, Color::Reset);
            assert!(cell.fg == Color::Reset || cell.fg == Color::Red);
        }
        let bold = |cell: &ratatui::buffer::Cell| cell.modifier.contains(Modifier::BOLD);
        assert!(buffer.content.iter().any(bold));
    }
}

fn many() -> Watch {
    let nodes = (1..=500).map(|number| {
        let mut node = node(number, None);
        node.stats.used_bytes = 1000 - u64::try_from(number).unwrap();
        node
    });
    watch(Picture::first(sample(0, nodes.collect())))
}

#[test]
fn five_hundred_datanodes_are_paged_through() {
    let (watch, mut view) = (many(), View::new(true));
    let text = lines(&drawn(&watch, &mut view, 1, (80, 24))).join("\n");
    assert!(text.contains(&format!("1-{} of 500", view.page)), "{text}");
    assert_eq!(view.act(Action::Pages(1)), Next::Draw);
    assert_eq!(view.offset, view.page);
    let _next = view.act(Action::End);
    let text = lines(&drawn(&watch, &mut view, 1, (80, 24))).join("\n");
    assert!(text.contains("-500 of 500"), "{text}");
    assert!(text.contains("000001f4"), "{text}");
    let _next = view.act(Action::Lines(-1));
    assert_eq!(view.offset, 500 - view.page - 1);
    // The order by used bytes ends with the last id; the other way round it begins with it.
    let _next = view.act(Action::Sort(SortKey::Used));
    let _next = view.act(Action::Reverse);
    let text = lines(&drawn(&watch, &mut view, 1, (80, 24))).join("\n");
    assert!(text.contains("000001f4"), "{text}");
    assert!(text.contains("sorted by used, reversed"), "{text}");
}

#[test]
fn keys_do_what_the_help_says() {
    let key = |code| action(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(action(&Event::Key(control)), Some(Action::Interrupt));
    assert_eq!(key(KeyCode::Char('q')), Some(Action::Quit));
    assert_eq!(key(KeyCode::Char('o')), Some(Action::Sort(SortKey::Out)));
    assert_eq!(key(KeyCode::PageUp), Some(Action::Pages(-1)));
    assert_eq!(key(KeyCode::Char('z')), None);
    assert_eq!(action(&Event::Resize(1, 1)), Some(Action::Redraw));
    let mut view = View::new(true);
    assert_eq!(view.act(Action::Help), Next::Draw);
    let text = lines(&drawn(&watch(busy()), &mut view, 1, (80, 24))).join("\n");
    for (_, _, name) in SortKey::ALL {
        assert!(text.contains(name), "{name}: {text}");
    }
    // Esc leaves the help first, then the view.
    assert_eq!(view.act(Action::Back), Next::Draw);
    assert_eq!(view.act(Action::Back), Next::End);
    assert_eq!(view.act(Action::Interrupt), Next::Interrupted);
    assert_eq!(view.act(Action::Refresh), Next::Look);
}
