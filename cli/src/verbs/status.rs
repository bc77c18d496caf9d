//! `dfs status`: one screen for people.

use std::collections::BTreeMap;

use dfs_protocol::datanode::WriteMode;
use dfs_protocol::status::{
    ChunkHealth, ClusterStatus, DatanodeCounts, RepairStatus, ShortageStatus,
};

use crate::exit::{Exit, Failure};
use crate::human;
use crate::session::Session;

/// Cells of the capacity bar.
const BAR: u32 = 40;
/// Copies under way that are shown.
const SHOWN_TASKS: usize = 8;

pub(super) async fn status(session: &Session) -> Result<Exit, Failure> {
    let status = session.call("status", || session.store.status()).await?;
    if session.out.is_json() {
        session.out.json(&status)?;
    } else {
        session.out.line(&dashboard(&status))?;
    }
    Ok(Exit::Done)
}

/// The whole screen.
fn dashboard(status: &ClusterStatus) -> String {
    // A healthy store's sentence says so itself.
    let mark = if status.healthy { "" } else { "ATTENTION: " };
    let mut lines = vec![format!("{mark}{}", status.summary), String::new()];
    let notes = [
        ("safe mode", &status.safe_mode),
        ("writes refused", &status.writes_refused),
        ("repair held", &status.repair_held),
    ];
    for (name, why) in notes {
        lines.extend(why.as_ref().map(|why| format!("  ! {name}: {why}")));
    }
    if notes.iter().any(|(_, why)| why.is_some()) {
        lines.push(String::new());
    }
    let mut field = |name: &str, value: String| lines.push(format!("  {name:<10} {value}"));
    let capacity = status.capacity;
    field(
        "capacity",
        format!(
            "{} {:.1} %  {} used, {} free of {}",
            human::bar(capacity.used_bytes, capacity.total_bytes, BAR),
            human::percent(capacity.used_bytes, capacity.total_bytes),
            human::bytes(capacity.used_bytes),
            human::bytes(capacity.free_bytes),
            human::bytes(capacity.total_bytes),
        ),
    );
    field(
        "files",
        format!(
            "{}, {}, {} replicas wanted of each chunk",
            human::count(status.files, "file"),
            human::bytes(status.file_bytes),
            status.replication_factor,
        ),
    );
    field("datanodes", datanodes(status.datanodes));
    if !status.write_modes.is_empty() {
        field("writes", write_modes(&status.write_modes));
    }
    field("chunks", chunks(status));
    if let Some(text) = shortage(&status.shortage) {
        field("too few", text);
    }
    if status.trash.entries > 0 {
        let (entries, bytes) = (status.trash.entries, human::bytes(status.trash.bytes));
        field(
            "trash",
            format!("{}, {bytes}", human::count(entries, "version")),
        );
    }
    field("journal", journal(status));
    field(
        "tracker",
        format!(
            "version {}, up {}, epoch {}",
            status.version,
            human::seconds(status.uptime_seconds),
            status.fence.epoch,
        ),
    );
    lines.push(String::new());
    lines.extend(repair(&status.repair));
    lines.join("\n")
}

pub(super) fn datanodes(counts: DatanodeCounts) -> String {
    let DatanodeCounts {
        registered,
        live,
        suspect,
        dead,
        pending,
        decommissioning,
        read_only,
        placeable,
    } = counts;
    let mut parts = vec![format!("{live} of {registered} live")];
    let others = [
        (suspect, "suspect"),
        (dead, "DEAD"),
        (pending, "pending"),
        (decommissioning, "decommissioning"),
        (read_only, "read-only"),
    ];
    let others = others.iter().filter(|(count, _)| *count > 0);
    parts.extend(others.map(|(count, word)| format!("{count} {word}")));
    parts.push(format!("{placeable} take new chunks"));
    parts.join(", ")
}

/// How many datanodes write large chunks in which way.
fn write_modes(modes: &BTreeMap<WriteMode, u64>) -> String {
    let parts = modes
        .iter()
        .map(|(mode, count)| format!("{count} {}", mode.as_str()));
    parts.collect::<Vec<_>>().join(", ")
}

