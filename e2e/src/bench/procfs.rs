//! What `/proc` says of processes and of the machine.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::{Value, json};

use super::settings::Settings;

/// Clock ticks of `/proc/PID/stat` in a second: the same on every Linux that we run on.
const USER_HZ: f64 = 100.0;

/// CPU seconds of a process so far, user and system.
pub(super) fn cpu_seconds(pid: u32) -> f64 {
    ticks(pid, 11) / USER_HZ
}

/// CPU seconds of those of its children that have ended and were waited for.
pub(super) fn cpu_seconds_of_ended(pid: u32) -> f64 {
    ticks(pid, 13) / USER_HZ
}

/// CPU seconds of a process and its children: a web server's workers, a traced program.
pub(super) fn family_cpu_seconds(pid: u32) -> f64 {
    family(pid).into_iter().map(cpu_seconds).sum()
}

/// Peak resident bytes of a process and its children.
pub(super) fn family_peak_bytes(pid: u32) -> u64 {
    family(pid).into_iter().map(peak_bytes).sum()
}

/// Lets the peaks of a process and its children begin at what is resident now.
pub(super) fn reset_peaks(pid: u32) {
    family(pid).into_iter().for_each(reset_peak);
}

fn family(pid: u32) -> Vec<u32> {
    std::iter::once(pid).chain(children(pid)).collect()
}

/// What a process's first thread started and that runs.
pub(super) fn children(pid: u32) -> Vec<u32> {
    // A kernel that does not list children leaves the process alone.
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace();
    children.filter_map(|pid| pid.parse().ok()).collect()
}

/// Two fields in a row of `/proc/PID/stat`, user and system, in clock ticks.
fn ticks(pid: u32, first: usize) -> f64 {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return 0.0;
    };
    // The name may hold spaces and brackets: fields are counted from its end.
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return 0.0;
    };
    let field = |index: usize| -> f64 {
        let field = fields.split_whitespace().nth(index);
        field.and_then(|f| f.parse().ok()).unwrap_or(0.0)
    };
    field(first) + field(first + 1)
}

/// Peak resident bytes since the start or [`reset_peaks`].
fn peak_bytes(pid: u32) -> u64 {
    status_kib(pid, "VmHWM:") * 1024
}

/// Resident bytes now.
pub(super) fn resident_bytes(pid: u32) -> u64 {
    status_kib(pid, "VmRSS:") * 1024
}

/// Lets the peak begin at what is resident now.
fn reset_peak(pid: u32) {
    // A kernel without it goes on with the peak since the start, which is never smaller.
    let _unsupported = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

fn status_kib(pid: u32, key: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// The one-minute load.
pub(super) fn machine_load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|load| load.parse().ok()).unwrap_or(0.0)
}

/// What the figures depend on.
pub(super) fn machine_facts(settings: &Settings) -> io::Result<Value> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let space = rustix::fs::statvfs(&settings.dir)?;
    Ok(json!({
        "load_1m": machine_load(),
        "cores": std::thread::available_parallelism()?.get(),
        "kernel": kernel.trim(),
        "file_system": file_system(&settings.dir)?,
        "free_bytes": space.f_bavail * space.f_frsize,
        "rounds": settings.rounds,
        "first_round": "dropped",
        "large_bytes": settings.large,
        "seed": settings.seed,
        "wall_clock": jiff::Timestamp::now().to_string(),
    }))
}

/// The type of the deepest mount that holds a directory.
fn file_system(dir: &Path) -> io::Result<String> {
    let dir = dir.canonicalize()?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        dir.starts_with(at).then_some((at.len(), kind))
    });
    let deepest = holding.max_by_key(|(length, _)| *length);
    Ok(deepest.map_or("unknown", |(_, kind)| kind).to_owned())
}
