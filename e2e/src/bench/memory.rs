//! Peak memory over the size of an upload, memory of a stream, and `dfs dev` at rest.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::body::Source;
use super::fleet::{Fleet, spec};
use super::procfs;
use super::report::{Report, map};
use super::settings::{MIB, Settings};
use super::writes::{put_files, tell_bytes};
use crate::process::{Process, free_ports};

/// Streams at once, for the memory of one.
const MANY: usize = 8;
/// How long `dfs dev` rests before its memory counts.
const REST: Duration = Duration::from_secs(3);
/// How long `dfs dev` may take to be ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// Peak RSS after the smallest and after the largest upload, and with several streams.
pub(super) async fn slope(settings: &Settings, report: &mut Report) -> io::Result<()> {
    let space = rustix::fs::statvfs(&settings.dir)?;
    let needed = settings.largest * 4;
    if space.f_bavail * space.f_frsize < needed {
        let text = format!("skipped: {needed} bytes must be free");
        return report.note("RSS slope", &text, &json!(null));
    }
    let source = Source::new(settings.seed);
    for (name, binary) in &settings.binaries {
        // A store of its own, whose data goes with it: nothing of 12 GiB stays.
        let fleet = Fleet::start(binary, &settings.dir).await?;
        // The first upload also brings in code and arenas that every later one shares.
        put_files(&fleet, &source, settings.least, 1, 0).await?;
        fleet.group.reset_peaks();
        put_files(&fleet, &source, settings.least, 1, 1).await?;
        let after_least = fleet.group.peaks();
        fleet.group.reset_peaks();
        put_files(&fleet, &source, settings.largest, 1, 3).await?;
        let after_largest = fleet.group.peaks();
        // After the slope: the allocator keeps some of what many streams took, and a peak never
        // begins below what is resident.
        fleet.group.reset_peaks();
        put_files(&fleet, &source, settings.least, MANY, 2).await?;
        let after_many = fleet.group.peaks();
        let gib = (settings.largest - settings.least) as f64 / (1024.0 * 1024.0 * 1024.0);
        let slopes = differences(&after_largest, &after_least, gib);
        let streams = differences(&after_many, &after_least, (MANY - 1) as f64);
        let text = format!(
            "{name}: peak after {} {}; after {} {}; bytes per GiB {}; bytes per stream \
             (c={MANY} against c=1) {}",
            tell_bytes(settings.least),
            map(&after_least),
            tell_bytes(settings.largest),
            map(&after_largest),
            map(&slopes),
            map(&streams)
        );
        let figures = json!({
            "peak_bytes_least": map(&after_least), "peak_bytes_largest": map(&after_largest),
            "peak_bytes_many": map(&after_many), "bytes_per_gib": map(&slopes),
            "bytes_per_stream": map(&streams), "largest_bytes": settings.largest,
        });
        report.note("RSS slope", &text, &figures)?;
    }
    Ok(())
}

#[allow(clippy::cast_possible_truncation)] // Bytes of memory are far below 2^53.
fn differences(after: &[(String, u64)], before: &[(String, u64)], by: f64) -> Vec<(String, i64)> {
    let pairs = after.iter().zip(before);
    pairs
        .map(|((name, after), (_, before))| {
            let difference = (*after as f64 - *before as f64) / by;
            (name.clone(), difference as i64)
        })
        .collect()
}

/// `dfs dev`: from its start to the first 200 of `/readyz`, and its memory at rest; a few times.
pub(super) async fn dev(settings: &Settings, report: &mut Report) -> io::Result<()> {
    for (name, binary) in &settings.binaries {
        let mut seconds = Vec::new();
        let mut resident = Vec::new();
        for _ in 0..settings.starts {
            let dir = tempfile::Builder::new()
                .prefix("dfs-bench.")
                .tempdir_in(&settings.dir)?;
            let port = free_ports(1)[0];
            let args = [
                "dev".to_owned(),
                format!("--port={port}"),
                format!("--dir={}", dir.path().join("data").display()),
            ];
            let spec = spec(binary, "dev", args.to_vec());
            let started = Instant::now();
            let process = Process::start(spec, dir.path())?;
            while !is_ready(port).await {
                if started.elapsed() > PATIENCE {
                    return Err(io::Error::other(format!("not ready: {}", process.log())));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            seconds.push(started.elapsed().as_secs_f64());
            tokio::time::sleep(REST).await;
            resident.push(procfs::resident_bytes(process.pid()) as f64 / MIB as f64);
        }
        let (ready, idle) = (
            super::rounds::median(&seconds),
            super::rounds::median(&resident),
        );
        let text = format!(
            "{name} dev: ready after {ready:.2} s ({}), idle RSS {idle:.0} MiB, {} starts",
            seconds
                .iter()
                .map(|s| format!("{s:.2}"))
                .collect::<Vec<_>>()
                .join(" "),
            settings.starts
        );
        let figures = json!({ "ready_s": seconds, "idle_mib": resident });
        report.note("dev", &text, &figures)?;
    }
    Ok(())
}

/// Whether `/readyz` answers 200.
async fn is_ready(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            .await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        Ok::<bool, io::Error>(&head == b"HTTP/1.1 200")
    };
    ask.await.unwrap_or(false)
}
