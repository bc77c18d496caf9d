//! Appending: jobs gather while a batch is made durable; the first of them then writes for all.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use dfs_protocol::chunk::Replica;
use dfs_runtime::disk::OpenMode;

use super::book::Place;
use super::format::{Entry, REMOVAL_LEN, Site};
use super::plan::{Batch, OpenOrNew, Planned};
use super::{Job, OpenPack, Packs, State};
use crate::store::error::StoreError;
use crate::store::files::Shared;
use crate::store::index::ReplicaKey;
use crate::store::layout::{PACKS_DIR, pack_path};

/// Bytes of one batch. A larger queue is written in several.
const MAX_BATCH: u64 = 8 * 1024 * 1024;

/// Jobs that wait, and answers that were not fetched yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<(u64, Job)>,
    answers: BTreeMap<u64, Result<(), Failure>>,
    tickets: u64,
}

/// Why a batch failed; each of its jobs is told the same.
#[derive(Debug, Clone)]
enum Failure {
    /// An fsync failed, in this batch or before.
    Stopped(String),
    /// The disk refused the write.
    Refused(io::ErrorKind, Option<i32>),
}

impl Failure {
    fn refused(error: &io::Error) -> Self {
        Self::Refused(error.kind(), error.raw_os_error())
    }

    fn error(self) -> StoreError {
        match self {
            Self::Stopped(reason) => StoreError::Failed { reason },
            Self::Refused(kind, os) => {
                let source = os.map_or_else(|| kind.into(), io::Error::from_raw_os_error);
                StoreError::disk("writing a pack", source)
            }
        }
    }
}

impl Shared {
    /// Appends jobs in this order. They are durable on return, and so is everything that was
    /// appended before them. Blocks.
    pub(in crate::store) fn append(&self, jobs: Vec<Job>) -> Result<(), StoreError> {
        let mut state = self.packs.lock();
        let tickets = state.queue.add(jobs);
        self.metrics.packs.waiting.set(state.queue.length());
        loop {
            if let Some(answer) = state.queue.collect(&tickets) {
                return answer.map_err(Failure::error);
            }
            if state.busy {
                state = self.packs.wait(state);
                continue;
            }
            state.busy = true;
            let batch = state.plan(&self.packs);
            self.metrics.packs.waiting.set(state.queue.length());
            drop(state);
            let written = self.write(&batch);
            state = self.packs.lock();
            state.busy = false;
            state.settle(self, batch, written);
            self.metrics.packs.set(state.book.totals());
            self.packs.done.notify_all();
        }
    }

    /// One write, one fsync; the name of a new pack is durable before anything in it is answered
    /// for. On failure nothing of the batch is left in the pack, or the pack takes no more.
    fn write(&self, batch: &Batch) -> Result<Option<OpenPack>, Failure> {
        let stopped = |error: &StoreError| match error {
            StoreError::Failed { reason } => Failure::Stopped(reason.clone()),
            other => Failure::Stopped(other.to_string()),
        };
        self.fail_stop.check().map_err(|error| stopped(&error))?;
        let entries = batch.jobs.iter().filter(|job| job.place.is_some());
        let count = entries.count();
        if count == 0 {
            return Ok(None);
        }
        let refused = |error: io::Error| {
            let failure = Failure::refused(&error);
            let _told = self.write_error("writing a pack", error);
            failure
        };
        let made = matches!(batch.target, OpenOrNew::New { .. });
        if let Some(pack) = &batch.closes {
            pack.close();
        }
        let mut pack = match &batch.target {
            OpenOrNew::Open(pack) => pack.clone(),
            OpenOrNew::New { number, salt } => self.packs.make(*number, *salt).map_err(refused)?,
        };
        let bytes = batch.encode();
        let path = pack_path(&self.root, pack.number);
        let at = if made { 0 } else { pack.tail };
        if let Err(error) = pack.file.write_all_at(&bytes, at) {
            self.packs.take_back(&pack, made);
            return Err(refused(error));
        }
        pack.file
            .sync()
            .map_err(|error| stopped(&self.fail_stop.fail(&path, &error)))?;
        if made {
            let dir = self.root.join(PACKS_DIR);
            self.sync_dir(&dir).map_err(|error| stopped(&error))?;
        }
        // An fsync that failed elsewhere meanwhile may have been about the same device.
        self.fail_stop.check().map_err(|error| stopped(&error))?;
        self.metrics.packs.written(count);
        pack.tail = batch.end;
        Ok(Some(pack))
    }
}

