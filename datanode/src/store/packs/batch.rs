//! Appending: jobs gather while a batch is made durable; the first of them then writes for all.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::Ordering;

use dfs_protocol::chunk::Replica;
use dfs_runtime::disk::OpenMode;

use super::book::Place;
use super::format::{Entry, REMOVAL_LEN, Site};
use super::plan::{Batch, OpenOrNew, Planned};
use super::{Job, OpenPack, Packs, State};
use crate::store::error::{StoreError, is_full, is_passing};
use crate::store::files::Shared;
use crate::store::index::ReplicaKey;
use crate::store::layout::{PACKS_DIR, pack_path};

/// Bytes of one batch. A larger queue is written in several.
const MAX_BATCH: u64 = 8 * 1024 * 1024;

/// Jobs that wait, and answers that were not fetched yet.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<(u64, Job)>,
    pub(super) answers: BTreeMap<u64, Result<(), Failure>>,
    tickets: u64,
}

/// Why a batch failed; each of its jobs is told the same.
#[derive(Debug, Clone)]
pub(super) enum Failure {
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
        self.append_each(jobs).into_iter().collect()
    }

    /// The same with an answer for each job.
    pub(in crate::store) fn append_each(&self, jobs: Vec<Job>) -> Vec<Result<(), StoreError>> {
        let mut state = self.packs.lock();
        let tickets = state.queue.add(jobs);
        self.metrics.packs.waiting.set(state.queue.length());
        loop {
            if let Some(answers) = state.queue.collect(&tickets) {
                let answers = answers.into_iter();
                return answers.map(|a| a.map_err(Failure::error)).collect();
            }
            if state.busy {
                state = self.packs.wait(state);
                continue;
            }
            let batch = state.plan(&self.packs, self.pack_bytes());
            state.busy = true;
            self.metrics.packs.waiting.set(state.queue.length());
            drop(state);
            self.lead(batch);
            state = self.packs.lock();
        }
    }

    /// One write, one fsync; the name of a new pack is durable before anything in it is answered
    /// for. On failure nothing of the batch is left in the pack, or the pack takes no more.
    pub(super) fn write(&self, batch: &Batch) -> Result<Option<OpenPack>, Failure> {
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
            OpenOrNew::New { number, salt } => {
                self.prepare().map_err(|error| match error {
                    Unprepared::Stopped(error) => stopped(&error),
                    Unprepared::Refused(error) => refused(error),
                })?;
                self.packs.make(*number, *salt).map_err(refused)?
            }
        };
        let bytes = batch.encode();
        let path = pack_path(&self.root, pack.number);
        let at = if made { 0 } else { pack.tail };
        if let Err(error) = pack.file.write_all_at(&bytes, at) {
            let left = self.packs.take_back(&pack, made);
            let failure = refused(error);
            left.map_err(|error| {
                let reason = format!("cutting back {}: {error}", path.display());
                stopped(&self.fail_stop.stop(reason))
            })?;
            return Err(failure);
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

    /// What must be durable before a pack is made. An older program must not take the volume for one
    /// without packs: that is written down first. Both hide failed fsyncs, which no later one mends.
    fn prepare(&self) -> Result<(), Unprepared> {
        let dir = self.root.join(PACKS_DIR);
        let prepared = self
            .packs
            .identity
            .mark_packed()
            .and_then(|()| self.disk.create_dir_all(&dir));
        prepared.map_err(|error| {
            let read_only = error.kind() == io::ErrorKind::ReadOnlyFilesystem;
            if read_only || is_full(&error) || is_passing(&error) {
                return Unprepared::Refused(error);
            }
            Unprepared::Stopped(self.fail_stop.fail(&dir, &error))
        })?;
        // The directory may be there by a run that died before its name was durable.
        if !self.packs.named.load(Ordering::Acquire) {
            self.sync_dir(&self.root).map_err(Unprepared::Stopped)?;
            self.packs.named.store(true, Ordering::Release);
        }
        Ok(())
    }
}

/// Why no pack can be made.
enum Unprepared {
    Stopped(StoreError),
    Refused(io::Error),
}

