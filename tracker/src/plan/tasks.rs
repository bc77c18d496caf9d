//! Commands under way: copies, deletions and verifications that datanodes were, or will be, told
//! of in a heartbeat's answer. Keeps planners from ordering twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_protocol::chunk::{ChunkKind, SealedChunk};
use dfs_protocol::datanode::Command;
use dfs_protocol::status::RepairPriority;
use dfs_protocol::{ChunkId, ChunkVersion, DatanodeId, TaskId};

use super::RepairLimits;
use super::copy_load::CopyLoads;
use super::moves::{Move, MoveTable};
use crate::model::datanodes::{Datanode, DatanodeTable};

/// Why a copy is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyReason {
    /// The chunk needs it; how urgently.
    Repair(RepairPriority),
    /// This datanode's replica goes once the copy is there.
    Move(DatanodeId),
}

/// A copy to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyTask {
    /// What must arrive.
    pub chunk: SealedChunk,
    /// Why.
    pub reason: CopyReason,
    /// Who has it, best first; the first one's load is counted.
    pub sources: Vec<DatanodeId>,
    /// Who gets it.
    pub target: DatanodeId,
}

impl CopyTask {
    /// How urgent it is; none when it only evens volumes out.
    pub fn priority(&self) -> Option<RepairPriority> {
        match self.reason {
            CopyReason::Repair(priority) => Some(priority),
            CopyReason::Move(_) => None,
        }
    }
}

/// Why a replica is deleted. Metric label values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeleteReason {
    /// Of an older version.
    Stale,
    /// Damaged, and a good one exists.
    Corrupt,
    /// More than wanted.
    Excess,
    /// Of a condemned chunk.
    Condemned,
}

impl DeleteReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Stale, Self::Corrupt, Self::Excess, Self::Condemned];

    /// Metric label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::Corrupt => "corrupt",
            Self::Excess => "excess",
            Self::Condemned => "condemned",
        }
    }
}

/// A replica to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteTask {
    /// Which chunk.
    pub chunk: ChunkId,
    /// Only this version.
    pub version: ChunkVersion,
    /// What the bytes are for.
    pub kind: ChunkKind,
    /// Whose replica.
    pub datanode: DatanodeId,
    /// Why.
    pub reason: DeleteReason,
}

/// A replica to be read through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyTask {
    /// Which chunk.
    pub chunk: ChunkId,
    /// Which version.
    pub version: ChunkVersion,
    /// Whose replica.
    pub datanode: DatanodeId,
}

/// One piece of work for one datanode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Fetch a replica.
    Copy(CopyTask),
    /// Delete a replica.
    Delete(DeleteTask),
    /// Read a replica through.
    Verify(VerifyTask),
}

impl Work {
    /// Who does it.
    pub fn datanode(&self) -> DatanodeId {
        match self {
            Self::Copy(copy) => copy.target,
            Self::Delete(delete) => delete.datanode,
            Self::Verify(verify) => verify.datanode,
        }
    }

    /// Bytes that go from one datanode to another.
    fn bytes(&self) -> u64 {
        match self {
            Self::Copy(copy) => copy.chunk.length,
            Self::Delete(_) | Self::Verify(_) => 0,
        }
    }

    /// Whether it copies a chunk that had one replica left when it was planned.
    pub fn is_of_last_replica(&self) -> bool {
        match self {
            Self::Copy(copy) => copy.priority() == Some(RepairPriority::LastReplica),
            Self::Delete(_) | Self::Verify(_) => false,
        }
    }

    /// Which chunk it is about.
    pub fn chunk(&self) -> ChunkId {
        match self {
            Self::Copy(copy) => copy.chunk.id,
            Self::Delete(delete) => delete.chunk,
            Self::Verify(verify) => verify.chunk,
        }
    }
}

