//! [`ChunkStore`] on a disk: small chunks in packs, each other one in a file of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_protocol::chunk::{ChunkKind, ChunkOrigin, Replica};
use dfs_protocol::datanode::{Damage, WriteMode};
use dfs_protocol::{ChunkId, ChunkVersion};
use dfs_runtime::clock::SharedClock;
use dfs_runtime::disk::{DiskFile, OpenMode, SharedDisk};
use dfs_runtime::rng::SharedRng;

use super::attempt::{Attempt, STAGED_SUFFIX};
use super::buffers::Buffers;
use super::claim::{Claim, Claims};
use super::error::{FailStop, StoreError, is_passing};
use super::group::GroupSync;
use super::index::{MonotonicSeconds, ReplicaIndex, key};
use super::layout::{
    CHUNKS_DIR, PACKS_DIR, QUARANTINE_DIR, RETIRED_DIR, STAGING_DIR, chunk_name, chunk_path,
    fan_out,
};
use super::packs::{PackLimits, Packs, recover};
use super::put::put_packed;
use super::reader::RecordReader;
use super::refusal::Refusal;
use super::scan::{Damaged, scan};
use super::small;
use super::space::{Room, SpaceGuard, SpaceLimits};
use super::volume::Identity;
use super::{ChunkRead, ChunkStore, NewChunk, SetAside, SmallChunk, StagedChunk, WholeChunk};
use crate::metrics::StoreMetrics;

/// What a store needs to know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StoreConfig {
    /// When the volume stops taking chunks.
    pub space: SpaceLimits,
    /// Which chunks are packed.
    pub packs: PackLimits,
    /// How the others are written.
    pub writes: WriteMode,
}

/// What a store takes from outside.
#[derive(Debug)]
pub struct StoreSeams {
    /// Holds the volume.
    pub disk: SharedDisk,
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
    /// Counters.
    pub metrics: StoreMetrics,
    /// What `volume.json` says.
    pub identity: Arc<Identity>,
}

/// Chunks under `chunks/` and `packs/`.
#[derive(Debug)]
pub struct FileChunkStore {
    shared: Arc<Shared>,
}

/// What the store, its attempts and its readers share.
#[derive(Debug)]
pub struct Shared {
    pub(super) disk: SharedDisk,
    pub(super) root: PathBuf,
    pub(super) index: ReplicaIndex,
    pub(super) space: Arc<SpaceGuard>,
    pub(super) fail_stop: FailStop,
    pub(super) refusal: Refusal,
    pub(super) metrics: StoreMetrics,
    pub(super) packs: Packs,
    pub(super) buffers: Arc<Buffers>,
    pub(super) writes: WriteMode,
    clock: SharedClock,
    pub(super) claims: Claims,
    dirs: Mutex<BTreeMap<PathBuf, Arc<GroupSync>>>,
    /// Fan-out directories known to be durable.
    made: Mutex<BTreeSet<PathBuf>>,
    staged: AtomicU64,
    pub(super) quarantined: AtomicU64,
    foreign: u64,
}

