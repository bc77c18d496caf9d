//! What no cache holds: files are taken out of the page cache, and read and copied by `dd`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::fs::{Advice, fadvise};

use super::group::Cpu;
use super::rounds::Sample;

/// Lets go of every page of every file below a directory. What a process has mapped stays.
pub(super) fn forget(dir: &Path) -> io::Result<()> {
    for path in files(dir)? {
        let file = match File::open(&path) {
            Ok(file) => file,
            // A running store removes files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        file.sync_data()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

/// Every file below a directory.
pub(super) fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => left.push(entry.path()),
                kind if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    Ok(found)
}

/// Reads whole files with `dd iflag=direct bs=4M`, one after another.
pub(super) fn read_direct(paths: &[PathBuf]) -> io::Result<Sample> {
    timed(paths, |path| {
        dd(&[
            &format!("if={}", path.display()),
            "of=/dev/null",
            "iflag=direct",
        ])
    })
}

/// Copies whole files to a place beside with `dd` of 4 MiB, direct on both sides and synced.
pub(super) fn copy_direct(paths: &[PathBuf], to: &Path) -> io::Result<Sample> {
    let target = to.join("baseline-copy");
    let output = format!("of={}", target.display());
    let sample = timed(paths, |path| {
        let input = format!("if={}", path.display());
        dd(&[
            &input,
            &output,
            "iflag=direct",
            "oflag=direct",
            "conv=fdatasync",
        ])
    })?;
    std::fs::remove_file(target)?;
    Ok(sample)
}

fn timed(paths: &[PathBuf], each: impl Fn(&Path) -> io::Result<()>) -> io::Result<Sample> {
    let cpu = Cpu::of_commands();
    let started = Instant::now();
    let mut bytes = 0;
    for path in paths {
        bytes += std::fs::metadata(path)?.len();
        each(path)?;
    }
    Ok(Sample {
        seconds: started.elapsed().as_secs_f64(),
        amount: bytes as f64,
        cpu: Cpu::of_commands().since(&cpu),
        ..Sample::default()
    })
}

fn dd(args: &[&str]) -> io::Result<()> {
    let done = Command::new("dd")
        .arg("bs=4M")
        .arg("status=none")
        .args(args)
        .stdin(Stdio::null())
        .output()?;
    if done.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    Err(io::Error::other(format!("dd {args:?}: {told}")))
}