impl Packs {
    /// A new pack.
    fn make(&self, number: u64, salt: u128) -> io::Result<OpenPack> {
        let path = pack_path(&self.root, number);
        let file = self.disk.open(&path, OpenMode::CreateNew)?;
        Ok(OpenPack {
            number,
            salt,
            file,
            tail: 0,
        })
    }

    /// Takes what a failed write left out of the pack. An error when something of it stays: a start
    /// would take what is whole of it for chunks.
    fn take_back(&self, pack: &OpenPack, made: bool) -> io::Result<()> {
        let taken = if made {
            self.disk.remove(&pack_path(&self.root, pack.number))
        } else {
            pack.file.set_length(pack.tail)
        };
        taken.or_else(|error| {
            // A file system gone read-only refuses the cut too, but took nothing before.
            let length = pack.file.length();
            let nothing = length.is_ok_and(|length| length <= pack.tail);
            if nothing { Ok(()) } else { Err(error) }
        })
    }
}

impl OpenPack {
    /// Says in a pack that it is complete, so that no start reads its last batch through again. It
    /// is as good without.
    pub(super) fn close(&self) {
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

    /// The answers to these jobs once each has one.
    fn collect(&mut self, tickets: &[u64]) -> Option<Vec<Result<(), Failure>>> {
        // Answers come in the order of the queue.
        let last = tickets.last();
        if !last.is_none_or(|last| self.answers.contains_key(last)) {
            return None;
        }
        let unknown = || Err(Failure::Stopped("a batch gave no answer".to_owned()));
        let take = |ticket| self.answers.remove(ticket).unwrap_or_else(unknown);
        Some(tickets.iter().map(take).collect())
    }
}

impl State {
    /// Takes the next jobs and finds places for them.
    fn plan(&mut self, packs: &Packs, pack_bytes: u64) -> Batch {
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
            let first = !fate.contains_key(&job.key());
            let wanted = self.is_wanted(&job, &mut fate);
            bytes += if wanted { length } else { 0 };
            taken.push((ticket, job, wanted, first && !wanted));
        }
        let (target, closes) = self.target(packs, pack_bytes, bytes);
        let mut offset = target.first();
        let mut jobs = Vec::with_capacity(taken.len());
        for (ticket, job, wanted, void) in taken {
            let place = wanted.then(|| Place {
                pack: target.number(),
                offset,
                header: job.header_length(),
                length: job.length(),
            });
            offset += place.map_or(0, |place| place.length);
            jobs.push(Planned {
                ticket,
                job,
                place,
                void,
            });
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
            // What came meanwhile is another replica: it stays.
            Job::Forget(_, from, _) | Job::Shadow(_, from) => {
                let there = changed.is_none() && self.book.place(key) == Some(*from);
                (there, live && !there)
            }
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

    fn target(
        &mut self,
        packs: &Packs,
        pack_bytes: u64,
        bytes: u64,
    ) -> (OpenOrNew, Option<OpenPack>) {
        match self.open.take() {
            Some(pack) if pack.tail + bytes <= pack_bytes || bytes == 0 => {
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
    pub(super) fn settle(
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
        for planned in jobs {
            let Planned {
                ticket,
                job,
                place,
                void,
            } = planned;
            match (&failure, place) {
                (None, Some(place)) => self.enter(shared, job, place),
                (Some(_), _) => self.restore(shared, &job),
                (None, None) => {}
            }
            let failure = failure.clone().filter(|_| !void);
            let answer = failure.map_or(Ok(()), Err);
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
            Job::Forget(..) => {
                self.book.remove(key, place.pack);
                // A removal that failed before this one put it back.
                shared.index.remove(key);
            }
            Job::Shadow(..) | Job::Carry(_) => self.book.remove(key, place.pack),
            Job::Move(_, body) => {
                self.book.put(key, place);
                shared.metrics.packs.moved.inc_by(body.header.chunk.length);
            }
        }
    }

    /// What is still there must stay known, or it would come back unannounced.
    fn restore(&self, shared: &Shared, job: &Job) {
        if let Job::Forget(key, place, Some(replica)) = job
            && self.book.place(*key) == Some(*place)
        {
            shared.index.insert(replica, shared.seconds());
        }
    }
}