impl Packs {
    fn wait<'a>(&self, state: super::MutexGuard<'a, State>) -> super::MutexGuard<'a, State> {
        let waited = self.done.wait(state);
        waited.unwrap_or_else(super::PoisonError::into_inner)
    }

    /// Waits until no batch is being written, and keeps others from being.
    pub(super) fn halt(&self) -> super::MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.busy {
            state = self.wait(state);
        }
        state.busy = true;
        state
    }

    /// A new pack. An older program must not take the volume for one without packs: that is written
    /// down first.
    fn make(&self, number: u64, salt: u128) -> io::Result<OpenPack> {
        self.identity.mark_packed()?;
        self.disk.create_dir_all(&self.root.join(PACKS_DIR))?;
        let path = pack_path(&self.root, number);
        let file = self.disk.open(&path, OpenMode::CreateNew)?;
        Ok(OpenPack {
            number,
            salt,
            file,
            tail: 0,
        })
    }

    /// Takes what a failed write left out of the pack.
    fn take_back(&self, pack: &OpenPack, made: bool) {
        let taken = if made {
            self.disk.remove(&pack_path(&self.root, pack.number))
        } else {
            pack.file.set_length(pack.tail)
        };
        if let Err(error) = taken {
            tracing::warn!(
                pack = pack.number, %error,
                "bytes of a failed write stay in a pack until the next start"
            );
        }
    }
}

impl OpenPack {
    /// Says in a pack that it is complete, so that no start reads its last batch through again. It
    /// is as good without.
    fn close(&self) {
        let site = Site {
            number: self.number,
            salt: self.salt,
            offset: self.tail,
        };
        let end = Entry::end(self.tail).encode(site);
        if let Err(error) = self.file.write_all_at(&end, self.tail) {
            tracing::debug!(pack = self.number, %error, "could not mark a pack as closed");
        }
    }
}

impl Queue {
    fn add(&mut self, jobs: Vec<Job>) -> Vec<u64> {
        let mut tickets = Vec::with_capacity(jobs.len());
        for job in jobs {
            self.tickets += 1;
            self.waiting.push_back((self.tickets, job));
            tickets.push(self.tickets);
        }
        tickets
    }

    fn length(&self) -> i64 {
        i64::try_from(self.waiting.len()).unwrap_or(i64::MAX)
    }

    /// The answer to these jobs once each has one; the first failure, if any.
    fn collect(&mut self, tickets: &[u64]) -> Option<Result<(), Failure>> {
        // Answers come in the order of the queue.
        if !tickets
            .last()
            .is_none_or(|last| self.answers.contains_key(last))
        {
            return None;
        }
        let mut all = Ok(());
        for ticket in tickets {
            if let Some(Err(failure)) = self.answers.remove(ticket)
                && all.is_ok()
            {
                all = Err(failure);
            }
        }
        Some(all)
    }
}

impl State {
    /// Takes the next jobs and finds places for them.
    fn plan(&mut self, packs: &Packs) -> Batch {
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut fate = BTreeMap::new();
        while let Some((_, job)) = self.queue.waiting.front() {
            let length = job.length();
            if bytes > 0 && bytes + length > MAX_BATCH {
                break;
            }
            let Some((ticket, job)) = self.queue.waiting.pop_front() else {
                break;
            };
            let wanted = self.is_wanted(&job, &mut fate);
            bytes += if wanted { length } else { 0 };
            taken.push((ticket, job, wanted));
        }
        let (target, closes) = self.target(packs, bytes);
        let mut offset = target.first();
        let mut jobs = Vec::with_capacity(taken.len());
        for (ticket, job, wanted) in taken {
            let place = wanted.then(|| Place {
                pack: target.number(),
                offset,
                header: job.header_length(),
                length: job.length(),
            });
            offset += place.map_or(0, |place| place.length);
            jobs.push(Planned { ticket, job, place });
        }
        Batch {
            jobs,
            target,
            closes,
            end: offset,
        }
    }

