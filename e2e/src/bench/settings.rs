//! What is run, and how much of it. Everything comes from the environment.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::process::binary;

/// One kibibyte.
pub(super) const KIB: u64 = 1024;
/// One mebibyte.
pub(super) const MIB: u64 = 1024 * KIB;

/// A row group of docs/performance.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// W1: large PUT.
    Write,
    /// W2: read of a large file, warm, cold and in ranges.
    Read,
    /// W3: small PUT, and W8: the tracker's restart over what it left.
    SmallPut,
    /// W4: small GETs among many files; memory of a file.
    Lookup,
    /// W5: create, stat, rename, delete.
    Names,
    /// W6: pages of listings, and W8: the tracker's restart over all those names.
    List,
    /// W7: a datanode is gone.
    Repair,
    /// W4 and ranges while one datanode is slow.
    Hedged,
    /// W9: reads, stats, writes and deletes, mixed.
    Mixed,
    /// Memory of files and of chunks, and W8, with played datanodes.
    Catalog,
    /// W10: heartbeats and reports of datanodes that are only played.
    Herd,
    /// What looking at a store costs: scrapes and traces.
    Sight,
    /// Which calls make a write durable, counted by strace.
    Synced,
    /// The slope of peak memory over the size of an upload.
    Memory,
    /// `dfs dev`: time to ready, idle memory.
    Dev,
}

/// Names for `DFS_BENCH_ONLY`, in the order in which they run when nothing is said.
const WORKLOADS: [(&str, Workload); 15] = [
    ("dev", Workload::Dev),
    ("write", Workload::Write),
    ("read", Workload::Read),
    ("small", Workload::SmallPut),
    ("lookup", Workload::Lookup),
    ("names", Workload::Names),
    ("list", Workload::List),
    ("repair", Workload::Repair),
    ("hedged", Workload::Hedged),
    ("mixed", Workload::Mixed),
    ("herd", Workload::Herd),
    ("catalog", Workload::Catalog),
    ("sight", Workload::Sight),
    ("synced", Workload::Synced),
    ("memory", Workload::Memory),
];

impl Workload {
    /// As `DFS_BENCH_ONLY` names it.
    pub(super) fn name(self) -> &'static str {
        let mut known = WORKLOADS.iter();
        let found = known.find_map(|(name, workload)| (*workload == self).then_some(*name));
        found.unwrap_or("unnamed")
    }
}

/// How much of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Seconds: shows that every row works; its figures mean nothing.
    Smoke,
    /// Minutes.
    Short,
    /// Everything.
    Full,
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
    /// Of all amounts that follow.
    pub scale: Scale,
    /// Bytes of a large file.
    pub large: u64,
    /// Bytes of the smallest file of the memory slope.
    pub least: u64,
    /// Bytes of the largest file of the memory slope.
    pub largest: u64,
    /// Small PUTs in one sample at each concurrency.
    pub small: Vec<(usize, usize)>,
    /// Bytes of small PUTs.
    pub small_bytes: Vec<u64>,
    /// Concurrent transfers of large files.
    pub streams: Vec<usize>,
    /// Bytes of ranges of a large file.
    pub ranges: Vec<u64>,
    /// Ranges in one sample.
    pub range_reads: usize,
    /// Bytes that they read at least: small ranges are over too soon to be timed.
    pub range_bytes: u64,
    /// Files among which small GETs are.
    pub files: usize,
    /// Bytes of those files.
    pub file_bytes: Vec<u64>,
    /// Small GETs in one sample at each concurrency.
    pub lookups: Vec<(usize, usize)>,
    /// Names made, looked at, moved and deleted in one sample at each concurrency.
    pub names: Vec<(usize, usize)>,
    /// Names of the directories that are listed.
    pub listed: Vec<usize>,
    /// Pages in one sample at each concurrency.
    pub pages: Vec<(usize, usize)>,
    /// Datanodes of each store that loses one.
    pub repaired: Vec<usize>,
    /// Large files (number, bytes) and small ones that such a store has.
    pub repair_files: [(usize, u64); 2],
    /// Datanodes of each store that loses one while the rate of repair binds.
    pub repair_curve: Vec<usize>,
    /// What the largest of them has; others have the part that gives each datanode as much. Of few chunks each: all chunks of a
    /// file lie on the same datanodes, and a few long files would be copied from a few.
    pub curve_files: [(usize, u64); 2],
    /// Small files that are read, and reads of them, while a datanode is slow.
    pub hedged: (usize, usize),
    /// Mixed operations in one sample.
    pub mixed: usize,
    /// Datanodes that are played, chunks that each of them reports.
    pub herd: (usize, usize),
    /// Starts of `dfs dev`.
    pub starts: usize,
    /// PUTs that are traced.
    pub traced: usize,
    /// Names that the catalog has already while names are made, looked at, moved and deleted.
    pub catalogs: Vec<usize>,
    /// Files of one chunk each, and as many chunks of long files, that a tracker alone is filled with.
    pub catalog: usize,
    /// No sample begins an operation later than this after its start.
    pub limit: Duration,
    /// The same for other stores, where many small operations make one sample.
    pub peer_limit: Duration,
    /// Files among which other stores look.
    pub peer_files: usize,
    /// Filling a store takes no longer.
    pub fill_limit: Duration,
    /// What is run, in order.
    pub workloads: Vec<Workload>,
    /// Where peers and web servers were installed.
    pub peers_dir: PathBuf,
    /// Whether other stores run beside ours.
    pub peers: bool,
    /// Seed of the order of contenders.
    pub seed: u64,
}