/// Work under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// For the datanode's answer.
    pub id: TaskId,
    /// What.
    pub work: Work,
    /// Monotonic time at which it was planned.
    pub started: Duration,
    /// Monotonic time at which the datanode was last told.
    pub told: Option<Duration>,
}

/// All work under way. Bounded by the planners' limits and by [`TaskTable::CAPACITY`].
#[derive(Debug, Clone, Default)]
pub struct TaskTable {
    tasks: BTreeMap<TaskId, Task>,
    by_chunk: BTreeMap<ChunkId, BTreeSet<TaskId>>,
    by_datanode: BTreeMap<DatanodeId, BTreeSet<TaskId>>,
    copies: CopyLoads,
    last: u64,
    /// Replicas whose deletion was ordered and never answered: they may be gone at any time.
    doubtful: BTreeSet<(ChunkId, DatanodeId)>,
    /// The deletions that made them so: a late answer settles the doubt.
    unanswered: BTreeMap<TaskId, (ChunkId, DatanodeId)>,
    /// Chunks whose last copy failed, and until when they are left alone.
    postponed: BTreeMap<ChunkId, Duration>,
    /// Copies that even volumes out, until the old replica is gone.
    pub moves: MoveTable,
}

impl TaskTable {
    /// Most tasks under way, and most unanswered deletions remembered.
    pub const CAPACITY: usize = 100_000;
    /// As many more may be copies of chunks with one replica left: no backlog keeps them out.
    pub const RESERVED: usize = 1_000;

    /// Nothing under way.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing under way, ids from somewhere else than those of any earlier table: datanodes still carry out what
    /// an earlier life of the tracker ordered, and know tasks by their ids alone.
    pub fn numbered_anew(random: u64) -> Self {
        Self {
            // Below 2^52: a JSON reader with floating numbers still has each of them.
            last: random >> 12,
            ..Self::default()
        }
    }

    /// Starts work; none when the table is full.
    pub fn start(&mut self, work: Work, now: Duration) -> Option<TaskId> {
        let capacity = if work.is_of_last_replica() {
            Self::CAPACITY + Self::RESERVED
        } else {
            Self::CAPACITY
        };
        let is_delete = matches!(work, Work::Delete(_));
        if self.tasks.len() >= capacity || is_delete && self.doubtful.len() >= capacity {
            return None;
        }
        self.last += 1;
        let id = TaskId(self.last);
        self.by_chunk.entry(work.chunk()).or_default().insert(id);
        self.by_datanode
            .entry(work.datanode())
            .or_default()
            .insert(id);
        if let Work::Copy(copy) = &work {
            self.copies.begin(copy);
            if let CopyReason::Move(from) = copy.reason {
                self.moves.begin(Move {
                    chunk: copy.chunk.id,
                    bytes: copy.chunk.length,
                    from,
                    to: copy.target,
                    started: now,
                    landed: false,
                });
            }
        }
        self.tasks.insert(
            id,
            Task {
                id,
                work,
                started: now,
                told: None,
            },
        );
        Some(id)
    }

    /// The datanode answered, or the work is pointless: forgets the task and returns it. After a
    /// deletion that succeeded, [`crate::model::replicas::ReplicaMap::remove_replica`] must be
    /// called before the next plan, lest the replica is counted once more.
    pub fn finish(&mut self, id: TaskId) -> Option<Task> {
        if let Some(replica) = self.unanswered.get(&id).copied() {
            self.settle(replica);
        }
        let task = self.take(id)?;
        if let Work::Delete(delete) = &task.work {
            self.settle((delete.chunk, delete.datanode));
        }
        Some(task)
    }

    /// [`Self::finish`] for an answer as it came from a datanode: a task of another is left alone.
    pub fn answered(&mut self, datanode: DatanodeId, id: TaskId) -> Option<Task> {
        let under_way = self.tasks.get(&id).map(|task| task.work.datanode());
        let owner = under_way.or_else(|| self.unanswered.get(&id).map(|(_, holder)| *holder));
        if owner == Some(datanode) {
            self.finish(id)
        } else {
            None
        }
    }

