mod crashes;
mod damage;
mod durability;
mod kept;
mod pack_races;
mod packs;
mod small;
mod speed;
mod starts;
mod takers;
mod write_modes;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_protocol::checksum::crc32c;
use dfs_protocol::chunk::{BLOCK_SIZE, BLOCK_SIZE_U64, ChunkKind, ChunkOrigin, SealedChunk};
use dfs_protocol::datanode::WriteMode;
use dfs_protocol::{ChunkId, ChunkVersion, ClusterId, DatanodeId, FileId};
use dfs_runtime::disk::SharedDisk;
use dfs_runtime::rng::SharedRng;

use super::layout::chunk_path;
use super::*;
use crate::metrics::StoreMetrics;
use crate::testing::{TestClock, TestDisk};

pub(crate) const CLUSTER: ClusterId = ClusterId::from_u128(0xc);

/// A store in a temporary directory, with a disk that records and fails.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) disk: TestDisk,
    pub(crate) limits: PackLimits,
    pub(crate) opened: Opened,
}

/// One run of a store.
pub(crate) struct Opened {
    pub(crate) store: FileChunkStore,
    pub(crate) metrics: StoreMetrics,
    _volume: Volume,
}

impl std::ops::Deref for Bench {
    type Target = Opened;

    fn deref(&self) -> &Opened {
        &self.opened
    }
}

impl Bench {
    /// With a file for each chunk.
    pub(crate) fn new() -> Self {
        Self::with(PackLimits::NONE)
    }

    /// With small chunks in packs.
    pub(crate) fn packed() -> Self {
        Self::with(PackLimits::default())
    }

    /// Both layouts.
    pub(crate) fn both() -> [Self; 2] {
        [Self::new(), Self::packed()]
    }

    pub(crate) fn with(limits: PackLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = TestDisk::default();
        let opened = open(disk.shared(), dir.path(), limits);
        Self {
            dir,
            disk,
            limits,
            opened,
        }
    }

    /// The same volume after a restart.
    pub(crate) fn restart(self) -> Self {
        let limits = self.limits;
        self.restart_with(limits)
    }

    /// The same volume after a restart with other settings.
    pub(crate) fn restart_with(self, limits: PackLimits) -> Self {
        let Self {
            dir, disk, opened, ..
        } = self;
        drop(opened);
        let opened = open(disk.shared(), dir.path(), limits);
        Self {
            dir,
            disk,
            limits,
            opened,
        }
    }

    pub(crate) fn root(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, chunk: &SealedChunk) -> PathBuf {
        chunk_path(self.root(), chunk.id, chunk.version)
    }

    pub(crate) fn names(&self, dir: &str) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.root().join(dir))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Opened {
    pub(crate) fn put(&self, id: u128, data: &[u8]) -> SealedChunk {
        let (staged, chunk) = self.stage(id, data);
        staged.seal(&chunk).unwrap();
        chunk
    }

    pub(crate) fn stage(&self, id: u128, data: &[u8]) -> (Box<dyn StagedChunk>, SealedChunk) {
        let mut staged = self.store.begin(&new_chunk(id, data.len() as u64)).unwrap();
        append(staged.as_mut(), 0, data).unwrap();
        (staged, sealed(id, data))
    }

    pub(crate) fn read(&self, chunk: &SealedChunk) -> Result<Vec<u8>, StoreError> {
        let reader = self.store.open(chunk.id, chunk.version)?;
        let blocks = reader.blocks(0, u64::MAX)?;
        Ok(blocks.iter().flat_map(|b| b.data.to_vec()).collect())
    }
}

pub(crate) fn open(disk: SharedDisk, root: &Path, packs: PackLimits) -> Opened {
    try_open(disk, root, packs).unwrap()
}

/// As [`open`], of a disk that may refuse.
pub(crate) fn try_open(disk: SharedDisk, root: &Path, packs: PackLimits) -> io::Result<Opened> {
    try_open_writing(disk, root, packs, WriteMode::Buffered)
}

