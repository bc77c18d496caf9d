//! What is run, and how much of it. Everything comes from the environment.

use std::io;
use std::path::PathBuf;

use crate::process::binary;

/// One mebibyte.
pub(super) const MIB: u64 = 1024 * 1024;

/// A row group of docs/performance.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// W1: large PUT.
    Write,
    /// W2: warm read of a large file.
    Read,
    /// W3: small PUT, and W8: the tracker's restart over what it left.
    SmallPut,
    /// The slope of peak memory over the size of an upload.
    Memory,
    /// `dfs dev`: time to ready, idle memory.
    Dev,
}

/// How much is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Binaries under test: the first is ours, the others stand beside it in every round.
    pub binaries: Vec<(String, PathBuf)>,
    /// Data and logs go below; its file system is what is measured.
    pub dir: PathBuf,
    /// Rounds, the first of which is dropped.
    pub rounds: usize,
    /// Bytes of a large file.
    pub large: u64,
    /// Bytes of the largest file of the memory slope.
    pub largest: u64,
    /// Small PUTs in one sample at each concurrency.
    pub small: Vec<(usize, usize)>,
    /// Concurrent transfers of large files.
    pub streams: Vec<usize>,
    /// What is run, in order.
    pub workloads: Vec<Workload>,
    /// Seed of the order of contenders.
    pub seed: u64,
}

impl Settings {
    /// Reads `FULL`, `DFS_BENCH_DIR`, `DFS_BENCH_ROUNDS`, `DFS_BENCH_ONLY` (of `write`, `read`,
    /// `small`, `memory`, `dev`), `DFS_BENCH_DFS` and `DFS_BENCH_OTHER` (binaries), `DFS_BENCH_SEED`.
    pub fn from_env() -> io::Result<Self> {
        let full = text("FULL").is_some_and(|value| value != "0");
        let ours = text("DFS_BENCH_DFS").map_or_else(|| binary("dfs"), PathBuf::from);
        let mut binaries = vec![("dfs".to_owned(), ours)];
        if let Some(other) = text("DFS_BENCH_OTHER") {
            binaries.push(("other".to_owned(), PathBuf::from(other)));
        }
        let small = if full {
            vec![(1, 500), (16, 3000), (64, 6000), (256, 6000)]
        } else {
            vec![(1, 100), (16, 600), (64, 1200)]
        };
        Ok(Self {
            binaries,
            dir: text("DFS_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from),
            rounds: number("DFS_BENCH_ROUNDS", 7)?.max(2),
            large: if full { 256 * MIB } else { 128 * MIB },
            largest: 4096 * MIB,
            small,
            streams: if full { vec![1, 4, 16] } else { vec![1, 4] },
            workloads: workloads()?,
            seed: number("DFS_BENCH_SEED", 1)? as u64,
        })
    }
}

fn workloads() -> io::Result<Vec<Workload>> {
    let named = text("DFS_BENCH_ONLY").unwrap_or_else(|| "dev,write,read,small,memory".into());
    let one = |name: &str| {
        Ok(match name {
            "write" => Workload::Write,
            "read" => Workload::Read,
            "small" => Workload::SmallPut,
            "memory" => Workload::Memory,
            "dev" => Workload::Dev,
            other => {
                return Err(io::Error::other(format!("there is no workload `{other}`")));
            }
        })
    };
    named.split(',').map(one).collect()
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str, default: usize) -> io::Result<usize> {
    text(name).map_or(Ok(default), |value| {
        let parsed = value.parse();
        parsed.map_err(|error| io::Error::other(format!("{name}: {error}")))
    })
}