    /// Gives up what was not answered within its patience. A deletion given up may still happen: its
    /// replica stays doubtful, see [`Self::is_doubtful`], until an answer comes after all or the
    /// datanode restarts.
    pub fn expire(&mut self, limits: &RepairLimits, now: Duration) -> Vec<Task> {
        self.postponed.retain(|_, until| *until > now);
        let late: Vec<TaskId> = self
            .tasks
            .values()
            .filter(|task| now.saturating_sub(task.started) >= limits.patience(task.work.bytes()))
            .map(|task| task.id)
            .collect();
        self.give_up(late)
    }

    /// Takes back what no datanode was told yet: while repair and gc are held, what was planned in
    /// the moment before must not be carried out when the datanodes return (fault 22).
    pub fn withdraw_untold(&mut self) -> Vec<Task> {
        let untold = self
            .tasks
            .values()
            .filter(|task| task.told.is_none() && !matches!(task.work, Work::Verify(_)));
        let untold = untold.map(|task| task.id).collect();
        self.give_up(untold)
    }

    /// A copy of this chunk failed: repair leaves it alone until then.
    pub fn postpone(&mut self, chunk: ChunkId, until: Duration) {
        if self.postponed.len() < Self::CAPACITY {
            self.postponed.insert(chunk, until);
        }
    }

    /// Whether repair leaves this chunk alone.
    pub fn is_postponed(&self, chunk: ChunkId, now: Duration) -> bool {
        self.postponed.get(&chunk).is_some_and(|until| *until > now)
    }

    /// The datanode is dead: copies and verifications that it was to make are given up, so that
    /// others can make them. A deletion stays under way: if the datanode lives unheard, it may
    /// still carry it out.
    pub fn fell_silent(&mut self, datanode: DatanodeId) -> Vec<Task> {
        let own = self.by_datanode.get(&datanode).into_iter().flatten();
        let harmless = |id: &&TaskId| {
            self.tasks.get(id).is_some_and(|task| match &task.work {
                Work::Copy(_) | Work::Verify(_) => true,
                Work::Delete(_) => false,
            })
        };
        let own = own.filter(harmless).copied().collect();
        self.give_up(own)
    }

    /// The datanode restarted, so that it forgot its orders, or was removed: gives up its tasks.
    pub fn restarted(&mut self, datanode: DatanodeId) -> Vec<Task> {
        let own = self
            .by_datanode
            .get(&datanode)
            .into_iter()
            .flatten()
            .copied()
            .collect();
        let given_up = self.give_up(own);
        self.doubtful.retain(|(_, holder)| *holder != datanode);
        self.unanswered.retain(|_, (_, holder)| *holder != datanode);
        given_up
    }

    /// The orders that a datanode is to be told now, copies of last replicas before all others, then oldest first: those it
    /// was never told, and those it was told longer than `again` ago without an answer.
    pub fn commands_for(
        &mut self,
        datanode: DatanodeId,
        datanodes: &DatanodeTable,
        again: Duration,
        limit: usize,
        now: Duration,
    ) -> Vec<Command> {
        let own = self.by_datanode.get(&datanode).into_iter().flatten();
        let is_urgent = |id: &&TaskId| {
            let task = self.tasks.get(id);
            task.is_some_and(|task| task.work.is_of_last_replica())
        };
        let (mut own, others): (Vec<TaskId>, Vec<TaskId>) = own.partition(is_urgent);
        own.extend(others);
        let mut commands = Vec::new();
        for id in own {
            if commands.len() >= limit {
                break;
            }
            let Some(task) = self.tasks.get_mut(&id) else {
                continue;
            };
            if task
                .told
                .is_none_or(|told| now.saturating_sub(told) >= again)
            {
                task.told = Some(now);
                commands.push(command(task, datanodes));
            }
        }
        commands
    }