impl FileChunkStore {
    /// Scans the volume at `root`, whose directories exist and whose lock is held. Blocks.
    pub fn open(seams: StoreSeams, root: &Path, config: StoreConfig) -> io::Result<Self> {
        let StoreSeams {
            disk,
            clock,
            rng,
            metrics,
            identity,
        } = seams;
        let cluster = identity.cluster();
        let mut found = scan(&disk, root, cluster)?;
        let mut packed = recover(&disk, root, cluster)?;
        let replicas = std::mem::take(&mut packed.replicas);
        let twice = found.replicas.iter().map(|r| key(&r.chunk));
        let twice: BTreeSet<_> = twice.filter(|key| replicas.contains_key(key)).collect();
        found.foreign.append(&mut packed.foreign);
        let quarantined = disk.list(&root.join(QUARANTINE_DIR))?.len() as u64;
        for path in &found.foreign {
            tracing::warn!(file = %path.display(), "left a file alone that is not ours");
        }
        metrics
            .foreign_files
            .set(as_gauge(found.foreign.len() as u64));
        let corrupt = found.damaged.iter().map(|d| d.replica);
        let corrupt = corrupt.chain(packed.damaged.iter().copied()).collect();
        let damaged: BTreeSet<_> = packed
            .damaged
            .iter()
            .map(|c| (c.chunk, c.version))
            .collect();
        let replicas = replicas.into_iter();
        // Of both layouts one is counted.
        let replicas = replicas.filter(|(key, _)| !damaged.contains(key) && !twice.contains(key));
        found.replicas.extend(replicas.map(|(_, replica)| replica));
        let space = SpaceGuard::new(Arc::clone(&disk), root.to_path_buf(), config.space);
        let shared = Arc::new(Shared {
            root: root.to_path_buf(),
            index: ReplicaIndex::new(found.replicas, corrupt),
            space,
            fail_stop: FailStop::default(),
            refusal: Refusal::default(),
            buffers: Buffers::new(metrics.read_buffers.clone()),
            writes: config.writes,
            metrics,
            packs: Packs::new(
                Arc::clone(&disk),
                root.to_path_buf(),
                config.packs,
                rng,
                identity,
                (packed.book, packed.salts, packed.next),
            ),
            disk,
            clock,
            claims: Claims::default(),
            dirs: Mutex::default(),
            made: Mutex::default(),
            staged: AtomicU64::new(0),
            quarantined: AtomicU64::new(quarantined),
            foreign: found.foreign.len() as u64,
        });
        for Damaged { path, replica } in &found.damaged {
            shared.quarantine(path, replica);
        }
        for replica in &packed.damaged {
            shared.quarantine_packed(replica);
        }
        for ruin in &packed.ruins {
            shared.quarantine_ruin(*ruin);
        }
        for key in twice {
            // Only other hands put a file beside a packed entry; one of both is enough.
            shared.forget_shadow(key);
        }
        shared.metrics.packs.set(shared.packs.totals());
        tracing::info!(
            replicas = shared.index.totals().0,
            damaged = found.damaged.len() + packed.damaged.len() + packed.ruins.len(),
            foreign = found.foreign.len(),
            unfinished = found.staged_removed + packed.unfinished,
            packs = shared.packs.totals()[0],
            "scanned the volume"
        );
        Ok(Self { shared })
    }
}

impl FileChunkStore {
    fn attempt(&self, new: &NewChunk) -> Result<Attempt, StoreError> {
        let shared = &self.shared;
        shared.fail_stop.check()?;
        let (chunk, version) = (new.id, new.version);
        let claim = Claim::take(shared, (chunk, version))?;
        // Deletions wait for checkpoints of the catalog: those must get through.
        let room = match new.origin.kind {
            ChunkKind::Data => shared.space.reserve(new.expected),
            ChunkKind::Checkpoint => shared.space.reserve_last(new.expected),
        };
        let reservation = room
            .map_err(|e| StoreError::disk("asking for room", e))?
            .map_err(|full| {
                shared.metrics.refused_full.inc();
                StoreError::NoSpace {
                    needed: new.expected,
                    free: full.free,
                }
            })?;
        Attempt::begin(shared, claim, new.clone(), reservation)
    }
}

impl ChunkStore for FileChunkStore {
    fn begin(&self, new: &NewChunk) -> Result<Box<dyn StagedChunk>, StoreError> {
        Ok(Box::new(self.attempt(new)?))
    }

    fn packs(&self, length: u64) -> bool {
        self.shared.packs.takes(length)
    }

    fn put_packed(&self, chunks: Vec<WholeChunk>) -> Vec<Result<Replica, StoreError>> {
        let begun = chunks.into_iter().map(|whole| {
            let attempt = self.attempt(&whole.new)?;
            attempt.take_whole(&whole)
        });
        put_packed(&self.shared, begun.collect())
    }

    fn open(&self, id: ChunkId, version: ChunkVersion) -> Result<Arc<dyn ChunkRead>, StoreError> {
        let replica = self.shared.index.get((id, version));
        let replica = replica.ok_or(StoreError::NotFound { chunk: id, version })?;
        match RecordReader::open(&self.shared, &replica.chunk) {
            // Removed between the look at the index and the open: not damage.
            Err(
                StoreError::Corrupt {
                    damage: Damage::Missing,
                    ..
                }
                | StoreError::Disk { .. },
            ) if self.shared.index.get((id, version)).is_none() => {
                Err(StoreError::NotFound { chunk: id, version })
            }
            opened => Ok(Arc::new(opened?)),
        }
    }

    fn open_to_keep(
        &self,
        id: ChunkId,
        version: ChunkVersion,
    ) -> Result<Arc<dyn ChunkRead>, StoreError> {
        let index = &self.shared.index;
        let taken = index.taken();
        let reader = self.open(id, version)?;
        if !reader.is_packed() {
            let now = self.shared.seconds();
            index.keep((id, version), Arc::clone(&reader), taken, now);
        }
        Ok(reader)
    }

