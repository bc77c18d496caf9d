//! Room on the tracker's volume. A full volume is refused before the engine meets it, and a ballast
//! file keeps enough aside that deletes still work (I15).

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use dfs_runtime::disk::{OpenMode, SharedDisk};

use super::kv::Room;

const BALLAST: &str = "ballast";
const STEP: usize = 1024 * 1024;

/// Watches the room in one directory.
#[derive(Debug)]
pub(super) struct RoomKeeper {
    disk: SharedDisk,
    dir: PathBuf,
    reserve: u64,
    ballast: u64,
    /// Bytes of ballast on disk now.
    held: Mutex<u64>,
}

impl RoomKeeper {
    /// Takes stock, and lays down ballast where there is room for it.
    pub(super) fn open(
        disk: SharedDisk,
        dir: PathBuf,
        reserve: u64,
        ballast: u64,
    ) -> io::Result<Self> {
        let held = disk
            .list(&dir)?
            .iter()
            .find(|entry| entry.name == BALLAST)
            .map_or(0, |entry| entry.length);
        let keeper = Self {
            disk,
            dir,
            reserve,
            ballast,
            held: Mutex::new(held),
        };
        keeper.room()?;
        Ok(keeper)
    }

    /// How much room there is now. Restores the ballast when the volume has grown or emptied.
    pub(super) fn room(&self) -> io::Result<Room> {
        let available = self.disk.space(&self.dir)?.available;
        if available < self.reserve {
            let held = *self.held.lock().unwrap_or_else(PoisonError::into_inner);
            // An eighth of the reserve is more than one bounded batch of deletes takes.
            let usable = available.saturating_add(held);
            return Ok(if usable < self.reserve / 8 {
                Room::Exhausted
            } else {
                Room::Low
            });
        }
        self.restore(available)?;
        Ok(Room::Ample)
    }

    /// Gives the ballast up, so that a transaction that frees room finds some.
    pub(super) fn release(&self) -> io::Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if *held == 0 {
            return Ok(());
        }
        self.disk.remove(&self.dir.join(BALLAST))?;
        self.disk.sync_dir(&self.dir)?;
        tracing::warn!(
            bytes = *held,
            "give up the ballast file: the volume is full"
        );
        *held = 0;
        Ok(())
    }

    fn restore(&self, available: u64) -> io::Result<()> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if *held >= self.ballast || available - self.reserve < self.ballast.saturating_mul(2) {
            return Ok(());
        }
        let file = self
            .disk
            .open(&self.dir.join(BALLAST), OpenMode::OpenOrCreate)?;
        // Written, not merely sized: a hole keeps no room.
        let zeroes = vec![0; STEP];
        while *held < self.ballast {
            let step = usize::try_from(self.ballast - *held).map_or(STEP, |left| left.min(STEP));
            if let Err(error) = file.write_all_at(&zeroes[..step], *held) {
                // Somebody else filled the volume meanwhile: what is there is ballast enough.
                tracing::warn!(%error, "the ballast file is shorter than configured");
                break;
            }
            *held += step as u64;
        }
        file.sync()
    }
}
