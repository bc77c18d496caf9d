//! What a file and a chunk cost the tracker in memory when there are very many of both, and W8: its restart
//! over all of them. Datanodes are played: nothing is written but what the tracker and its journals write.

use std::io;
use std::time::Instant;

use dfs_client::http::empty;
use serde_json::json;

use super::fleet::Fleet;
use super::played::Herd;
use super::report::Report;
use super::settings::Settings;

/// They have three replicas of each chunk.
const DATANODES: usize = 6;
/// Chunks and files that are there before anything is counted.
const BEFORE: usize = 2_000;
/// A file without chunks, which can be read though its datanodes have no disks.
const READ: &str = "read-after-the-start";

/// One tracker after another.
pub(super) async fn run(settings: &Settings, report: &mut Report) -> io::Result<()> {
    for (name, binary) in &settings.binaries {
        let mut fleet = Fleet::start_tracker(binary, &settings.dir).await?;
        let mut herd = Herd::start(&fleet.address, settings.seed, DATANODES).await?;
        herd.wait_for_writes().await?;
        memory(settings, report, name, &fleet, &mut herd).await?;
        let mut session = fleet.door.session().await?;
        session.put(READ, empty).await?;
        let files = settings.catalog;
        let (ready, serving) = fleet.restart_tracker(&format!("/files/{READ}")).await?;
        let text = format!(
            "{name} tracker killed and started over {files} files of one chunk and {files} chunks of long \
             files: ready after {ready:.2} s, a file read after {serving:.2} s, {:.0} files/s",
            files as f64 / ready
        );
        let figures = json!({
            "files": files, "chunks": 2 * files, "ready_s": ready, "first_read_s": serving,
        });
        report.note("W8", &text, &figures)?;
    }
    Ok(())
}

/// Chunks of long files first, whose growth is theirs; then files of one chunk each.
async fn memory(
    settings: &Settings,
    report: &mut Report,
    name: &str,
    fleet: &Fleet,
    herd: &mut Herd,
) -> io::Result<()> {
    let resident = || fleet.group.resident_bytes("tracker") as f64;
    let count = settings.catalog;
    herd.write(BEFORE.min(count)).await?;
    herd.write_files(BEFORE.min(count)).await?;
    let before = resident();
    herd.write(count).await?;
    let with_chunks = resident();
    let started = Instant::now();
    herd.write_files(count).await?;
    let rate = count as f64 / started.elapsed().as_secs_f64();
    let with_files = resident();
    let chunk = (with_chunks - before) / count as f64;
    let file = (with_files - with_chunks) / count as f64;
    let text = format!(
        "{name}: with {count} chunks of long files the tracker's resident memory grew by {chunk:.0} bytes \
         for each, with {count} files of one chunk then by {file:.0} for each (without its chunk {:.0}), \
         from {:.1} to {:.1} MiB; three replicas; {rate:.0} commits/s",
        file - chunk,
        before / 1_048_576.0,
        with_files / 1_048_576.0,
    );
    let figures = json!({
        "files": count, "bytes_per_chunk": chunk, "bytes_per_file_and_chunk": file,
        "bytes_per_file": file - chunk, "before_bytes": before, "resident_bytes": with_files,
        "commits_per_s": rate,
    });
    report.note("memory", &text, &figures)
}
