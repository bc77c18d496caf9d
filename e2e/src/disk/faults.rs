//! The faults of one disk, its room, its failpoints and its log of calls; changed while it runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::io::Errno;

use super::lock;

/// The log keeps at most this many calls; a test that needs more records in parts.
const MAX_LOGGED: usize = 1_000_000;

/// The kinds of calls on a disk and its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// Opening an existing file.
    Open,
    /// Opening that may make the file.
    Create,
    /// Reading bytes.
    Read,
    /// Writing bytes.
    Write,
    /// Cutting or extending.
    SetLength,
    /// fsync of a file.
    Sync,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
    /// Making a directory.
    CreateDir,
    /// Listing a directory.
    List,
    /// fsync of a directory.
    SyncDir,
    /// Asking for the room.
    Space,
    /// Taking a lock file.
    Lock,
}

impl CallKind {
    /// Whether it changes the disk, or makes a change durable.
    pub fn is_mutating(self) -> bool {
        match self {
            Self::Create
            | Self::Write
            | Self::SetLength
            | Self::Sync
            | Self::Rename
            | Self::Remove
            | Self::CreateDir
            | Self::SyncDir => true,
            Self::Open | Self::Read | Self::List | Self::Space | Self::Lock => false,
        }
    }
}

/// One call, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskCall {
    /// What was called.
    pub kind: CallKind,
    /// On which path; of a file, the path that it was opened by.
    pub path: PathBuf,
    /// The new name, of a rename.
    pub to: Option<PathBuf>,
    /// First byte, of reads and writes.
    pub offset: u64,
    /// Bytes of reads and writes; the new length of `SetLength`.
    pub length: u64,
    /// Whether it succeeded.
    pub succeeded: bool,
}

/// What a fault does to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The call fails, and nothing happens.
    Fail(Errno),
    /// A write puts so many bytes on the disk, then fails with EIO. Other calls fail at once.
    Torn(usize),
    /// A write puts so many bytes on the disk and says that all is well: a lying disk.
    SilentlyTorn(usize),
    /// A read succeeds with the lowest bit of its first byte flipped. Other calls are unharmed.
    FlipBit,
    /// A sync, of a file or a directory, does nothing and says that all is well: a planted bug
    /// (a skipped fsync) without touching the product. Other calls are unharmed.
    SkipSync,
    /// The call takes so much longer.
    Delay(Duration),
}

/// A fault: which calls it hits, and what it does.
#[derive(Debug, Clone)]
pub struct Fault {
    kind: Option<CallKind>,
    path_part: String,
    skip: u64,
    left: Option<u64>,
    effect: Effect,
}

impl Fault {
    /// Hits every call of a kind, for ever.
    pub fn on(kind: CallKind, effect: Effect) -> Self {
        Self {
            kind: Some(kind),
            path_part: String::new(),
            skip: 0,
            left: None,
            effect,
        }
    }

    /// Hits every call of every kind, for ever.
    pub fn on_all(effect: Effect) -> Self {
        Self {
            kind: None,
            ..Self::on(CallKind::Open, effect)
        }
    }

    /// Every call of a kind fails with EIO.
    pub fn eio(kind: CallKind) -> Self {
        Self::on(kind, Effect::Fail(Errno::IO))
    }

    /// Only calls on paths that hold `part`.
    #[must_use]
    pub fn path(mut self, part: &str) -> Self {
        part.clone_into(&mut self.path_part);
        self
    }

    /// Only the next `times` calls that match; the ones after succeed.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.left = Some(times);
        self
    }

    /// Lets `skip` matching calls pass first.
    #[must_use]
    pub fn after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    fn matches(&self, kind: CallKind, path: &Path) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
            && path.to_string_lossy().contains(&self.path_part)
    }
}

/// Names an injected fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FaultId(u64);

/// The handle by which a test hurts a disk. Cloning shares it; it outlives the disk's boots, so
/// that faults and room carry over a restart of the role.
#[derive(Debug, Clone, Default)]
pub struct DiskFaults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    faults: Vec<(FaultId, Fault, u64)>,
    next_id: u64,
    room: Option<Room>,
    mutations: u64,
    fail_at: Option<u64>,
    stop_at: Option<u64>,
    log: Option<Vec<DiskCall>>,
}

/// A virtual volume: so many bytes in all, so many taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) total: u64,
    pub(super) used: u64,
}

/// What is to happen to one call.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) delay: Duration,
    pub(super) effect: Option<Effect>,
}

impl DiskFaults {
    /// No faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a fault. Of several that match a call, delays add up and the first other one wins.
    pub fn inject(&self, fault: Fault) -> FaultId {
        let mut state = lock(&self.0);
        state.next_id += 1;
        let id = FaultId(state.next_id);
        state.faults.push((id, fault, 0));
        id
    }

    /// Takes a fault away.
    pub fn remove(&self, id: FaultId) {
        lock(&self.0).faults.retain(|(other, ..)| *other != id);
    }

    /// Takes all faults, failpoints and the limit of room away.
    pub fn heal(&self) {
        let mut state = lock(&self.0);
        state.faults.clear();
        state.room = None;
        state.fail_at = None;
        state.stop_at = None;
    }