/// As [`try_open`], of a store that writes large chunks in one way.
pub(crate) fn try_open_writing(
    disk: SharedDisk,
    root: &Path,
    packs: PackLimits,
    writes: WriteMode,
) -> io::Result<Opened> {
    let metrics = StoreMetrics::register(&prometheus::Registry::new()).unwrap();
    let space = SpaceLimits {
        reserve_bytes: 1024,
        ..SpaceLimits::default()
    };
    let fresh = DatanodeId::from_u128(1);
    let volume = Volume::open(Arc::clone(&disk), root, fresh).map_err(io::Error::other)?;
    volume.adopt(CLUSTER).map_err(io::Error::other)?;
    let seams = StoreSeams {
        disk,
        clock: Arc::new(TestClock::default()),
        rng: SharedRng::from_seed(7),
        metrics: metrics.clone(),
        identity: volume.identity(),
    };
    let config = StoreConfig {
        space,
        packs,
        writes,
    };
    let store = FileChunkStore::open(seams, root, config)?;
    Ok(Opened {
        store,
        metrics,
        _volume: volume,
    })
}

pub(crate) fn new_chunk(id: u128, expected: u64) -> NewChunk {
    NewChunk {
        cluster: CLUSTER,
        id: ChunkId::from_u128(id),
        version: ChunkVersion::FIRST,
        origin: ChunkOrigin {
            kind: ChunkKind::Data,
            file: FileId::from_u128(0xf),
            index: 2,
            path_hint: "a/b.txt".into(),
        },
        expected,
    }
}

pub(crate) fn sealed(id: u128, data: &[u8]) -> SealedChunk {
    SealedChunk {
        id: ChunkId::from_u128(id),
        version: ChunkVersion::FIRST,
        length: data.len() as u64,
        crc32c: crc32c(data),
    }
}

pub(crate) fn append(
    staged: &mut dyn StagedChunk,
    from: u64,
    data: &[u8],
) -> Result<(), StoreError> {
    for (block, offset) in data.chunks(BLOCK_SIZE).zip((from..).step_by(BLOCK_SIZE)) {
        staged.append(offset, &Bytes::copy_from_slice(block), crc32c(block))?;
    }
    Ok(())
}

pub(crate) fn bytes(length: usize) -> Vec<u8> {
    (0..=250u8).cycle().take(length).collect()
}

#[test]
fn chunks_of_every_awkward_length_come_back_whole_also_after_a_restart() {
    for bench in Bench::both() {
        let lengths = [0, 1, 65_535, 65_536, 65_537, 200_000];
        let chunks: Vec<_> = (0u128..)
            .zip(lengths)
            .map(|(id, length)| bench.put(id << 120 | 1, &bytes(length)))
            .collect();
        let before = bench.store.index().delta().digest;
        let bench = bench.restart();
        assert_eq!(bench.store.index().delta().digest, before);
        for chunk in &chunks {
            let length = usize::try_from(chunk.length).unwrap();
            assert_eq!(bench.read(chunk).unwrap(), bytes(length));
            let reader = bench.store.open(chunk.id, chunk.version).unwrap();
            assert!(reader.whole_matches());
            assert_eq!(reader.header().origin.path_hint, "a/b.txt");
        }
    }
}

#[test]
fn a_range_of_blocks_is_cut_at_the_chunks_end() {
    for bench in Bench::both() {
        let chunk = bench.put(1, &bytes(200_000));
        let reader = bench.store.open(chunk.id, chunk.version).unwrap();
        let blocks = reader.blocks(2, 7).unwrap();
        let offsets: Vec<_> = blocks.iter().map(|b| b.offset).collect();
        assert_eq!(offsets, [2 * BLOCK_SIZE_U64, 3 * BLOCK_SIZE_U64]);
        assert!(reader.blocks(4, 1).unwrap().is_empty());
        assert!(reader.blocks(u64::MAX, u64::MAX).unwrap().is_empty());
    }
}

#[test]
fn i32_blocks_that_break_the_rules_are_refused() {
    for bench in Bench::both() {
        let mut staged = bench.store.begin(&new_chunk(1, 100)).unwrap();
        let data = Bytes::from(bytes(BLOCK_SIZE + 1));
        let (x, y) = (Bytes::from_static(b"x"), Bytes::from_static(b"y"));
        assert!(staged.append(1, &x, crc32c(b"x")).is_err(), "offset");
        assert!(staged.append(0, &Bytes::new(), 0).is_err(), "empty");
        assert!(staged.append(0, &data, crc32c(&data)).is_err(), "long");
        assert!(staged.append(0, &x, 1).is_err(), "checksum");
        staged.append(0, &x, crc32c(b"x")).unwrap();
        assert!(staged.append(1, &y, crc32c(b"y")).is_err(), "after short");
        let wrong = sealed(1, b"y");
        assert!(matches!(
            staged.seal(&wrong),
            Err(StoreError::Mismatch { .. })
        ));
        assert!(bench.names("staging").is_empty());
        assert!(bench.store.index().keys(None).is_empty());
    }
}

