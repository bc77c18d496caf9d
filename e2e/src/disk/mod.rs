//! Disks that break: one that loses what was not synced, one that fails on demand.

mod faults;
mod faulty;
mod names;
mod overlay;
mod volatile;

pub use faults::{CallKind, DiskCall, DiskFaults, Effect, Fault, FaultId, find_order};
pub use faulty::FaultyDisk;
pub use volatile::{VolatileDisk, VolatileFile};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panicking test thread must not hide the first failure behind a poisoned lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