    fn kept(&self, id: ChunkId, version: ChunkVersion) -> Option<Arc<dyn ChunkRead>> {
        let now = self.shared.seconds();
        self.shared.index.kept((id, version), now)
    }

    fn read_now(&self, id: ChunkId, version: ChunkVersion) -> Option<SmallChunk> {
        let replica = self.shared.index.get((id, version))?;
        small::read_now(&self.shared, &replica.chunk)
    }

    fn remove(
        &self,
        id: ChunkId,
        version: ChunkVersion,
        kind: ChunkKind,
    ) -> Result<bool, StoreError> {
        let shared = &self.shared;
        let Some(replica) = shared.index.get((id, version)) else {
            return Ok(false);
        };
        if replica.kind != kind {
            return Err(StoreError::WrongKind { chunk: id });
        }
        // A copy that is sealed under this name meanwhile must not lose its file.
        let Some(claim) = Claim::hold(shared, (id, version)) else {
            return Ok(false);
        };
        if shared.index.remove((id, version)).is_none() {
            return Ok(false);
        }
        if shared.packs.place((id, version)).is_some() {
            // An entry is removed by its place, not by its name.
            drop(claim);
            shared.forget((id, version), Some(replica))?;
            shared.metrics.removed.inc();
            return Ok(true);
        }
        match shared.disk.remove(&chunk_path(&shared.root, id, version)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                // Still there: it must stay known, or it would come back unannounced.
                shared.index.insert(&replica, shared.seconds());
                return Err(StoreError::disk("removing a chunk", error));
            }
        }
        drop(claim);
        shared.sync_dir(&shared.root.join(CHUNKS_DIR).join(fan_out(id)))?;
        shared.metrics.removed.inc();
        Ok(true)
    }

    fn set_aside(&self, id: ChunkId, version: ChunkVersion, damage: Damage) {
        self.shared.set_aside(id, version, damage);
    }

    fn origins(&self, kind: ChunkKind) -> Result<Vec<(Replica, ChunkOrigin)>, StoreError> {
        let mut origins = Vec::new();
        for (id, version) in self.shared.index.keys(Some(kind)) {
            match self.open(id, version) {
                Ok(reader) => {
                    let header = reader.header();
                    origins.push((header.replica(), header.origin.clone()));
                }
                // Removed or set aside meanwhile: the others still count.
                Err(StoreError::NotFound { .. } | StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(origins)
    }

    fn retire_all(&self) -> Result<(), StoreError> {
        let shared = &self.shared;
        let retired = shared.root.join(RETIRED_DIR);
        let failed = |e| StoreError::disk("retiring chunks", e);
        let halt = shared.packs.halt();
        if shared.packs.retire(&halt, &retired).map_err(failed)? {
            shared.sync_dir(&retired)?;
            shared.sync_dir(&shared.root.join(PACKS_DIR))?;
        }
        for (id, version) in shared.index.keys(None) {
            let target = retired.join(chunk_name(id, version));
            match shared
                .disk
                .rename(&chunk_path(&shared.root, id, version), &target)
            {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(error));
                }
                Ok(()) | Err(_) => {}
            }
            shared.index.remove((id, version));
        }
        shared.index.clear();
        drop(halt);
        shared.sync_dir(&retired)?;
        for entry in shared
            .disk
            .list(&shared.root.join(CHUNKS_DIR))
            .map_err(failed)?
        {
            if entry.is_dir {
                shared.sync_dir(&shared.root.join(CHUNKS_DIR).join(entry.name))?;
            }
        }
        Ok(())
    }

    fn purge_retired(&self) -> Result<u64, StoreError> {
        let shared = &self.shared;
        let retired = shared.root.join(RETIRED_DIR);
        let failed = |e| StoreError::disk("deleting retired chunks", e);
        let mut purged = 0;
        for entry in shared.disk.list(&retired).map_err(failed)? {
            if !entry.is_dir {
                shared
                    .disk
                    .remove(&retired.join(entry.name))
                    .map_err(failed)?;
                purged += 1;
            }
        }
        Ok(purged)
    }

    fn compact(&self) -> Result<Option<u64>, StoreError> {
        self.shared.compact()
    }

    fn index(&self) -> &ReplicaIndex {
        &self.shared.index
    }

    fn room(&self) -> io::Result<Room> {
        self.shared.space.room()
    }

    fn refuses_writes(&self) -> bool {
        self.shared.refusal.stands()
    }

    fn write_mode(&self) -> WriteMode {
        self.shared.writes
    }

    fn try_disk(&self) {
        self.shared.try_disk();
    }

    fn set_aside_count(&self) -> SetAside {
        SetAside {
            quarantined: self.shared.quarantined.load(Ordering::Relaxed),
            foreign: self.shared.foreign,
        }
    }

    fn fail_stop(&self) -> &FailStop {
        &self.shared.fail_stop
    }
}

