//! A picture as lines of text: the same for a screen of any size and for plain output. Pure.

use dfs_protocol::status::{ClusterStatus, RepairStatus};
use dfs_protocol::traffic::HotFile;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::model::{Picture, Silence, Watch};
use super::nodes;
use super::view::{SortKey, View};
use crate::human;
use crate::verbs::status;

/// Lines from which on a screen has room for everything.
const ROOMY: usize = 18;
/// Lines from which on the last one tells the keys.
const WITH_FOOTER: usize = 8;
/// Copies under way that are shown.
const SHOWN_TASKS: usize = 4;
/// Hot files on a screen.
const SHOWN_FILES: usize = 16;
/// Cells of the bars.
const BAR: u32 = 24;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it is.
    Plain,
    /// The store's sentence.
    Title,
    /// Above a table.
    Head,
    /// A human should look.
    Alarm,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    /// What it says.
    pub text: String,
    /// How it looks.
    pub tone: Tone,
}

impl Row {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::toned(text, Tone::Plain)
    }

    pub(super) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self {
            text: text.into(),
            tone,
        }
    }
}

/// Room for a frame, in cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    pub width: usize,
    pub height: usize,
}

impl Room {
    /// No end to it: plain output.
    pub(super) const ENDLESS: Self = Self {
        width: usize::MAX,
        height: usize::MAX,
    };
}

/// A frame of at most `room`: `view` learns what of the datanodes is shown.
pub(super) fn frame(watch: &Watch, view: &mut View, now: Timestamp, room: Room) -> Vec<Row> {
    if view.help {
        let mut rows = help();
        rows.truncate(room.height);
        return rows;
    }
    let picture = &watch.picture;
    let status = &picture.sample.status;
    let roomy = room.height >= ROOMY;
    let mut rows = title(status);
    rows.extend(watch.silence(now).map(|silence| banner(&silence)));
    if roomy {
        rows.extend(notes(status));
        rows.extend(fields(status));
    }
    rows.push(Row::plain(throughput(picture)));
    rows.extend(repair(picture, roomy));
    let footer = room.height >= WITH_FOOTER && room.height != usize::MAX;
    let left = room.height.saturating_sub(rows.len() + usize::from(footer));
    let hot = hot_rows(picture, left);
    let nodes = left.saturating_sub(hot.len());
    if roomy {
        rows.push(Row::plain(""));
    }
    let nodes = nodes.saturating_sub(usize::from(roomy));
    rows.extend(nodes::table(picture, view, room.width, nodes));
    rows.extend(hot);
    rows.truncate(room.height.saturating_sub(usize::from(footer)));
    if footer {
        let fill = room.height - 1 - rows.len();
        rows.extend(std::iter::repeat_n(Row::plain(""), fill));
        rows.push(Row::plain(keys(view)));
    }
    rows
}

fn title(status: &ClusterStatus) -> Vec<Row> {
    let tone = if status.healthy {
        Tone::Title
    } else {
        Tone::Alarm
    };
    // A healthy store's sentence says so itself.
    let mark = if status.healthy { "" } else { "ATTENTION: " };
    vec![Row::toned(format!("{mark}{}", status.summary), tone)]
}

/// What is shown is of the past, and since when.
fn banner(silence: &Silence) -> Row {
    let Silence { since, lasted, why } = silence;
    let since = clock(*since);
    let lasted = human::seconds(lasted.as_secs());
    let why = why.as_ref().map_or("", |why| why.as_str());
    let why = why.lines().next().unwrap_or_default();
    let colon = if why.is_empty() { "" } else { ": " };
    Row::toned(
        format!("NO ANSWER since {since} ({lasted}), shown is what was then{colon}{why}"),
        Tone::Alarm,
    )
}

/// The time of day, in the time zone of whoever reads.
fn clock(time: Timestamp) -> String {
    let zoned = time.to_zoned(TimeZone::system());
    zoned.strftime("%H:%M:%S").to_string()
}

fn notes(status: &ClusterStatus) -> Vec<Row> {
    let notes = [
        ("safe mode", &status.safe_mode),
        ("writes refused", &status.writes_refused),
        ("repair held", &status.repair_held),
    ];
    let said = notes
        .iter()
        .filter_map(|(name, why)| Some((name, why.as_ref()?)));
    said.map(|(name, why)| Row::toned(format!("! {name}: {why}"), Tone::Alarm))
        .collect()
}

fn field(name: &str, value: &str) -> String {
    format!("{name:<10} {value}")
}

fn fields(status: &ClusterStatus) -> Vec<Row> {
    let capacity = status.capacity;
    let used = format!(
        "{} {:.1} %  {} used, {} free",
        human::bar(capacity.used_bytes, capacity.total_bytes, BAR),
        human::percent(capacity.used_bytes, capacity.total_bytes),
        human::bytes(capacity.used_bytes),
        human::bytes(capacity.free_bytes),
    );
    let files = format!(
        "{}, {}",
        human::count(status.files, "file"),
        human::bytes(status.file_bytes)
    );
    [
        field("capacity", &used),
        field("files", &files),
        field("datanodes", &status::datanodes(status.datanodes)),
        field("chunks", &status::chunks(status)),
    ]
    .map(Row::plain)
    .into()
}