impl Settings {
    /// Reads `FULL`, `DFS_BENCH_DIR`, `DFS_BENCH_ROUNDS`, `DFS_BENCH_ONLY`, `DFS_BENCH_DFS` and
    /// `DFS_BENCH_OTHER` (binaries), `DFS_BENCH_PEERS`, `DFS_BENCH_SEED`, `DFS_BENCH_SMOKE`.
    pub fn from_env() -> io::Result<Self> {
        let is_set = |name| text(name).is_some_and(|value| value != "0");
        let scale = match (is_set("DFS_BENCH_SMOKE"), is_set("FULL")) {
            (true, _) => Scale::Smoke,
            (false, true) => Scale::Full,
            (false, false) => Scale::Short,
        };
        let ours = text("DFS_BENCH_DFS").map_or_else(|| binary("dfs"), PathBuf::from);
        let mut settings = Self::of(scale, ours);
        if let Some(other) = text("DFS_BENCH_OTHER") {
            let other = ("other".to_owned(), PathBuf::from(other));
            settings.binaries.push(other);
        }
        if let Some(dir) = text("DFS_BENCH_DIR") {
            settings.dir = PathBuf::from(dir);
        }
        if let Some(dir) = text("DFS_BENCH_PEERS") {
            settings.peers_dir = PathBuf::from(dir);
            settings.peers = true;
        }
        if let Some(named) = text("DFS_BENCH_ONLY") {
            settings.workloads = workloads(&named)?;
        }
        settings.rounds = number("DFS_BENCH_ROUNDS", settings.rounds)?.max(2);
        settings.seed = number("DFS_BENCH_SEED", 1)? as u64;
        Ok(settings)
    }

    /// What a scale means, with one binary and without other stores unless it is the full one.
    pub fn of(scale: Scale, ours: PathBuf) -> Self {
        let short = Self {
            binaries: vec![("dfs".to_owned(), ours)],
            dir: std::env::temp_dir(),
            rounds: 7,
            scale,
            large: 128 * MIB,
            least: 64 * MIB,
            largest: 4096 * MIB,
            small: vec![(1, 100), (16, 600), (64, 1200)],
            small_bytes: vec![4 * KIB],
            streams: vec![1, 4],
            ranges: vec![64 * KIB, MIB, 4 * MIB],
            range_reads: 100,
            range_bytes: 128 * MIB,
            files: 4_000,
            file_bytes: vec![4 * KIB],
            lookups: vec![(1, 300), (16, 1500), (64, 1500)],
            names: vec![(64, 1000)],
            listed: vec![1_000, 20_000],
            pages: vec![(1, 10), (8, 40)],
            repaired: vec![4],
            repair_files: [(4, 64 * MIB), (1_000, 64 * KIB)],
            repair_curve: vec![4, 8, 16],
            curve_files: [(192, 4 * MIB), (3_000, 64 * KIB)],
            hedged: (1_000, 5_000),
            mixed: 600,
            herd: (1_000, 2_000),
            starts: 5,
            traced: 200,
            catalogs: vec![0],
            catalog: 100_000,
            limit: Duration::from_secs(20),
            peer_limit: Duration::from_secs(5),
            peer_files: 4_000,
            fill_limit: Duration::from_mins(5),
            workloads: WORKLOADS.map(|(_, workload)| workload).to_vec(),
            peers_dir: Path::new("target/peers").to_path_buf(),
            peers: scale == Scale::Full,
            seed: 1,
        };
        match scale {
            Scale::Short => short,
            Scale::Smoke => short.smoke(),
            Scale::Full => short.full(),
        }
    }