    /// How many calls a fault has hit.
    pub fn hits(&self, id: FaultId) -> u64 {
        let state = lock(&self.0);
        let found = state.faults.iter().find(|(other, ..)| *other == id);
        found.map_or(0, |(_, _, hits)| *hits)
    }

    /// Makes the volume hold `total` bytes, of which `used` are taken by what is there already.
    pub(super) fn set_room(&self, room: Option<Room>) {
        lock(&self.0).room = room;
    }

    /// Gives the volume another size, keeping what it counts as used. No effect without a limit.
    pub fn grow_to(&self, total: u64) {
        if let Some(room) = &mut lock(&self.0).room {
            room.total = total;
        }
    }

    pub(super) fn room(&self) -> Option<Room> {
        lock(&self.0).room
    }

    /// Takes up to `wanted` bytes of room, and says how many there were.
    pub(super) fn take_room(&self, wanted: u64) -> u64 {
        match &mut lock(&self.0).room {
            None => wanted,
            Some(room) => {
                let taken = wanted.min(room.total.saturating_sub(room.used));
                room.used += taken;
                taken
            }
        }
    }

    pub(super) fn give_room(&self, bytes: u64) {
        if let Some(room) = &mut lock(&self.0).room {
            room.used = room.used.saturating_sub(bytes);
        }
    }

    /// Mutating calls so far.
    pub fn mutations(&self) -> u64 {
        lock(&self.0).mutations
    }

    /// The mutating call number `mutations() + nth` fails with EIO (the next one is 1).
    pub fn fail_nth_mutation(&self, nth: u64) {
        let mut state = lock(&self.0);
        state.fail_at = Some(state.mutations + nth);
    }

    /// From the mutating call number `mutations() + nth` on, all mutating calls fail: as if the
    /// machine had stopped there. With a power cut after it, every crash point can be tried.
    pub fn stop_at_nth_mutation(&self, nth: u64) {
        let mut state = lock(&self.0);
        state.stop_at = Some(state.mutations + nth);
    }

    /// Whether [`DiskFaults::stop_at_nth_mutation`] has been reached.
    pub fn has_stopped(&self) -> bool {
        let state = lock(&self.0);
        state.stop_at.is_some_and(|at| state.mutations >= at)
    }

    /// Starts an empty log of calls.
    pub fn start_recording(&self) {
        lock(&self.0).log = Some(Vec::new());
    }

    /// The calls since [`DiskFaults::start_recording`], in the order in which they ended; the
    /// recording goes on with an empty log.
    pub fn take_log(&self) -> Vec<DiskCall> {
        let mut state = lock(&self.0);
        state.log.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn record(&self, call: DiskCall) {
        if let Some(log) = &mut lock(&self.0).log
            && log.len() < MAX_LOGGED
        {
            log.push(call);
        }
    }

    /// Counts a call, and decides on it.
    pub(super) fn judge(&self, kind: CallKind, path: &Path) -> Verdict {
        let mut state = lock(&self.0);
        let mut verdict = Verdict::default();
        if kind.is_mutating() {
            state.mutations += 1;
            let stopped = state.stop_at.is_some_and(|at| state.mutations >= at);
            if stopped || state.fail_at == Some(state.mutations) {
                verdict.effect = Some(Effect::Fail(Errno::IO));
            }
        }
        for (_, fault, hits) in &mut state.faults {
            if !fault.matches(kind, path) || fault.left == Some(0) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if let Effect::Delay(delay) = fault.effect {
                verdict.delay += delay;
            } else if verdict.effect.is_none() {
                verdict.effect = Some(fault.effect);
            } else {
                continue;
            }
            *hits += 1;
            fault.left = fault.left.map(|left| left - 1);
        }
        verdict
    }

    /// Whether the next such call is delayed.
    pub(super) fn delays(&self, kind: CallKind, path: &Path) -> bool {
        let state = lock(&self.0);
        let delays = |fault: &Fault| {
            let is_due = fault.matches(kind, path) && fault.left != Some(0) && fault.skip == 0;
            is_due && matches!(fault.effect, Effect::Delay(_))
        };
        state.faults.iter().any(|(_, fault, _)| delays(fault))
    }
}

/// As the operating system says it.
pub(super) fn io_error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

/// Whether the successful calls of `log` hold these steps in this order, others between them
/// allowed; a path matches when it, or the target of a rename, holds the given part. On failure,
/// the first step that is missing.
pub fn find_order<'a>(
    log: &[DiskCall],
    steps: &'a [(CallKind, &'a str)],
) -> Result<(), (CallKind, &'a str)> {
    let mut calls = log.iter().filter(|call| call.succeeded);
    for (kind, part) in steps {
        let holds = |path: &Path| path.to_string_lossy().contains(part);
        let found = calls.any(|call| {
            call.kind == *kind && (holds(&call.path) || call.to.as_deref().is_some_and(holds))
        });
        if !found {
            return Err((*kind, *part));
        }
    }
    Ok(())
}
