//! The volume's identity, its lock and the fence that it has accepted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_protocol::{ClusterId, DatanodeId, Fence};
use dfs_runtime::disk::{DiskLock, SharedDisk, read_whole, replace_durably};
use serde::{Deserialize, Serialize};

use super::layout::{CHUNKS_DIR, DIRECTORIES, LOCK_FILE, PACKS_DIR, VOLUME_FILE};

/// The layout of a volume without packs.
const FORMAT: u32 = 1;
/// That of one which has, or had, packs. A program that knows only the first one refuses it: it would
/// take every packed chunk for lost.
const PACKED_FORMAT: u32 = 2;
const MAX_VOLUME_FILE: u64 = 64 * 1024;

/// What `volume.json` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// Version of the volume's layout.
    pub format: u32,
    /// The cluster that it belongs to; none before the first admission.
    pub cluster: Option<ClusterId>,
    /// The datanode that it is.
    pub datanode: DatanodeId,
    /// The highest fence accepted.
    pub fence: Fence,
}

/// A volume that cannot be used. Every text says what, why and what next.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Another process has it.
    #[error(
        "the volume {path} is in use by another process; stop that process or give this one \
         another directory with --dir"
    )]
    Locked {
        /// The volume.
        path: PathBuf,
    },
    /// It belongs to another cluster.
    #[error(
        "the volume {path} belongs to cluster {volume}, the tracker serves cluster {tracker}; \
         point the datanode at its own tracker, or give it an empty directory"
    )]
    ForeignCluster {
        /// The volume.
        path: PathBuf,
        /// What is written on it.
        volume: ClusterId,
        /// What was expected.
        tracker: ClusterId,
    },
    /// The tracker says that it belongs to another cluster.
    #[error(
        "the tracker refuses the volume {path}: {detail}; point the datanode at its own tracker, or \
         give it an empty directory"
    )]
    Refused {
        /// The volume.
        path: PathBuf,
        /// In the tracker's words.
        detail: String,
    },
    /// Its identity cannot be read.
    #[error(
        "the volume {path} has chunks but no readable {VOLUME_FILE}: {detail}; restore that file \
         from a backup, or move the directory away and start with an empty one"
    )]
    Unreadable {
        /// The volume.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Written by a later program.
    #[error(
        "the volume {path} has layout {format}, this program knows {PACKED_FORMAT}; use a later one"
    )]
    LaterFormat {
        /// The volume.
        path: PathBuf,
        /// What is written on it.
        format: u32,
    },
    /// The fence is older than one already accepted.
    #[error("fence {offered} is not admitted: this volume has accepted {accepted}")]
    Fenced {
        /// The order's.
        offered: Fence,
        /// The volume's.
        accepted: Fence,
    },
    /// The disk failed.
    #[error("{doing} on the volume {path}")]
    Disk {
        /// The volume.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// An open volume; the lock is held until it is dropped.
#[derive(Debug)]
pub struct Volume {
    identity: Arc<Identity>,
    _lock: Box<dyn DiskLock>,
}

/// What `volume.json` says, for the volume and its chunk store.
#[derive(Debug)]
pub struct Identity {
    disk: SharedDisk,
    root: PathBuf,
    record: Mutex<VolumeRecord>,
}

impl Volume {
    /// Opens the volume at `root`, making one with the identity `fresh` when the directory is
    /// empty or missing. Blocks.
    pub fn open(disk: SharedDisk, root: &Path, fresh: DatanodeId) -> Result<Self, VolumeError> {
        let failed = |doing| {
            move |source| VolumeError::Disk {
                path: root.to_path_buf(),
                doing,
                source,
            }
        };
        disk.create_dir_all(root)
            .map_err(failed("making the directory"))?;
        let lock = disk.lock(&root.join(LOCK_FILE)).map_err(|source| {
            if source.kind() == io::ErrorKind::WouldBlock {
                let path = root.to_path_buf();
                VolumeError::Locked { path }
            } else {
                failed("taking the lock")(source)
            }
        })?;
        let record = match read_whole(disk.as_ref(), &root.join(VOLUME_FILE), MAX_VOLUME_FILE) {
            Ok(bytes) => parse(root, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                refuse_orphaned_chunks(&disk, root)?;
                VolumeRecord {
                    format: FORMAT,
                    cluster: None,
                    datanode: fresh,
                    fence: Fence::default(),
                }
            }
            Err(source) => return Err(failed("reading volume.json")(source)),
        };
        for dir in DIRECTORIES {
            disk.create_dir_all(&root.join(dir))
                .map_err(failed("making the directories"))?;
        }
        // What is there may be by a process that was killed before its name was durable.
        disk.sync_dir(root)
            .map_err(failed("syncing the directory"))?;
        let identity = Identity {
            disk,
            root: root.to_path_buf(),
            record: Mutex::new(record),
        };
        if record.datanode == fresh {
            identity.write(&record)?;
        }
        Ok(Self {
            identity: Arc::new(identity),
            _lock: lock,
        })
    }

    /// What is written on it, shared with the chunk store.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }

    /// What is written on it now.
    pub fn record(&self) -> VolumeRecord {
        *self.identity.lock()
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.identity.root
    }

    /// Writes the cluster on a fresh volume; a volume of another cluster is refused (fault 35).
    /// Durable on return. Blocks.
    pub fn adopt(&self, cluster: ClusterId) -> Result<(), VolumeError> {
        let mut record = self.identity.lock();
        match record.cluster {
            Some(own) if own == cluster => Ok(()),
            Some(own) => Err(VolumeError::ForeignCluster {
                path: self.identity.root.clone(),
                volume: own,
                tracker: cluster,
            }),
            None => {
                let mut next = *record;
                next.cluster = Some(cluster);
                self.identity.write(&next)?;
                *record = next;
                Ok(())
            }
        }
    }

    /// Takes an order's fence: a higher one is written down before this returns, an older or
    /// rival one is refused (I8, I20). Blocks when it must write.
    pub fn accept(&self, offered: Fence) -> Result<(), VolumeError> {
        let mut record = self.identity.lock();
        if record.fence == offered {
            return Ok(());
        }
        if !record.fence.admits(offered) {
            return Err(VolumeError::Fenced {
                offered,
                accepted: record.fence,
            });
        }
        let mut next = *record;
        next.fence = offered;
        self.identity.write(&next)?;
        *record = next;
        Ok(())
    }

    /// Takes a new identity; the fence and the cluster stay. Blocks.
    pub fn rename(&self, datanode: DatanodeId) -> Result<(), VolumeError> {
        let mut record = self.identity.lock();
        let mut next = *record;
        next.datanode = datanode;
        self.identity.write(&next)?;
        *record = next;
        Ok(())
    }
}

impl Identity {
    /// The cluster that the volume belongs to.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.lock().cluster
    }

    /// Notes that the volume has packs, before the first one is made. Durable on return. Blocks.
    pub fn mark_packed(&self) -> io::Result<()> {
        let mut record = self.lock();
        if record.format >= PACKED_FORMAT {
            return Ok(());
        }
        let mut next = *record;
        next.format = PACKED_FORMAT;
        self.write(&next).map_err(|error| match error {
            VolumeError::Disk { source, .. } => source,
            other => io::Error::other(other),
        })?;
        *record = next;
        Ok(())
    }

    fn write(&self, record: &VolumeRecord) -> Result<(), VolumeError> {
        let failed = |source| VolumeError::Disk {
            path: self.root.clone(),
            doing: "writing volume.json",
            source,
        };
        let mut json = serde_json::to_vec_pretty(record).map_err(|e| failed(e.into()))?;
        json.push(b'\n');
        replace_durably(self.disk.as_ref(), &self.root, VOLUME_FILE, &json).map_err(failed)
    }

    fn lock(&self) -> MutexGuard<'_, VolumeRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(root: &Path, bytes: &[u8]) -> Result<VolumeRecord, VolumeError> {
    #[derive(Deserialize)]
    struct Versioned {
        format: u32,
    }
    let unreadable = |error: serde_json::Error| VolumeError::Unreadable {
        path: root.to_path_buf(),
        detail: error.to_string(),
    };
    // The version first: a later layout may have other fields.
    let Versioned { format } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if !(FORMAT..=PACKED_FORMAT).contains(&format) {
        let path = root.to_path_buf();
        return Err(VolumeError::LaterFormat { path, format });
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}

/// A volume that lost its identity must not quietly become a newcomer that owns its old chunks.
fn refuse_orphaned_chunks(disk: &SharedDisk, root: &Path) -> Result<(), VolumeError> {
    let dirs = disk.list(&root.join(CHUNKS_DIR)).unwrap_or_default();
    let holds_files = dirs.iter().any(|dir| {
        dir.is_dir
            && disk
                .list(&root.join(CHUNKS_DIR).join(&dir.name))
                .is_ok_and(|files| !files.is_empty())
    });
    let holds_packs = disk
        .list(&root.join(PACKS_DIR))
        .is_ok_and(|packs| !packs.is_empty());
    if holds_files || holds_packs {
        return Err(VolumeError::Unreadable {
            path: root.to_path_buf(),
            detail: "the file is missing".to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use dfs_protocol::{Epoch, Incarnation};
    use dfs_runtime::disk::RealDisk;

    use super::*;

    const ID: DatanodeId = DatanodeId::from_u128(1);

    #[test]
    fn i02_a_start_makes_the_directories_durable_that_a_killed_one_made() {
        let disk = crate::testing::sim::SimDisk::default();
        let root = Path::new("/v");
        drop(Volume::open(disk.shared(), root, ID).unwrap());
        let chunks = root.join(CHUNKS_DIR);
        disk.unsync_dir(&chunks);
        let disk = disk.after_death();
        let other = DatanodeId::from_u128(2);
        let volume = Volume::open(disk.shared(), root, other).unwrap();
        assert_eq!(volume.record().datanode, ID);
        for seed in 0..8 {
            let left = disk.after_power_cut(&mut fastrand::Rng::with_seed(seed));
            assert!(left.shared().list(&chunks).is_ok(), "seed {seed}");
        }
    }

    fn open(dir: &Path) -> Result<Volume, VolumeError> {
        Volume::open(RealDisk::shared(), dir, ID)
    }

    fn fence(epoch: u64, incarnation: u64) -> Fence {
        Fence {
            epoch: Epoch(epoch),
            incarnation: Incarnation(incarnation),
        }
    }

    #[test]
    fn i21_identity_and_fence_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let volume = open(dir.path()).unwrap();
        volume.adopt(ClusterId::from_u128(5)).unwrap();
        volume.accept(fence(3, 9)).unwrap();
        let record = volume.record();
        drop(volume);
        let again = Volume::open(RealDisk::shared(), dir.path(), DatanodeId::from_u128(2)).unwrap();
        assert_eq!(again.record(), record);
        assert_eq!(again.record().datanode, ID);
    }

    #[test]
    fn i20_a_rival_or_older_fence_is_refused_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let volume = open(dir.path()).unwrap();
        volume.accept(fence(3, 9)).unwrap();
        drop(volume);
        let volume = open(dir.path()).unwrap();
        for deposed in [fence(2, 9), fence(3, 8), fence(0, 0)] {
            assert!(matches!(
                volume.accept(deposed),
                Err(VolumeError::Fenced { .. })
            ));
        }
        volume.accept(fence(4, 1)).unwrap();
        assert!(volume.accept(fence(3, 9)).is_err());
    }

    #[test]
    fn fault_31_a_second_process_is_kept_off_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let _volume = open(dir.path()).unwrap();
        assert!(matches!(open(dir.path()), Err(VolumeError::Locked { .. })));
    }

    #[test]
    fn fault_35_a_volume_of_another_cluster_is_refused_with_both_names() {
        let dir = tempfile::tempdir().unwrap();
        let volume = open(dir.path()).unwrap();
        volume.adopt(ClusterId::from_u128(5)).unwrap();
        let error = volume.adopt(ClusterId::from_u128(6)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("00005") && text.contains("00006"), "{text}");
        assert!(text.contains("empty directory"), "{text}");
        assert_eq!(volume.record().cluster, Some(ClusterId::from_u128(5)));
    }

    #[test]
    fn i32_a_volume_file_of_any_content_is_refused_with_what_to_do() {
        for content in [
            "",
            "{",
            "[]",
            "{\"format\":1}",
            "{\"format\":0}",
            "{\"format\":9}",
        ] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(VOLUME_FILE), content).unwrap();
            assert!(open(dir.path()).is_err(), "{content}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("chunks/ab")).unwrap();
        std::fs::write(dir.path().join("chunks/ab/x"), "x").unwrap();
        assert!(matches!(
            open(dir.path()),
            Err(VolumeError::Unreadable { .. })
        ));
    }

    #[test]
    fn a_volume_with_packs_says_so_and_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        let volume = open(dir.path()).unwrap();
        assert_eq!(volume.record().format, 1);
        volume.identity().mark_packed().unwrap();
        volume.adopt(ClusterId::from_u128(5)).unwrap();
        let record = volume.record();
        assert_eq!(record.format, 2);
        drop(volume);
        assert_eq!(open(dir.path()).unwrap().record(), record);
    }

    #[test]
    fn packs_without_a_volume_file_are_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("packs")).unwrap();
        std::fs::write(dir.path().join("packs/x"), "x").unwrap();
        assert!(matches!(
            open(dir.path()),
            Err(VolumeError::Unreadable { .. })
        ));
    }
}