    /// What other stores are asked for: they are given less where one sample of theirs would take minutes.
    pub(super) fn for_peers(&self) -> Self {
        Self {
            files: self.peer_files.min(self.files),
            limit: self.peer_limit,
            ..self.clone()
        }
    }

    /// Reads of a range of so many bytes in one sample.
    pub(super) fn reads_of(&self, range: u64) -> usize {
        let fill = usize::try_from(self.range_bytes / range.max(1)).unwrap_or(usize::MAX);
        self.range_reads.max(fill)
    }

    fn full(self) -> Self {
        Self {
            large: 256 * MIB,
            small: vec![(1, 400), (16, 2000), (64, 3000), (256, 4000)],
            small_bytes: vec![KIB, 4 * KIB, 64 * KIB],
            streams: vec![1, 4, 16],
            range_reads: 200,
            range_bytes: 256 * MIB,
            files: 100_000,
            file_bytes: vec![KIB, 4 * KIB],
            lookups: vec![(1, 1_000), (16, 10_000), (64, 10_000)],
            names: vec![(1, 300), (16, 3_000), (64, 8_000)],
            listed: vec![1_000, 100_000, 1_000_000],
            pages: vec![(1, 250), (8, 750)],
            repair_files: [(32, 64 * MIB), (20_000, 64 * KIB)],
            curve_files: [(384, 4 * MIB), (6_000, 64 * KIB)],
            hedged: (10_000, 10_000),
            mixed: 2_000,
            herd: (1_000, 60_000),
            traced: 500,
            catalogs: vec![100_000, 1_000_000],
            catalog: 1_000_000,
            peer_limit: Duration::from_secs(2),
            peer_files: 10_000,
            fill_limit: Duration::from_mins(10),
            ..self
        }
    }

    fn smoke(self) -> Self {
        Self {
            rounds: 2,
            // Longer than a packed chunk: the baselines read chunk files.
            large: 2 * MIB,
            least: 512 * KIB,
            largest: 2 * MIB,
            small: vec![(2, 6)],
            streams: vec![1],
            ranges: vec![64 * KIB],
            range_reads: 4,
            range_bytes: 0,
            files: 20,
            lookups: vec![(2, 20)],
            names: vec![(2, 6)],
            listed: vec![20, 40],
            pages: vec![(1, 3)],
            repair_files: [(2, 256 * KIB), (10, 4 * KIB)],
            repair_curve: vec![4],
            curve_files: [(2, 256 * KIB), (10, 4 * KIB)],
            hedged: (10, 40),
            mixed: 40,
            herd: (5, 200),
            starts: 1,
            traced: 5,
            catalogs: vec![0, 10],
            catalog: 200,
            peer_files: 10,
            limit: Duration::from_secs(20),
            fill_limit: Duration::from_mins(2),
            ..self
        }
    }
}

fn workloads(named: &str) -> io::Result<Vec<Workload>> {
    let one = |name: &str| {
        let mut known = WORKLOADS.iter();
        let found = known.find_map(|(own, workload)| (*own == name).then_some(*workload));
        found.ok_or_else(|| {
            let all = WORKLOADS.map(|(own, _)| own).join(",");
            io::Error::other(format!(
                "there is no workload `{name}`; write some of {all}"
            ))
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