impl Shared {
    /// Seconds of the monotonic clock.
    pub(super) fn seconds(&self) -> MonotonicSeconds {
        i64::try_from(self.clock.monotonic().as_secs()).unwrap_or(i64::MAX)
    }

    /// A write that the disk refused, as an error. From here on chunks should go elsewhere, which the
    /// next heartbeat says at once; a disk that is only full says so by its room.
    pub(super) fn write_error(&self, doing: &'static str, error: io::Error) -> StoreError {
        self.metrics.write_errors.inc();
        let error = StoreError::disk(doing, error);
        let refused = matches!(error, StoreError::Disk { .. });
        if refused && self.refusal.note(self.clock.monotonic()) {
            tracing::error!(
                error = error.describe(),
                "the disk refuses writes: no chunks are taken until it writes again"
            );
            self.metrics.refuses_writes.set(1);
            self.index.hurry();
        }
        error
    }

    fn try_disk(&self) {
        let now = self.clock.monotonic();
        if !self.refusal.is_due(now) {
            return;
        }
        let tried = self.trial_write();
        self.refusal.tried(tried.is_ok(), now);
        match tried {
            Ok(()) => {
                tracing::info!("the disk writes again: chunks are taken");
                self.metrics.refuses_writes.set(0);
                self.index.hurry();
            }
            Err(error) => tracing::warn!(%error, "the disk still refuses writes"),
        }
    }

    /// What a chunk does to the disk, but for the fsync. A file left here goes at the next start.
    fn trial_write(&self) -> io::Result<()> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let at = |name: &str| {
            let name = format!("{name}.{number}{STAGED_SUFFIX}");
            self.root.join(STAGING_DIR).join(name)
        };
        let (first, second) = (at("trial"), at("tried"));
        let file = self.disk.open(&first, OpenMode::CreateNew)?;
        let moved = file
            .write_all_at(&[0; 4096], 0)
            .and_then(|()| self.disk.rename(&first, &second));
        let left = if moved.is_ok() { &second } else { &first };
        moved.and(self.disk.remove(left))
    }

    /// A new file under `staging/`. Its name is unique; only its header says what it is.
    pub(super) fn new_staged(
        &self,
        id: ChunkId,
        version: ChunkVersion,
    ) -> Result<(PathBuf, Arc<dyn DiskFile>), StoreError> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let name = format!("{id}.v{version}.{number}{STAGED_SUFFIX}");
        let path = self.root.join(STAGING_DIR).join(name);
        let file = self
            .disk
            .open(&path, OpenMode::CreateNew)
            .map_err(|e| self.write_error("making a staged file", e))?;
        Ok((path, file))
    }

    /// A fan-out directory, made durably on first use.
    pub(super) fn chunk_dir(&self, name: &str) -> Result<PathBuf, StoreError> {
        let dir = self.root.join(CHUNKS_DIR).join(name);
        // Held while making it: a second writer must not build on a name that is not durable yet.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !made.contains(&dir) {
            self.disk
                .create_dir_all(&dir)
                .map_err(|error| self.not_made(&dir, error))?;
            // It may be there by a call that had no file handle left for the fsync.
            self.sync_dir(&self.root.join(CHUNKS_DIR))?;
            made.insert(dir.clone());
        }
        Ok(dir)
    }

    /// A directory that could not be made durably. If it is there, its fsync failed, and no later one
    /// would show that its name is not durable (I14).
    fn not_made(&self, dir: &Path, error: io::Error) -> StoreError {
        let listed = self.disk.list(dir);
        let missing = listed.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if missing || is_passing(&error) {
            self.write_error("making a directory", error)
        } else {
            self.fail_stop.fail(dir, &error)
        }
    }

    /// Makes the names of a directory durable, together with everyone who waits for the same.
    pub(super) fn sync_dir(&self, dir: &Path) -> Result<(), StoreError> {
        let group = Arc::clone(self.dirs().entry(dir.to_path_buf()).or_default());
        group
            .wait(|| self.disk.sync_dir(dir))
            .map(|_| ())
            .map_err(|error| self.fail_stop.fail(dir, &error))
    }

    fn dirs(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<GroupSync>>> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
