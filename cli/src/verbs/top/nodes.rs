//! The table of datanodes: as many columns as fit, in the order that was asked for.

use std::cmp::Ordering;

use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_protocol::status::DatanodeStatus;

use super::frame::{Row, Tone, rate};
use super::model::{Picture, Rates};
use super::view::{SortKey, View};
use crate::human;
use crate::verbs::nodes::{liveness, state};

/// Cells between two columns.
const GAP: usize = 2;
/// Longer states are cut on screens: they may carry counts.
const STATE_CELLS: usize = 28;

/// Columns of the table, left to right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Id,
    Address,
    Liveness,
    State,
    Used,
    Free,
    Chunks,
    In,
    Out,
}

const COLUMNS: [Column; 9] = [
    Column::Id,
    Column::Address,
    Column::Liveness,
    Column::State,
    Column::Used,
    Column::Free,
    Column::Chunks,
    Column::In,
    Column::Out,
];
/// Those that go first where there is too little room.
const EXPENDABLE: [Column; 7] = [
    Column::Address,
    Column::Chunks,
    Column::Free,
    Column::State,
    Column::Used,
    Column::In,
    Column::Out,
];

impl Column {
    fn head(self) -> &'static str {
        match self {
            Self::Id => "DATANODE",
            Self::Address => "ADDRESS",
            Self::Liveness => "LIVENESS",
            Self::State => "STATE",
            Self::Used => "USED",
            Self::Free => "FREE",
            Self::Chunks => "CHUNKS",
            Self::In => "IN",
            Self::Out => "OUT",
        }
    }

    /// Numbers that grow and shrink should not move the columns: all four make 80 cells with the states.
    fn usual(self) -> usize {
        match self {
            Self::Used | Self::Free => 10,
            Self::In | Self::Out => 11,
            Self::Id | Self::Address | Self::Liveness | Self::State | Self::Chunks => 0,
        }
    }

    fn is_number(self) -> bool {
        match self {
            Self::Used | Self::Free | Self::Chunks | Self::In | Self::Out => true,
            Self::Id | Self::Address | Self::Liveness | Self::State => false,
        }
    }

    fn cell(self, node: &DatanodeStatus, rates: Option<&Rates>) -> String {
        match self {
            Self::Id => node.id.short(),
            Self::Address if node.address.is_empty() => "-".to_owned(),
            Self::Address => node.address.clone(),
            Self::Liveness if node.unreachable => "UNREACHABLE".to_owned(),
            Self::Liveness => liveness(node.liveness).to_owned(),
            Self::State => state(node).chars().take(STATE_CELLS).collect(),
            Self::Used => human::bytes(node.stats.used_bytes),
            Self::Free => human::bytes(node.stats.free_bytes),
            Self::Chunks => human::thousands(node.stats.chunks),
            Self::In => rate(rates.map(incoming)),
            Self::Out => rate(rates.map(|rates| rates.read)),
        }
    }
}

fn incoming(rates: &Rates) -> f64 {
    rates.written + rates.copied
}

/// The table in at most `width` cells and `height` lines. `view` learns which part is shown.
pub(super) fn table(picture: &Picture, view: &mut View, width: usize, height: usize) -> Vec<Row> {
    if height == 0 {
        return Vec::new();
    }
    let mut nodes: Vec<&DatanodeStatus> = picture.sample.nodes.iter().collect();
    nodes.sort_by(|a, b| order(view.sort, picture, a, b).then(a.id.cmp(&b.id)));
    if view.reversed {
        nodes.reverse();
    }
    let shown = (height - 1).min(nodes.len());
    view.all = nodes.len();
    view.page = shown.max(1);
    view.offset = view.offset.min(nodes.len() - shown);
    if nodes.is_empty() {
        return vec![Row::plain("no datanode is registered")];
    }
    let window = &nodes[view.offset..view.offset + shown];
    let cells: Vec<Vec<String>> = window
        .iter()
        .map(|node| {
            let rates = picture.rates.get(&node.id);
            COLUMNS.map(|column| column.cell(node, rates)).to_vec()
        })
        .collect();
    let widths = fitting(&cells, width);
    let head = line(&widths, &COLUMNS.map(|column| column.head().to_owned()));
    let mut rows = vec![Row::toned(head, Tone::Head)];
    for (node, cells) in window.iter().zip(&cells) {
        let tone = if worry(node) == 0 {
            Tone::Alarm
        } else {
            Tone::Plain
        };
        rows.push(Row::toned(line(&widths, cells), tone));
    }
    rows
}

/// The width of each column, none for those that are left out.
fn fitting(cells: &[Vec<String>], room: usize) -> Vec<(Column, Option<usize>)> {
    let mut widths: Vec<_> = COLUMNS
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let longest = cells.iter().map(|row| row[at].chars().count()).max();
            let width = longest.unwrap_or(0).max(column.head().len());
            (*column, Some(width.max(column.usual())))
        })
        .collect();
    for expendable in EXPENDABLE {
        let total: usize = widths.iter().filter_map(|(_, w)| Some((*w)? + GAP)).sum();
        if total.saturating_sub(GAP) <= room {
            break;
        }
        let found = widths.iter_mut().find(|(column, _)| *column == expendable);
        if let Some((_, width)) = found {
            *width = None;
        }
    }
    widths
}

fn line(widths: &[(Column, Option<usize>)], cells: &[String]) -> String {
    let shown = widths.iter().zip(cells);
    let parts: Vec<_> = shown
        .filter_map(|((column, width), cell)| {
            let width = (*width)?;
            Some(if column.is_number() {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            })
        })
        .collect();
    parts.join(&" ".repeat(GAP)).trim_end().to_owned()
}

/// Smaller needs a look sooner; 0 is an alarm.
fn worry(node: &DatanodeStatus) -> u8 {
    let over = matches!(
        node.admin,
        AdminState::Decommissioned | AdminState::Tombstoned
    );
    match node.liveness {
        Liveness::Dead if !over => 0,
        Liveness::Live | Liveness::Suspect if node.unreachable => 0,
        Liveness::Suspect => 1,
        Liveness::Live if node.stats.read_only => 2,
        Liveness::Live | Liveness::Dead => match node.admin {
            AdminState::Pending => 3,
            AdminState::Decommissioning => 4,
            AdminState::InService => 5,
            AdminState::Decommissioned => 6,
            AdminState::Tombstoned => 7,
        },
    }
}

fn order(key: SortKey, picture: &Picture, a: &DatanodeStatus, b: &DatanodeStatus) -> Ordering {
    // What is not known comes last.
    let flow = |node: &DatanodeStatus, part: fn(&Rates) -> f64| {
        picture.rates.get(&node.id).map_or(-1.0, part)
    };
    match key {
        SortKey::State => worry(a).cmp(&worry(b)),
        SortKey::Id => Ordering::Equal,
        SortKey::Used => b.stats.used_bytes.cmp(&a.stats.used_bytes),
        SortKey::Free => a.stats.free_bytes.cmp(&b.stats.free_bytes),
        SortKey::Chunks => b.stats.chunks.cmp(&a.stats.chunks),
        SortKey::In => flow(b, incoming).total_cmp(&flow(a, incoming)),
        SortKey::Out => {
            let read = |rates: &Rates| rates.read;
            flow(b, read).total_cmp(&flow(a, read))
        }
    }
}