    /// Whether a job still has something to write, given what the jobs before it do.
    fn is_wanted(&self, job: &Job, fate: &mut BTreeMap<ReplicaKey, bool>) -> bool {
        let key = job.key();
        let changed = fate.get(&key).copied();
        let live = changed.unwrap_or_else(|| self.book.place(key).is_some());
        let (wanted, becomes) = match job {
            Job::Seal(_) => (true, true),
            Job::Remove(..) => (live, false),
            // Of what moved or went meanwhile no older copy may come behind it.
            Job::Move(from, _) => (
                changed.is_none() && self.book.place(key) == Some(*from),
                live,
            ),
            Job::Carry(_) => (!live, live),
        };
        fate.insert(key, becomes);
        wanted
    }

    fn target(&mut self, packs: &Packs, bytes: u64) -> (OpenOrNew, Option<OpenPack>) {
        match self.open.take() {
            Some(pack) if pack.tail + bytes <= packs.limits.pack || bytes == 0 => {
                self.open = Some(pack.clone());
                (OpenOrNew::Open(pack), None)
            }
            closes => {
                let number = self.next;
                // A number whose file could not be made is not tried again.
                self.next += u64::from(bytes > 0);
                let salt = packs.rng.u128();
                (OpenOrNew::New { number, salt }, closes)
            }
        }
    }

    /// Writes what happened to a batch into the book, and answers.
    fn settle(
        &mut self,
        shared: &Shared,
        batch: Batch,
        written: Result<Option<OpenPack>, Failure>,
    ) {
        let Batch { jobs, closes, .. } = batch;
        let failure = match written {
            Ok(pack) => {
                if let Some(pack) = pack {
                    self.wrote(pack, closes);
                }
                None
            }
            Err(failure) => {
                self.unwritten(closes);
                Some(failure)
            }
        };
        for Planned { ticket, job, place } in jobs {
            match (&failure, place) {
                (None, Some(place)) => self.enter(shared, job, place),
                (Some(_), _) => restore(shared, &job),
                (None, None) => {}
            }
            let answer = failure.clone().map_or(Ok(()), Err);
            self.queue.answers.insert(ticket, answer);
        }
    }

    fn wrote(&mut self, pack: OpenPack, closes: Option<OpenPack>) {
        if let Some(closed) = closes {
            self.book.extend(closed.number, closed.tail + REMOVAL_LEN);
        }
        self.book.add_pack(pack.number, pack.tail);
        self.book.open = Some(pack.number);
        self.salts.insert(pack.number, pack.salt);
        self.handles.keep(pack.number, &pack.file);
        self.open = Some(pack);
    }

    /// After a failure the pack that was open takes no more entries unless it was cut back.
    fn unwritten(&mut self, closes: Option<OpenPack>) {
        if let Some(closed) = closes {
            self.book.extend(closed.number, closed.tail + REMOVAL_LEN);
            self.book.open = None;
        }
        let intact = self.open.as_ref().is_some_and(|pack| {
            let length = pack.file.length();
            length.is_ok_and(|length| length == pack.tail)
        });
        if !intact {
            self.open = None;
            self.book.open = None;
        }
    }

    fn enter(&mut self, shared: &Shared, job: Job, place: Place) {
        let key = job.key();
        match job {
            Job::Seal(body) => {
                self.book.put(key, place);
                let replica: Replica = body.header.replica();
                shared.index.insert(&replica, shared.seconds());
            }
            Job::Remove(..) | Job::Carry(_) => self.book.remove(key, place.pack),
            Job::Move(_, body) => {
                self.book.put(key, place);
                shared.metrics.packs.moved.inc_by(body.header.chunk.length);
            }
        }
    }
}

/// What is still there must stay known, or it would come back unannounced.
fn restore(shared: &Shared, job: &Job) {
    match job {
        Job::Remove(_, Some(replica)) => shared.index.insert(replica, shared.seconds()),
        Job::Remove(_, None) | Job::Seal(_) | Job::Move(..) | Job::Carry(_) => {}
    }
}
