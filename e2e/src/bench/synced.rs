//! Proof of D2: strace counts, in every process, the calls that make writes durable, beside the number
//! of writes that were answered. Each answer needs the payload synced on every replica, and the change
//! in the catalog and on every journal; writes at once share syncs, writes one by one cannot.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dfs_client::http::whole;
use serde_json::json;

use super::body::Source;
use super::drive::{Done, Load, fill};
use super::fleet::{Fleet, Layout, counts};
use super::report::{Report, map};
use super::settings::Settings;

/// Calls that wait for a disk.
const SYNCING: [&str; 5] = ["fdatasync", "fsync", "sync_file_range", "msync", "syncfs"];
/// How long a traced process may take to end.
const END: Duration = Duration::from_mins(1);

/// Counts for writes one by one, and for sixteen at once.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    if !is_there() {
        let text = "skipped: strace was not found, or may not trace; install it (Debian: `strace`)";
        return report.note("D2", text, &json!(null));
    }
    for (name, binary) in &settings.binaries {
        for streams in [1, 16] {
            let idle = count(settings, binary, 0, streams).await?;
            let busy = count(settings, binary, settings.traced, streams).await?;
            let more: Vec<(String, u64)> = busy
                .into_iter()
                .zip(&idle)
                .map(|((process, busy), (_, idle))| (process, busy.saturating_sub(*idle)))
                .collect();
            let acks = settings.traced;
            let text = format!(
                "{name}, PUT 4 KiB, c={streams}: {acks} answers, syncing calls beside those of a \
                 store that only starts, takes one write and stops: {}",
                map(&more)
            );
            let figures = json!({
                "acks": acks, "streams": streams, "syncs": map(&more), "idle": map(&idle),
            });
            report.note("D2", &text, &figures)?;
        }
    }
    Ok(())
}

fn is_there() -> bool {
    let tried = Command::new("strace")
        .args(["-f", "-c", "--output=/dev/null", "true"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    tried.is_ok_and(|status| status.success())
}

/// Syncing calls of each process of a store that starts, takes so many writes and stops.
async fn count(
    settings: &Settings,
    binary: &Path,
    writes: usize,
    streams: usize,
) -> io::Result<Vec<(String, u64)>> {
    let layout = Layout {
        traced: true,
        ..Layout::default()
    };
    let mut fleet = Fleet::start_with(binary, &settings.dir, &layout).await?;
    let source = Source::new(settings.seed);
    let load = Load {
        streams,
        operations: writes,
        limit: settings.fill_limit,
    };
    fill(&fleet.door, &fleet.group, load, async |session, number| {
        let body = source.slice(4096, number);
        let key = format!("traced/{number}");
        Ok(Done::after(
            session.put(&key, || whole(body.clone())).await?,
        ))
    })
    .await?;
    let names: Vec<String> = fleet
        .group
        .pids()
        .map(|(name, _)| name.to_owned())
        .collect();
    // Datanodes first: they tell the tracker, which ends last.
    for name in names.iter().rev() {
        fleet.group.end_child_of(name)?;
        fleet.group.get_mut(name)?.wait(END).await;
    }
    let counted = names.into_iter().map(|name| {
        let table = std::fs::read_to_string(counts(fleet.dir(), &name))?;
        Ok((name, calls(&table)))
    });
    counted.collect()
}

/// Sum of the syncing calls in a table of `strace -c`.
fn calls(table: &str) -> u64 {
    let line = |line: &str| -> Option<u64> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let name = fields.last()?;
        // % time, seconds, usecs/call, calls, errors (may be empty), syscall.
        SYNCING
            .contains(name)
            .then(|| fields.get(3)?.parse().ok())?
    };
    table.lines().filter_map(line).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncing_calls_are_counted_with_and_without_errors() {
        let table = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.500000         100      5000        12 futex
 30.00    0.200000          50       400           fdatasync
 10.00    0.100000          50        20         1 fsync
------ ----------- ----------- --------- --------- ----------------
100.00    0.800000                  5420        13 total
";
        assert_eq!(calls(table), 420);
    }
}