/// Bytes a second, or a dash where it is not known.
pub(super) fn rate(bytes: Option<f64>) -> String {
    // Never negative, far from the limits: two counters made it.
    bytes.map_or_else(
        || "-".to_owned(),
        |bytes| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let whole = bytes.round() as u64;
            format!("{}/s", human::bytes(whole))
        },
    )
}

fn throughput(picture: &Picture) -> String {
    let sum = picture.throughput;
    let files = |count: Option<f64>| count.map_or_else(String::new, |n| format!(" ({n:.1} files)"));
    let text = format!(
        "read {}{}, write {}{}, copy {}",
        rate(sum.map(|sum| sum.read)),
        files(picture.file_rates.map(|rates| rates.reads)),
        rate(sum.map(|sum| sum.written)),
        files(picture.file_rates.map(|rates| rates.writes)),
        rate(sum.map(|sum| sum.copied)),
    );
    field("traffic", &text)
}

/// How far repair is; nothing on a small screen while there is nothing to do.
fn repair(picture: &Picture, roomy: bool) -> Vec<Row> {
    let repair: &RepairStatus = &picture.sample.status.repair;
    let queued: u64 = repair.queued.values().sum();
    if queued == 0 && repair.active == 0 {
        let idle = roomy.then(|| Row::plain(field("repair", "nothing to do")));
        return idle.into_iter().collect();
    }
    let (done, peak) = picture.repair_done();
    let eta = repair.eta_seconds.map_or_else(
        || "no estimate yet".to_owned(),
        |seconds| format!("about {} to go", human::seconds(seconds)),
    );
    let text = format!(
        "{} {:.0} %  {eta}, {} to copy, {} waiting, {} under way",
        human::bar(done, peak, BAR / 2),
        human::percent(done, peak).floor(),
        human::bytes(repair.bytes_remaining),
        human::count(queued, "chunk"),
        human::thousands(repair.active),
    );
    let mut rows = vec![Row::plain(field("repair", &text))];
    if roomy {
        rows.extend(tasks(repair));
    }
    rows
}

fn tasks(repair: &RepairStatus) -> Vec<Row> {
    let shown = repair.tasks.iter().take(SHOWN_TASKS);
    let mut rows: Vec<_> = shown
        .map(|task| {
            let (from, to) = (task.source.short(), task.target.short());
            let (why, size) = (task.priority.as_str(), human::bytes(task.bytes));
            Row::plain(field("", &format!("{from} -> {to}  {size:>9}  {why}")))
        })
        .collect();
    let more = repair.active.saturating_sub(rows.len() as u64);
    if more > 0 && !rows.is_empty() {
        rows.push(Row::plain(field("", &format!("and {more} more"))));
    }
    rows
}

/// Hot files in at most a third of what is left; none where that is too little.
fn hot_rows(picture: &Picture, left: usize) -> Vec<Row> {
    let third = left / 3;
    if third < 3 {
        return Vec::new();
    }
    let Some(hot) = &picture.sample.hot else {
        let why = "this store's tracker does not tell hot files: it is of an earlier version";
        return vec![Row::plain(""), Row::plain(why)];
    };
    let head = format!("{:>8} {:>8} {:>10}  HOT FILE", "READS", "WRITES", "SIZE");
    let mut rows = vec![Row::plain(""), Row::toned(head, Tone::Head)];
    if hot.files.is_empty() {
        rows.push(Row::plain("no file was read or written lately"));
        return rows;
    }
    let fitting = (third - rows.len()).min(SHOWN_FILES);
    rows.extend(hot.files.iter().take(fitting).map(hot_row));
    rows
}

fn hot_row(file: &HotFile) -> Row {
    let HotFile {
        path,
        size,
        reads,
        writes,
        missed: _,
    } = file;
    let size = human::bytes(*size);
    Row::plain(format!("{reads:>8.1} {writes:>8.1} {size:>10}  {path}"))
}

fn keys(view: &View) -> String {
    let way = if view.reversed { ", reversed" } else { "" };
    let mut text = format!("q quit  ? help  sorted by {}{way}", view.sort.name());
    if view.page < view.all {
        let (from, to, all) = (view.offset + 1, view.offset + view.page, view.all);
        text = format!("{text}  {from}-{to} of {all}");
    }
    text
}

fn help() -> Vec<Row> {
    let mut rows = vec![
        Row::toned("dfs top: keys", Tone::Title),
        Row::plain("q, Ctrl-C    quit; Esc quits too, or leaves this page"),
        Row::plain("?, h         this page, and back"),
        Row::plain("arrows, j k  one datanode down or up"),
        Row::plain("PgDn PgUp    a page down or up; Home, End"),
        Row::plain("space        look now"),
        Row::plain("r            the same order the other way round"),
    ];
    for (key, sort, name) in SortKey::ALL {
        let what = match sort {
            SortKey::State => "state: those that need a look first",
            SortKey::Free => "free bytes, fewest first",
            SortKey::In => "traffic in (writes and copies)",
            SortKey::Out => "traffic out (reads)",
            SortKey::Id | SortKey::Used | SortKey::Chunks => name,
        };
        rows.push(Row::plain(format!("{key}            sort by {what}")));
    }
    rows
}
