//! Room on the volume: how much chunks may still take, with what open writes will need set apart.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dfs_runtime::disk::{SharedDisk, Space};

/// When a volume stops taking chunks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpaceLimits {
    /// No new chunk while less than this share of the volume is free.
    pub soft_fraction: f64,
    /// No chunk may eat into this share.
    pub hard_fraction: f64,
    /// Nor into these bytes, if they are more.
    pub reserve_bytes: u64,
}

impl Default for SpaceLimits {
    fn default() -> Self {
        Self {
            soft_fraction: 0.10,
            hard_fraction: 0.05,
            reserve_bytes: 256 * 1024 * 1024,
        }
    }
}

impl SpaceLimits {
    /// So many bytes, whatever share of the volume they are.
    pub const fn exactly(reserve_bytes: u64) -> Self {
        Self {
            soft_fraction: 0.0,
            hard_fraction: 0.0,
            reserve_bytes,
        }
    }
}

/// The volume's room at one moment, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Of the volume.
    pub capacity: u64,
    /// That chunks may still take.
    pub free: u64,
    /// That chunks never take.
    pub reserve: u64,
    /// No new chunk is taken.
    pub read_only: bool,
}

/// Too little room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// Bytes that chunks may still take.
    pub free: u64,
}

/// Keeps the volume's reserve.
#[derive(Debug)]
pub struct SpaceGuard {
    disk: SharedDisk,
    root: PathBuf,
    limits: SpaceLimits,
    /// Bytes that open writes have yet to write.
    promised: AtomicU64,
    /// Of the volume when it was last looked at; none before.
    capacity: AtomicU64,
}

impl SpaceGuard {
    /// Watches the file system of `root`.
    pub fn new(disk: SharedDisk, root: PathBuf, limits: SpaceLimits) -> Arc<Self> {
        Arc::new(Self {
            disk,
            root,
            limits,
            promised: AtomicU64::new(0),
            capacity: AtomicU64::new(0),
        })
    }

    /// The room now. Asks the file system.
    pub fn room(&self) -> io::Result<Room> {
        let space = self.disk.space(&self.root)?;
        self.capacity.store(space.total, Ordering::Relaxed);
        let available = self.available(space);
        let free = available.saturating_sub(self.hard(space.total));
        let read_only = free == 0 || available < self.soft(space.total);
        Ok(Room {
            capacity: space.total,
            free,
            reserve: self.hard(space.total),
            read_only,
        })
    }

    /// Bytes of the volume when [`SpaceGuard::room`] last looked, without asking again.
    pub fn last_capacity(&self) -> Option<u64> {
        let capacity = self.capacity.load(Ordering::Relaxed);
        (capacity > 0).then_some(capacity)
    }

    /// Sets `expected` bytes apart, or says how much there is.
    pub fn reserve(self: &Arc<Self>, expected: u64) -> io::Result<Result<Reservation, Full>> {
        let room = self.room()?;
        if room.read_only || room.free < expected {
            return Ok(Err(Full { free: room.free }));
        }
        Ok(Ok(self.promise(expected)))
    }

    /// As [`SpaceGuard::reserve`], down to half of the hard share: for what a full volume needs to
    /// become less full.
    pub fn reserve_last(self: &Arc<Self>, expected: u64) -> io::Result<Result<Reservation, Full>> {
        let space = self.disk.space(&self.root)?;
        let free = self
            .available(space)
            .saturating_sub(self.hard(space.total) / 2);
        if free < expected {
            return Ok(Err(Full { free }));
        }
        Ok(Ok(self.promise(expected)))
    }

    fn promise(self: &Arc<Self>, bytes: u64) -> Reservation {
        self.promised.fetch_add(bytes, Ordering::AcqRel);
        Reservation {
            guard: Arc::clone(self),
            left: bytes,
        }
    }

    fn available(&self, space: Space) -> u64 {
        let promised = self.promised.load(Ordering::Acquire);
        space.available.saturating_sub(promised)
    }

    fn hard(&self, total: u64) -> u64 {
        share(total, self.limits.hard_fraction).max(self.limits.reserve_bytes)
    }

    fn soft(&self, total: u64) -> u64 {
        share(total, self.limits.soft_fraction).max(self.hard(total))
    }
}

/// Bytes set apart for one write; given back as they are written, the rest on drop.
#[derive(Debug)]
pub struct Reservation {
    guard: Arc<SpaceGuard>,
    left: u64,
}

impl Reservation {
    /// `written` bytes are on the volume now and count as used.
    pub fn consume(&mut self, written: u64) {
        let taken = written.min(self.left);
        self.left -= taken;
        self.guard.promised.fetch_sub(taken, Ordering::AcqRel);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.consume(self.left);
    }
}

// A share of a volume needs no exact bytes, and is neither negative nor above the total.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn share(total: u64, fraction: f64) -> u64 {
    (total as f64 * fraction.clamp(0.0, 1.0)) as u64
}
