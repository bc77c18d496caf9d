//! What the machine can do without a store: the same bytes, the same durability, no sockets.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use bytes::Bytes;

use super::fleet::REPLICAS;
use super::group::Cpu;
use super::rounds::Sample;

/// Of O_DIRECT: address, offset and length.
const ALIGNMENT: usize = 4096;
/// Bytes of one write or read.
const STEP: usize = 1024 * 1024;

/// `streams` times three files of `bytes`, all at once, O_DIRECT in steps of 1 MiB, each with
/// fdatasync at its end. The files are removed afterwards, outside of the measurement.
pub(super) fn write_three(dir: &Path, bytes: u64, streams: usize, seed: u64) -> io::Result<Sample> {
    let names: Vec<PathBuf> = (0..streams * usize::from(REPLICAS))
        .map(|number| dir.join(format!("baseline-{number}")))
        .collect();
    let mut random = vec![0; STEP + ALIGNMENT];
    fastrand::Rng::with_seed(seed).fill(&mut random);
    let cpu = Cpu::of_client();
    let started = Instant::now();
    thread::scope(|scope| {
        let writers: Vec<_> = names
            .iter()
            .map(|name| scope.spawn(|| write_direct(name, bytes, &random)))
            .collect();
        writers.into_iter().try_for_each(joined)
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu = Cpu::of_client().since(&cpu);
    for name in &names {
        std::fs::remove_file(name)?;
    }
    Ok(Sample {
        seconds,
        amount: (bytes * streams as u64) as f64,
        cpu,
        ..Sample::default()
    })
}

fn write_direct(path: &Path, bytes: u64, random: &[u8]) -> io::Result<()> {
    // Each writer has its own bytes, at an address that O_DIRECT takes.
    let copy = random.to_vec();
    let skip = copy.as_ptr().align_offset(ALIGNMENT);
    let block = &copy[skip..skip + STEP];
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .custom_flags(flags)
        .open(path)?;
    for offset in (0..bytes).step_by(STEP) {
        file.write_all_at(block, offset)?;
    }
    file.sync_data()
}

/// Reads whole files `streams` times at once, through the page cache, in steps of 1 MiB.
pub(super) fn read_files(paths: &[PathBuf], bytes: u64, streams: usize) -> io::Result<Sample> {
    let cpu = Cpu::of_client();
    let started = Instant::now();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..streams)
            .map(|_| scope.spawn(|| read_all(paths)))
            .collect();
        readers.into_iter().try_for_each(joined)
    })?;
    Ok(Sample {
        seconds: started.elapsed().as_secs_f64(),
        amount: (bytes * streams as u64) as f64,
        cpu: Cpu::of_client().since(&cpu),
        ..Sample::default()
    })
}

fn read_all(paths: &[PathBuf]) -> io::Result<()> {
    let mut buffer = vec![0; STEP];
    for path in paths {
        let file = File::open(path)?;
        let mut offset = 0;
        loop {
            match file.read_at(&mut buffer, offset)? {
                0 => break,
                read => offset += read as u64,
            }
        }
    }
    Ok(())
}

/// Reads ranges of random places, `streams` at once, through the page cache.
pub(super) fn read_ranges(
    paths: &[PathBuf],
    range: u64,
    streams: usize,
    count: usize,
    seed: u64,
) -> io::Result<Sample> {
    let files = paths.iter().map(|path| {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok::<_, io::Error>((file, length))
    });
    let mut files: Vec<(File, u64)> = files.collect::<io::Result<_>>()?;
    files.retain(|(_, length)| *length >= range);
    if files.is_empty() {
        return Err(io::Error::other("no chunk file is as long as a range"));
    }
    let cpu = Cpu::of_client();
    let started = Instant::now();
    let each = count.div_ceil(streams);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..streams)
            .map(|stream| {
                let rng = fastrand::Rng::with_seed(seed.wrapping_add(stream as u64));
                scope.spawn(|| read_some(&files, range, each, rng))
            })
            .collect();
        readers.into_iter().try_for_each(joined)
    })?;
    Ok(Sample {
        seconds: started.elapsed().as_secs_f64(),
        amount: (range * (each * streams) as u64) as f64,
        cpu: Cpu::of_client().since(&cpu),
        ..Sample::default()
    })
}

#[allow(clippy::cast_possible_truncation)] // Mebibytes.
fn read_some(
    files: &[(File, u64)],
    range: u64,
    count: usize,
    mut rng: fastrand::Rng,
) -> io::Result<()> {
    let mut buffer = vec![0; range as usize];
    for _ in 0..count {
        let (file, length) = &files[rng.usize(..files.len())];
        file.read_exact_at(&mut buffer, rng.u64(0..=length - range))?;
    }
    Ok(())
}

/// So many append-only logs. A writer is answered when its bytes are durable in all; a log writes what
/// has gathered while the batch before was synced, with one fdatasync.
pub(super) fn append_logs(
    dir: &Path,
    logs: u16,
    body: &Bytes,
    writers: usize,
    operations: usize,
) -> io::Result<Sample> {
    let cpu = Cpu::of_client();
    let started = Instant::now();
    let each = operations.div_ceil(writers);
    thread::scope(|scope| {
        let mut submits = Vec::new();
        let mut running = Vec::new();
        for number in 0..logs {
            let (submit, queue) = mpsc::channel::<(Bytes, mpsc::Sender<()>)>();
            let path = dir.join(format!("baseline-log-{number}"));
            running.push(scope.spawn(move || keep_log(&path, &queue)));
            submits.push(submit);
        }
        let submitters: Vec<_> = (0..writers)
            .map(|_| {
                let submits = submits.clone();
                scope.spawn(move || submit_all(&submits, body, each))
            })
            .collect();
        drop(submits);
        submitters.into_iter().try_for_each(joined)?;
        running.into_iter().try_for_each(joined)
    })?;
    Ok(Sample {
        seconds: started.elapsed().as_secs_f64(),
        amount: (each * writers) as f64,
        cpu: Cpu::of_client().since(&cpu),
        ..Sample::default()
    })
}

fn submit_all(
    logs: &[mpsc::Sender<(Bytes, mpsc::Sender<()>)>],
    body: &Bytes,
    count: usize,
) -> io::Result<()> {
    for _ in 0..count {
        let (answer, on_answer) = mpsc::channel();
        for log in logs {
            let sent = log.send((body.clone(), answer.clone()));
            sent.map_err(|_| io::Error::other("a log ended"))?;
        }
        for _ in logs {
            on_answer.recv().map_err(io::Error::other)?;
        }
    }
    Ok(())
}

fn keep_log(path: &Path, queue: &mpsc::Receiver<(Bytes, mpsc::Sender<()>)>) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut batch = Vec::new();
    let mut waiting = Vec::new();
    while let Ok(first) = queue.recv() {
        for (body, answer) in std::iter::once(first).chain(queue.try_iter()) {
            batch.extend_from_slice(&body);
            waiting.push(answer);
        }
        file.write_all(&batch)?;
        file.sync_data()?;
        batch.clear();
        for answer in waiting.drain(..) {
            // Its writer waits for it.
            answer.send(()).map_err(io::Error::other)?;
        }
    }
    std::fs::remove_file(path)
}

pub(super) fn joined(thread: thread::ScopedJoinHandle<'_, io::Result<()>>) -> io::Result<()> {
    thread
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("a thread of the baseline panicked")))
}
