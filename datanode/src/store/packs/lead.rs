//! Who writes: one thread at a time leads, for all who wait. Nobody waits for one that died.

use super::batch::Failure;
use super::format::REMOVAL_LEN;
use super::plan::Batch;
use super::{MutexGuard, Packs, PoisonError, State};
use crate::store::files::Shared;

impl Shared {
    /// Writes a batch for all who wait for it.
    pub(super) fn lead(&self, batch: Batch) {
        // Made before the lock is taken: should this thread die, the lock is given back first.
        let mut lead = Lead {
            shared: self,
            tickets: batch.jobs.iter().map(|job| job.ticket).collect(),
        };
        let written = self.write(&batch);
        let mut state = self.packs.lock();
        state.busy = false;
        state.settle(self, batch, written);
        self.metrics.packs.set(state.book.totals());
        let out = std::mem::take(&mut state.handles.out);
        drop(state);
        self.packs.done.notify_all();
        lead.tickets.clear();
        drop(out);
    }
}

/// The thread that writes a batch. Should it die, nobody knows what is on the disk: its jobs fail, and
/// the store stops.
struct Lead<'a> {
    shared: &'a Shared,
    /// Of the jobs that have no answer yet.
    tickets: Vec<u64>,
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if self.tickets.is_empty() {
            return;
        }
        let reason = "the thread that wrote a pack died".to_owned();
        let _told = self.shared.fail_stop.stop(reason.clone());
        let mut state = self.shared.packs.lock();
        state.busy = false;
        state.open = None;
        for ticket in std::mem::take(&mut self.tickets) {
            let answer = Err(Failure::Stopped(reason.clone()));
            state.queue.answers.entry(ticket).or_insert(answer);
        }
        drop(state);
        self.shared.packs.done.notify_all();
    }
}

impl Packs {
    pub(super) fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.done.wait(state);
        waited.unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no batch is being written, and keeps others from being.
    pub(in crate::store) fn halt(&self) -> Halt<'_> {
        let mut state = self.lock();
        while state.busy {
            state = self.wait(state);
        }
        state.busy = true;
        Halt(self)
    }
}

impl Packs {
    /// The next batch begins a new pack. Waits for one that is being written: its pack must not be compacted under it.
    pub(super) fn close(&self, number: u64) {
        let halt = self.halt();
        let closed = self.lock().open.take_if(|pack| pack.number == number);
        if let Some(pack) = closed {
            pack.close();
            let mut state = self.lock();
            state.book.extend(number, pack.tail + REMOVAL_LEN);
            state.book.open = None;
        }
        drop(halt);
    }
}

/// No batch is written as long as this lives.
#[derive(Debug)]
pub(in crate::store) struct Halt<'a>(&'a Packs);

impl Drop for Halt<'_> {
    fn drop(&mut self) {
        self.0.lock().busy = false;
        self.0.done.notify_all();
    }
}