#[test]
fn a_chunk_has_one_writer_and_is_sealed_once() {
    for bench in Bench::both() {
        let (staged, chunk) = bench.stage(1, b"abc");
        assert!(matches!(
            bench.store.begin(&new_chunk(1, 3)),
            Err(StoreError::InProgress { .. })
        ));
        staged.seal(&chunk).unwrap();
        assert!(matches!(
            bench.store.begin(&new_chunk(1, 3)),
            Err(StoreError::AlreadySealed { .. })
        ));
    }
}

#[test]
fn a_broken_attempt_goes_on_from_a_confirmed_length_under_a_new_version() {
    for bench in Bench::both() {
        let data = bytes(5 * BLOCK_SIZE + 10);
        let (mut staged, mut chunk) = bench.stage(1, &data);
        let resume = Resume {
            version: ChunkVersion(1),
            length: 2 * BLOCK_SIZE_U64,
        };
        assert!(staged.resume(ChunkVersion(1), &resume).is_err());
        staged.resume(ChunkVersion(2), &resume).unwrap();
        assert_eq!(staged.length(), 2 * BLOCK_SIZE_U64);
        let mut other = data.clone();
        other[3 * BLOCK_SIZE] ^= 1;
        append(
            staged.as_mut(),
            2 * BLOCK_SIZE_U64,
            &other[2 * BLOCK_SIZE..],
        )
        .unwrap();
        chunk.version = ChunkVersion(2);
        chunk.crc32c = crc32c(&other);
        staged.seal(&chunk).unwrap();
        assert_eq!(bench.restart().read(&chunk).unwrap(), other);
    }
}

#[test]
fn an_attempt_shorter_than_confirmed_cannot_be_resumed() {
    for bench in Bench::both() {
        let (mut staged, _) = bench.stage(1, &bytes(BLOCK_SIZE));
        for length in [2 * BLOCK_SIZE_U64, 10] {
            let resume = Resume {
                version: ChunkVersion(1),
                length,
            };
            assert!(staged.resume(ChunkVersion(2), &resume).is_err());
        }
    }
}

#[test]
fn i09_a_removed_replica_stays_gone_and_only_the_named_version_goes() {
    for bench in Bench::both() {
        let chunk = bench.put(1, b"abc");
        let (id, version) = (chunk.id, chunk.version);
        let remove = |version, kind| bench.store.remove(id, version, kind);
        assert!(!remove(ChunkVersion(2), ChunkKind::Data).unwrap());
        assert!(remove(version, ChunkKind::Checkpoint).is_err());
        assert!(bench.read(&chunk).is_ok());
        assert!(remove(version, ChunkKind::Data).unwrap());
        assert!(!remove(version, ChunkKind::Data).unwrap());
        let bench = bench.restart();
        assert!(bench.store.index().keys(None).is_empty());
    }
}

#[test]
fn a_retired_volume_shows_none_of_its_chunks_and_can_be_purged() {
    let bench = Bench::new();
    bench.put(1, b"abc");
    bench.put(7 << 120, b"def");
    bench.store.retire_all().unwrap();
    let bench = bench.restart();
    assert!(bench.store.index().keys(None).is_empty());
    assert_eq!(bench.names("retired").len(), 2);
    assert_eq!(bench.store.purge_retired().unwrap(), 2);
    assert!(bench.names("retired").is_empty());
}

#[test]
fn i32_a_store_of_unknown_ids_says_not_found() {
    for bench in Bench::both() {
        let id = DatanodeId::from_u128(3).as_u128();
        assert!(matches!(
            bench.store.open(ChunkId::from_u128(id), ChunkVersion(1)),
            Err(StoreError::NotFound { .. })
        ));
    }
}