    /// One task.
    pub fn get(&self, id: TaskId) -> Option<&Task> {
        self.tasks.get(&id)
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Task> {
        self.tasks.values()
    }

    /// Those about one chunk.
    pub fn of_chunk(&self, chunk: ChunkId) -> impl Iterator<Item = &Task> {
        let ids = self.by_chunk.get(&chunk).into_iter().flatten();
        ids.filter_map(|id| self.tasks.get(id))
    }

    /// Copies under way, moves included.
    pub fn copies(&self) -> &CopyLoads {
        &self.copies
    }

    /// Copies under way that chunks need.
    pub fn repair_copies(&self) -> u32 {
        let moves = u32::try_from(self.moves.copying().count()).unwrap_or(u32::MAX);
        self.copies.all().copies.saturating_sub(moves)
    }

    /// Whether a deletion of this replica was ordered and never answered: until it is, the replica
    /// is not counted when another is to be deleted (I24).
    pub fn is_doubtful(&self, chunk: ChunkId, datanode: DatanodeId) -> bool {
        self.doubtful.contains(&(chunk, datanode))
    }

    /// Whether a deletion of this replica is under way.
    pub fn is_deleting(&self, chunk: ChunkId, datanode: DatanodeId) -> bool {
        self.of_chunk(chunk).any(|task| match &task.work {
            Work::Delete(delete) => delete.datanode == datanode,
            Work::Copy(_) | Work::Verify(_) => false,
        })
    }

    /// Whether this replica may vanish at any time: its deletion is under way, or was ordered and
    /// never answered.
    pub fn is_going(&self, chunk: ChunkId, datanode: DatanodeId) -> bool {
        self.is_doubtful(chunk, datanode) || self.is_deleting(chunk, datanode)
    }

    fn give_up(&mut self, ids: Vec<TaskId>) -> Vec<Task> {
        let tasks: Vec<Task> = ids.into_iter().filter_map(|id| self.take(id)).collect();
        for task in &tasks {
            if let Work::Copy(copy) = &task.work
                && copy.priority().is_none()
            {
                self.moves.forget(copy.chunk.id);
            }
            // An order that was never told cannot be carried out.
            if let (Work::Delete(delete), Some(_)) = (&task.work, task.told) {
                let replica = (delete.chunk, delete.datanode);
                self.doubtful.insert(replica);
                self.unanswered.insert(task.id, replica);
            }
        }
        tasks
    }

    fn settle(&mut self, replica: (ChunkId, DatanodeId)) {
        if self.doubtful.remove(&replica) {
            self.unanswered.retain(|_, other| *other != replica);
        }
    }

    fn take(&mut self, id: TaskId) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        drop_from(&mut self.by_chunk, task.work.chunk(), id);
        drop_from(&mut self.by_datanode, task.work.datanode(), id);
        if let Work::Copy(copy) = &task.work {
            self.copies.end(copy);
        }
        Some(task)
    }
}

fn command(task: &Task, datanodes: &DatanodeTable) -> Command {
    match &task.work {
        Work::Copy(copy) => Command::Copy {
            task: task.id,
            chunk: copy.chunk,
            sources: copy
                .sources
                .iter()
                .filter_map(|id| datanodes.get(*id).map(Datanode::at))
                .collect(),
        },
        Work::Delete(delete) => Command::Delete {
            task: task.id,
            chunk: delete.chunk,
            version: delete.version,
            kind: delete.kind,
        },
        Work::Verify(verify) => Command::Verify {
            task: task.id,
            chunk: verify.chunk,
            version: verify.version,
        },
    }
}

fn drop_from<K: Ord + Copy>(map: &mut BTreeMap<K, BTreeSet<TaskId>>, key: K, id: TaskId) {
    if let Some(ids) = map.get_mut(&key) {
        ids.remove(&id);
        if ids.is_empty() {
            map.remove(&key);
        }
    }
}
