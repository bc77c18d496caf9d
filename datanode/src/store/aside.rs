//! Damage found: what is damaged is served no more, kept for people, and told to the tracker.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use dfs_protocol::chunk::Replica;
use dfs_protocol::datanode::{CorruptReplica, Damage};
use dfs_protocol::{ChunkId, ChunkVersion};
use dfs_runtime::disk::OpenMode;

use super::claim::Claim;
use super::error::StoreError;
use super::files::Shared;
use super::index::ReplicaKey;
use super::layout::{QUARANTINE_DIR, chunk_name, chunk_path, pack_name, pack_path};
use super::packs::{Job, Ruin};

impl Shared {
    /// Stops serving a replica, moves its file away and lets the tracker know.
    pub(super) fn set_aside(self: &Arc<Self>, id: ChunkId, version: ChunkVersion, damage: Damage) {
        let replica = CorruptReplica {
            chunk: id,
            version,
            damage,
        };
        // A copy that is sealed under this name meanwhile, which may be the repair, must keep its file.
        let Some(claim) = Claim::hold(self, (id, version)) else {
            return;
        };
        // Of several readers that find the damage, one moves the file.
        if self.index.remove_corrupt(replica).is_none() {
            return;
        }
        if self.packs.place((id, version)).is_some() {
            // An entry is forgotten by its place, not by its name.
            drop(claim);
            self.quarantine_packed(&replica);
        } else {
            let path = chunk_path(&self.root, id, version);
            self.keep_damaged(&replica, |target| {
                let moved = self.disk.rename(&path, target);
                drop(claim);
                moved
            });
        }
    }

    pub(super) fn quarantine(&self, path: &Path, replica: &CorruptReplica) {
        self.keep_damaged(replica, |target| self.disk.rename(path, target));
    }

    /// Keeps a copy of a damaged entry; the entry itself is dead from here on.
    pub(super) fn quarantine_packed(&self, replica: &CorruptReplica) {
        let key = (replica.chunk, replica.version);
        let Some(place) = self.packs.place(key) else {
            return;
        };
        let to = place.offset + place.length;
        self.keep_damaged(replica, |target| {
            self.packs.copy_out(place.pack, place.offset, to, target)
        });
        forgotten(key, &self.forget(key, None));
    }

    /// Acknowledged bytes of a pack that say nothing any more: which chunks they were is told by their
    /// absence from the report. A copy is kept, once.
    pub(super) fn quarantine_ruin(&self, ruin: Ruin) {
        let Ruin { pack, from, to } = ruin;
        let dir = self.root.join(QUARANTINE_DIR);
        let damage = Damage::Header;
        let name = format!("{}.{from}.{}", pack_name(pack), damage.as_str());
        let target = dir.join(&name);
        if self.disk.open(&target, OpenMode::Read).is_ok() {
            return;
        }
        self.metrics.corrupt(damage).inc();
        self.quarantined.fetch_add(1, Ordering::Relaxed);
        let kept = if self.packs.knows(pack) {
            self.packs.copy_out(pack, from, to, &target)
        } else {
            self.disk.rename(&pack_path(&self.root, pack), &target)
        };
        // Of what cannot be read whole there is a part.
        let kept = kept.and(self.disk.sync_dir(&dir));
        tracing::warn!(
            pack,
            from,
            to,
            file = name,
            error = kept.err().map(tracing::field::display),
            "a part of a pack is damaged; the tracker will have what was in it repaired"
        );
    }

    /// Makes it durable that a packed entry is gone which was taken out of the index. What was sealed
    /// under its name since then stays; where compaction moved it, it is looked for again.
    pub(super) fn forget(
        &self,
        key: ReplicaKey,
        replica: Option<Replica>,
    ) -> Result<(), StoreError> {
        // The place first: a seal enters both in one step.
        while let Some(place) = self.packs.place(key) {
            if self.index.get(key).is_some() {
                break;
            }
            self.append(vec![Job::Forget(key, place, replica)])?;
        }
        Ok(())
    }

    /// Forgets a packed entry beside a file of the same chunk.
    pub(super) fn forget_shadow(&self, key: ReplicaKey) {
        if let Some(place) = self.packs.place(key) {
            forgotten(key, &self.append(vec![Job::Shadow(key, place)]));
        }
    }

    fn keep_damaged(&self, replica: &CorruptReplica, keep: impl FnOnce(&Path) -> io::Result<()>) {
        let CorruptReplica {
            chunk,
            version,
            damage,
        } = *replica;
        self.metrics.corrupt(damage).inc();
        let number = self.quarantined.fetch_add(1, Ordering::Relaxed);
        let name = format!(
            "{}.{}.{number}",
            chunk_name(chunk, version),
            damage.as_str()
        );
        let dir = self.root.join(QUARANTINE_DIR);
        let moved = keep(&dir.join(&name)).and(self.disk.sync_dir(&dir));
        tracing::warn!(
            %chunk, %version, damage = damage.as_str(), file = name,
            error = moved.err().map(tracing::field::display),
            "set a damaged replica aside; the tracker will have it repaired"
        );
    }
}

fn forgotten(key: ReplicaKey, done: &Result<(), StoreError>) {
    if let Err(error) = done {
        tracing::warn!(
            chunk = %key.0, version = %key.1, error = error.describe(),
            "a packed entry that is not to be served may come back with the next start"
        );
    }
}
