//! One fsync for everyone who waits: while one caller syncs, the next ones gather, and the first
//! of them syncs for all. No timer: grouping comes from the fsync's own duration.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Groups calls of one fsync.
#[derive(Debug, Default)]
pub struct GroupSync {
    state: Mutex<State>,
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    requested: u64,
    synced: u64,
    running: bool,
    /// Kind of the first error: an fsync that failed once proves nothing when it later succeeds.
    failed: Option<io::ErrorKind>,
}

impl GroupSync {
    /// Returns after a `sync` that began after this call, whoever ran it. The second value says
    /// whether this caller ran it. Blocks.
    pub fn wait(&self, sync: impl Fn() -> io::Result<()>) -> io::Result<bool> {
        let mut state = self.lock();
        state.requested += 1;
        let mine = state.requested;
        let mut ran = false;
        loop {
            if let Some(kind) = state.failed {
                return Err(kind.into());
            }
            if state.synced >= mine {
                return Ok(ran);
            }
            if state.running {
                state = self
                    .done
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            let upto = state.requested;
            drop(state);
            let result = sync();
            ran = true;
            state = self.lock();
            state.running = false;
            self.done.notify_all();
            match result {
                Ok(()) => state.synced = upto,
                Err(error) => {
                    state.failed = Some(error.kind());
                    return Err(error);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn i02_waiters_that_gather_behind_a_running_sync_share_the_next_one() {
        let group = GroupSync::default();
        let syncs = AtomicU64::new(0);
        let (started, on_start) = mpsc::channel();
        let (release, on_release) = mpsc::channel::<()>();
        let (group_ref, syncs_ref) = (&group, &syncs);
        std::thread::scope(|scope| {
            let first = scope.spawn(move || {
                group_ref.wait(|| {
                    started.send(()).unwrap();
                    on_release.recv().unwrap();
                    syncs_ref.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                })
            });
            on_start.recv().unwrap();
            let waiting: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        group.wait(|| {
                            syncs.fetch_add(1, Ordering::SeqCst);
                            Ok(())
                        })
                    })
                })
                .collect();
            while group.lock().requested < 9 {
                std::thread::yield_now();
            }
            // None may be content with the sync that began before it asked.
            assert_eq!(group.lock().synced, 0);
            release.send(()).unwrap();
            first.join().unwrap().unwrap();
            for waiter in waiting {
                waiter.join().unwrap().unwrap();
            }
        });
        assert_eq!(syncs.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn i14_after_a_failed_sync_no_later_one_is_believed() {
        let group = GroupSync::default();
        assert!(group.wait(|| Err(io::Error::other("EIO"))).is_err());
        assert!(group.wait(|| Ok(())).is_err());
    }
}
