//! Randomness as an argument: a role gets one source, a test gives it a seed.

use std::sync::{Arc, Mutex, PoisonError};

/// A source of randomness that a role's tasks share.
#[derive(Debug, Clone)]
pub struct SharedRng(Arc<Mutex<fastrand::Rng>>);

impl SharedRng {
    /// Seeded by the operating system.
    pub fn from_entropy() -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::new())))
    }

    /// The same numbers for the same seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// An independent source for a planner or a sub-task.
    pub fn fork(&self) -> fastrand::Rng {
        self.with(fastrand::Rng::fork)
    }

    /// 128 random bits, for ids.
    pub fn u128(&self) -> u128 {
        self.with(|rng| rng.u128(..))
    }

    /// 64 random bits.
    pub fn u64(&self) -> u64 {
        self.with(|rng| rng.u64(..))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