/// Worst first, so that the eye meets it.
pub(super) fn chunks(status: &ClusterStatus) -> String {
    const ORDER: [ChunkHealth; 6] = [
        ChunkHealth::Missing,
        ChunkHealth::AtRisk,
        ChunkHealth::UnderReplicated,
        ChunkHealth::MisReplicated,
        ChunkHealth::OverReplicated,
        ChunkHealth::Healthy,
    ];
    let total: u64 = status.chunks.values().sum();
    let parts: Vec<_> = ORDER
        .iter()
        .filter_map(|health| {
            let count = *status.chunks.get(health)?;
            let word = health.as_str();
            let word = match health {
                ChunkHealth::Missing | ChunkHealth::AtRisk => word.to_uppercase(),
                _ => word.to_owned(),
            };
            (count > 0).then(|| format!("{} {word}", human::thousands(count)))
        })
        .collect();
    if total == 0 {
        return "none yet".to_owned();
    }
    format!("{}: {}", human::thousands(total), parts.join(", "))
}

/// Why chunks have fewer replicas than wanted, where some have.
fn shortage(shortage: &ShortageStatus) -> Option<String> {
    let ShortageStatus {
        leaving,
        raising,
        removal,
        absence,
        raising_bytes,
        raising_eta_seconds,
        unreachable,
    } = shortage;
    let mut parts = Vec::new();
    let mut add = |count: u64, why: &str| {
        if count > 0 {
            parts.push(format!("{} {why}", human::thousands(count)));
        }
    };
    add(*removal, "FOR A DATANODE TAKEN AWAY TOO EARLY");
    add(*absence, "for silent datanodes or lost disks");
    add(*leaving, "readable in full, on leaving datanodes");
    add(*raising, "for a raised factor");
    if *raising > 0 {
        let mut text = human::bytes(*raising_bytes);
        if let Some(seconds) = raising_eta_seconds {
            text = format!("{text}, about {}", human::seconds(*seconds));
        }
        parts.push(format!("that takes {text}"));
    }
    parts.extend(unreachable.clone());
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn journal(status: &ClusterStatus) -> String {
    let journal = &status.journal;
    let copies = human::count(journal.datanodes.len() as u64, "datanode");
    let behind = journal.sequence.saturating_sub(journal.replicated);
    let mut text = format!("change {} on {copies}", human::thousands(journal.sequence));
    if behind > 0 {
        text = format!("{text}, {} not there yet", human::count(behind, "change"));
    }
    match journal.checkpoint {
        Some(at) => format!("{text}, checkpoint at {}", human::thousands(at)),
        None => format!("{text}, no checkpoint yet"),
    }
}

fn repair(repair: &RepairStatus) -> Vec<String> {
    let queued: u64 = repair.queued.values().sum();
    if queued == 0 && repair.active == 0 {
        return vec!["  repair     nothing to do".to_owned()];
    }
    let eta = repair.eta_seconds.map_or_else(
        || "no estimate yet".to_owned(),
        |seconds| format!("done in about {}", human::seconds(seconds)),
    );
    let mut lines = vec![format!(
        "  repair     {} waiting, {} under way, {} to copy, {eta}",
        human::count(queued, "chunk"),
        human::thousands(repair.active),
        human::bytes(repair.bytes_remaining),
    )];
    // Priorities sort most urgent first.
    let waiting = repair.queued.iter().filter(|(_, count)| **count > 0);
    lines.extend(waiting.map(|(priority, count)| {
        let (priority, count) = (priority.as_str(), human::thousands(*count));
        format!("    {priority:<17} {count:>9}")
    }));
    if !repair.tasks.is_empty() {
        let rows = repair.tasks.iter().take(SHOWN_TASKS).map(|task| {
            vec![
                format!("    {}", task.chunk),
                task.priority.as_str().to_owned(),
                format!("{} -> {}", task.source.short(), task.target.short()),
                human::bytes(task.bytes),
            ]
        });
        let rows: Vec<_> = rows.collect();
        lines.push(String::new());
        lines.push(human::table(
            &["    COPYING", "WHY", "FROM -> TO", "SIZE"],
            &rows,
        ));
        let more = repair.active.saturating_sub(rows.len() as u64);
        if more > 0 {
            lines.push(format!("    and {more} more"));
        }
    }
    lines
}

#[cfg(test)]
pub(super) mod tests {
    use dfs_protocol::status::{Capacity, RepairPriority, RepairTaskStatus};
    use dfs_protocol::{ChunkId, ClusterId, DatanodeId};

    use super::*;

    pub(in crate::verbs) fn healthy() -> ClusterStatus {
        ClusterStatus {
            summary: "Healthy: every chunk has all its replicas.".to_owned(),
            healthy: true,
            cluster: ClusterId::from_u128(1),
            fence: dfs_protocol::Fence::default(),
            version: "0.1.0".to_owned(),
            uptime_seconds: 3700,
            safe_mode: None,
            writes_refused: None,
            repair_held: None,
            replication_factor: 3,
            files: 1234,
            file_bytes: 5 << 30,
            capacity: Capacity {
                total_bytes: 100 << 30,
                used_bytes: 15 << 30,
                free_bytes: 80 << 30,
            },
            datanodes: DatanodeCounts {
                registered: 5,
                live: 5,
                placeable: 5,
                ..DatanodeCounts::default()
            },
            write_modes: BTreeMap::from([(WriteMode::Direct, 1), (WriteMode::Dontcache, 4)]),
            chunks: BTreeMap::from([(ChunkHealth::Healthy, 1300)]),
            shortage: dfs_protocol::status::ShortageStatus::default(),
            repair: RepairStatus::default(),
            rebalance: dfs_protocol::status::RebalanceStatus::default(),
            spread: dfs_protocol::status::SpreadStatus::default(),
            trash: dfs_protocol::status::TrashStatus::default(),
            journal: dfs_protocol::status::JournalStatus::default(),
        }
    }

    #[test]
    fn why_chunks_have_too_few_replicas_is_told_worst_first() {
        assert_eq!(shortage(&ShortageStatus::default()), None);
        let some = ShortageStatus {
            leaving: 2,
            raising: 1,
            absence: 3,
            raising_bytes: 1 << 20,
            ..ShortageStatus::default()
        };
        let text = shortage(&some).unwrap();
        assert!(text.starts_with("3 for silent datanodes"), "{text}");
        assert!(text.contains("2 readable in full"), "{text}");
        let bytes = human::bytes(1 << 20);
        assert!(
            text.ends_with(&format!("1 for a raised factor, that takes {bytes}")),
            "{text}"
        );
    }

    #[test]
    fn a_healthy_store_reads_as_one() {
        let text = dashboard(&healthy());
        assert!(
            text.starts_with("Healthy: every chunk has all its replicas.\n"),
            "{text}"
        );
        assert!(text.contains("15.0 %"), "{text}");
        assert!(text.contains("5 of 5 live, 5 take new chunks"), "{text}");
        assert!(text.contains("1,300: 1,300 healthy"), "{text}");
        assert!(text.contains("writes     4 dontcache, 1 direct"), "{text}");
        assert!(text.contains("repair     nothing to do"), "{text}");
    }

    #[test]
    fn trouble_comes_first_and_repair_goes_from_most_to_least_endangered() {
        let mut status = healthy();
        status.healthy = false;
        status.repair_held = Some("3 of 5 datanodes fell silent at once".to_owned());
        status.datanodes.dead = 2;
        status.chunks.insert(ChunkHealth::AtRisk, 7);
        status.repair = RepairStatus {
            queued: BTreeMap::from([
                (RepairPriority::UnderReplicated, 40),
                (RepairPriority::LastReplica, 7),
                (RepairPriority::BadlySpread, 0),
            ]),
            active: 1,
            bytes_remaining: 3 << 30,
            eta_seconds: Some(185),
            tasks: vec![RepairTaskStatus {
                chunk: ChunkId::from_u128(0xabc),
                priority: RepairPriority::LastReplica,
                source: DatanodeId::from_u128(1 << 96),
                target: DatanodeId::from_u128(2 << 96),
                bytes: 64 << 20,
            }],
        };
        let text = dashboard(&status);
        assert!(text.starts_with("ATTENTION: "), "{text}");
        assert!(text.contains("! repair held: 3 of 5"), "{text}");
        assert!(text.contains("2 DEAD"), "{text}");
        assert!(text.contains("7 AT-RISK, 1,300 healthy"), "{text}");
        assert!(text.contains("47 chunks waiting, 1 under way"), "{text}");
        assert!(text.contains("done in about 3 min 5 s"), "{text}");
        let (first, then) = (text.find("last-replica"), text.find("under-replicated"));
        assert!(first < then && first.is_some(), "{text}");
        assert!(!text.contains("badly-spread"), "{text}");
        assert!(text.contains("00000001 -> 00000002"), "{text}");
    }
}
