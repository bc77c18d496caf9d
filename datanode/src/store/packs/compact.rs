//! Giving room back: what is live in a pack that is mostly dead is copied into the open one, then the
//! pack is deleted. A crash at any step leaves each record once or twice, never less: the copies are
//! durable before the book names them, and the older pack goes last.

use std::io;
use std::sync::Arc;

use dfs_protocol::chunk::SealedChunk;

use super::book::{Place, Step, Worth};
use super::format::REMOVAL_LEN;
use super::{Body, Job};
use crate::store::ChunkRead;
use crate::store::error::StoreError;
use crate::store::files::Shared;
use crate::store::index::ReplicaKey;
use crate::store::layout::{PACKS_DIR, pack_path};
use crate::store::reader::RecordReader;

/// Bytes copied in one step.
const STEP: u64 = 1024 * 1024;
/// A pack is at most such a part of its volume.
const PACKS_OF_A_VOLUME: u64 = 64;

impl Shared {
    /// One step of compaction: the bytes that it wrote, or none when nothing is worth it. One caller
    /// at a time. Blocks.
    pub(in crate::store) fn compact(self: &Arc<Self>) -> Result<Option<u64>, StoreError> {
        self.fail_stop.check()?;
        if self.refusal.stands() {
            return Ok(None);
        }
        let room = self.space.room();
        let is_full = room
            .map_err(|error| StoreError::disk("asking for room", error))?
            .read_only;
        let worth = if is_full {
            Worth::OnAFullVolume
        } else {
            Worth::WithRoom
        };
        let pack_bytes = self.pack_bytes();
        let step = {
            let mut state = self.packs.lock();
            state.book.next_step(worth, pack_bytes, STEP)
        };
        let Some(step) = step else {
            return Ok(None);
        };
        let needed = match &step {
            Step::Move(entries) => entries.iter().map(|(_, place)| place.length).sum(),
            Step::Carry(keys) => keys.len() as u64 * REMOVAL_LEN,
            Step::Unlink(_) | Step::Weigh | Step::Close(_) => 0,
        };
        let room = self.space.reserve_last(needed);
        let room = room.map_err(|error| StoreError::disk("asking for room", error))?;
        let Ok(_reserved) = room else {
            // A full volume: what makes no room by itself waits.
            return Ok(None);
        };
        match step {
            Step::Move(entries) => self.move_entries(entries)?,
            Step::Carry(keys) => self.append(keys.into_iter().map(Job::Carry).collect())?,
            Step::Unlink(number) => self.unlink_pack(number)?,
            // It writes nothing, but costs readers the lock: it is slowed down as what it may lead to.
            Step::Weigh => return Ok(Some(STEP)),
            Step::Close(number) => self.packs.close(number),
        }
        Ok(Some(needed))
    }

    /// About how large a pack becomes. What is live in one must fit beside it once the volume is full, into half of
    /// the hard share.
    pub(super) fn pack_bytes(&self) -> u64 {
        let share = self
            .space
            .last_capacity()
            .map(|bytes| bytes / PACKS_OF_A_VOLUME);
        self.packs.limits.pack.min(share.unwrap_or(u64::MAX))
    }

    fn move_entries(self: &Arc<Self>, entries: Vec<(ReplicaKey, Place)>) -> Result<(), StoreError> {
        let mut jobs = Vec::with_capacity(entries.len());
        for (key, place) in entries {
            match self.read_body(key, place) {
                Ok(Some(body)) => jobs.push(Job::Move(place, body)),
                // Gone meanwhile, or set aside: nothing to keep.
                Ok(None) | Err(StoreError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.append(jobs)
    }

    /// A live entry, verified. Damage sets it aside.
    fn read_body(
        self: &Arc<Self>,
        key: ReplicaKey,
        place: Place,
    ) -> Result<Option<Body>, StoreError> {
        let Some(replica) = self.index.get(key) else {
            // Being removed, or retired: no room is needed for it.
            return self.forget_unserved(key, place);
        };
        let chunk: SealedChunk = replica.chunk;
        let reader = RecordReader::open(self, &chunk)?;
        let blocks = reader.blocks(0, u64::MAX)?;
        let mut data = Vec::with_capacity(usize::try_from(chunk.length).unwrap_or(0));
        for block in &blocks {
            data.extend_from_slice(&block.data);
        }
        Ok(Some(Body {
            header: reader.header().clone(),
            blocks: blocks.iter().map(|block| block.crc32c).collect(),
            data,
        }))
    }

    /// An entry whose removal failed, or is still on its way, is removed before its pack goes.
    fn forget_unserved(&self, key: ReplicaKey, place: Place) -> Result<Option<Body>, StoreError> {
        if self.packs.place(key) == Some(place) {
            self.append(vec![Job::Forget(key, place, None)])?;
        }
        Ok(None)
    }

    /// Deletes a pack. Its name is gone durably before anything relies on that: until then the
    /// removals that cover its entries are kept.
    fn unlink_pack(&self, number: u64) -> Result<(), StoreError> {
        match self.disk.remove(&pack_path(&self.root, number)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::disk("deleting a pack", error)),
        }
        self.sync_dir(&self.root.join(PACKS_DIR))?;
        let mut state = self.packs.lock();
        let gone = state.book.drop_pack(number);
        state.salts.remove(&number);
        let file = state.handles.files.remove(&number);
        self.metrics.packs.compactions.inc();
        self.metrics.packs.set(state.book.totals());
        drop(state);
        // The last handle of a file without a name: closing it gives its blocks back, which takes a while.
        drop((file, gone));
        Ok(())
    }
}
