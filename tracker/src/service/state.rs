//! What changes between two messages: everything the tracker knows and does not persist, behind one
//! lock that is never held across an await.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_protocol::chunk::{ChunkKind, DatanodeAddress};
use dfs_protocol::datanode::{FinishedTask, Liveness, TaskOutcome};
use dfs_protocol::status::{Capacity, RebalanceStatus, RepairPriority};
use dfs_protocol::{ChunkId, ChunkVersion, DatanodeId, LeaseId, TrashId};

use crate::model::comparison::Comparison;
use crate::model::datanodes::{Datanode, DatanodeTable};
use crate::model::leases::{LeaseRefused, LeaseTable};
use crate::model::op::{CheckpointRecord, ChunkRecord};
use crate::model::pending::PendingTable;
use crate::model::refusals::RefusalLog;
use crate::model::replicas::{ChunkView, Expected, ReplicaMap};
use crate::plan::gc::CondemnedTable;
use crate::plan::removal::RemovalView;
use crate::plan::safe_mode::SafeMode;
use crate::plan::tasks::{CopyReason, TaskTable, VerifyTask, Work};
use crate::plan::trash::{TrashTable, Usage};
use crate::plan::{Hold, Policy, hold};

/// A command that was told and not answered is told again after so many heartbeats.
const TELL_AGAIN_HEARTBEATS: u32 = 30;
/// How long after a partition its last datanode may come back: a datanode's try to announce itself may take five
/// seconds, the wait before its next one five more, and that one may fail as well.
const RETURN_WINDOW: Duration = Duration::from_secs(22);

/// Everything that is not in the catalog.
#[derive(Debug)]
pub struct State {
    /// The knobs.
    pub policy: Policy,
    /// What is known of each datanode.
    pub datanodes: DatanodeTable,
    /// Those that wait to be admitted.
    pub pending: PendingTable,
    /// Registrations that were refused lately.
    pub refusals: RefusalLog,
    /// Where replicas are.
    pub replicas: ReplicaMap,
    /// Write leases.
    pub leases: LeaseTable,
    /// Orders under way.
    pub tasks: TaskTable,
    /// Whether enough was reported since the start.
    pub safe_mode: SafeMode,
    /// Until when silent datanodes may still return from what was no loss, in monotonic time; see [`Self::hold`].
    pub returns_until: Option<Duration>,
    /// When the tracker last looked at who is silent, in monotonic time.
    last_look: Option<Duration>,
    /// Whether the catalog holds all that the datanodes' journals hold.
    pub comparison: Comparison,
    /// Checkpoints on datanodes, oldest first: as in the catalog.
    pub checkpoints: Vec<CheckpointRecord>,
    /// Who sealed the chunks of a checkpoint that is being recorded.
    pub checkpoint_holders: BTreeMap<ChunkId, Vec<DatanodeId>>,
    /// Condemned chunks, as in the catalog.
    pub condemned: CondemnedTable,
    /// Chunks that a change condemned and whose records were not read yet.
    pub condemned_lately: Vec<ChunkId>,
    /// The trash, by age.
    pub trash: TrashTable,
    /// Versions that a change put into the trash and whose entries were not read yet.
    pub trashed_lately: Vec<TrashId>,
    /// Copies that repair made in this tracker's life.
    pub copied: u64,
    /// What rebalance does, as its loop left it.
    pub rebalance: RebalanceStatus,
    /// Bytes that repair copied in this tracker's life, and its measured rate in bytes a second.
    pub copied_bytes: u64,
    /// See [`Self::copied_bytes`].
    pub copy_rate: f64,
}

impl State {
    /// Knows the policy and nothing else; `comparison` begins with the catalog as it was opened, `tasks` with nothing.
    pub fn new(policy: Policy, comparison: Comparison, tasks: TaskTable) -> Self {
        Self {
            datanodes: DatanodeTable::new(policy.liveness, policy.datanodes),
            pending: PendingTable::default(),
            refusals: RefusalLog::default(),
            replicas: ReplicaMap::new(),
            leases: LeaseTable::new(policy.leases),
            tasks,
            safe_mode: SafeMode::new(),
            returns_until: None,
            last_look: None,
            comparison,
            checkpoints: Vec::new(),
            checkpoint_holders: BTreeMap::new(),
            condemned: CondemnedTable::new(),
            condemned_lately: Vec::new(),
            trash: TrashTable::new(),
            trashed_lately: Vec::new(),
            copied: 0,
            rebalance: RebalanceStatus {
                threshold_percent: policy.rebalance.threshold,
                ..RebalanceStatus::default()
            },
            copied_bytes: 0,
            copy_rate: 0.0,
            policy,
        }
    }

    /// Takes over liveness and admin states into chunk health.
    pub fn sync(&mut self, now: Duration) {
        self.replicas.sync(&self.datanodes, now);
    }

    /// As [`Self::sync`] after a message of one datanode; see [`ReplicaMap::sync_one`].
    pub fn sync_one(&mut self, id: DatanodeId, now: Duration) {
        self.replicas.sync_one(&self.datanodes, id, now);
    }

    /// Whether the catalog may change now, be the volumes full or not.
    pub fn may_change(&self, now: Duration) -> bool {
        self.datanodes.writes_refused(now).is_none() && self.comparison_refusal(now).is_none()
    }

    /// Whether the tracker still gathers reports.
    pub fn in_safe_mode(&self) -> bool {
        !self.safe_mode.is_over()
    }

    /// Why repair, gc and verdicts are held.
    pub fn hold(&self, now: Duration) -> Option<Hold> {
        if let Some(old) = self.comparison.hold() {
            return Some(Hold::Asked(old));
        }
        let waits = self
            .safe_mode
            .waits_for(&self.datanodes, &self.replicas, now);
        hold(&self.datanodes, waits, &self.policy, now).or_else(|| self.returning(now))
    }

    /// The first datanodes that return from a partition must not set off the repair of the others,
    /// which follow within heartbeats, or with their next try to announce themselves.
    fn returning(&self, now: Duration) -> Option<Hold> {
        let silent = |node: &Datanode| self.datanodes.liveness(node, now) != Liveness::Live;
        let waits = now < self.returns_until? && self.datanodes.seasoned().any(silent);
        let why = "datanodes are returning after a partition or a pause of the tracker";
        waits.then(|| Hold::Asked(why.to_owned()))
    }

    /// Looks at who is silent, and remembers a partition as long as there is one. A tracker that stood still itself
    /// heard nobody meanwhile: whoever it has not heard again yet is not lost for that (fault 26).
    pub fn note_silence(&mut self, now: Duration) {
        let Policy {
            factor,
            partition_window,
            ..
        } = self.policy;
        let window = self.policy.liveness.dead_window();
        let looked = self.last_look.replace(now);
        let stood_still = looked.is_some_and(|at| now.saturating_sub(at) >= window);
        let partition = self.datanodes.partition(factor, partition_window, now);
        let patience = match (partition, stood_still) {
            (Some(_), _) => window.max(RETURN_WINDOW),
            (None, true) => window,
            (None, false) => return,
        };
        self.returns_until = self.returns_until.max(Some(now + patience));
    }

    /// Why nothing may be changed yet, or at all; see [`Comparison::refusal`].
    pub fn comparison_refusal(&self, now: Duration) -> Option<String> {
        let min_write = self.policy.min_write(self.policy.factor);
        self.comparison.refusal(&self.datanodes, min_write, now)
    }

    /// What verdicts look at.
    pub fn removal_view<'a>(&'a self, hold: Option<&'a Hold>) -> RemovalView<'a> {
        let Self {
            policy,
            datanodes,
            replicas,
            leases,
            tasks,
            ..
        } = self;
        RemovalView {
            datanodes,
            replicas,
            leases,
            tasks,
            hold,
            policy,
        }
    }

    /// Addresses of datanodes, in their order; unknown ones are left out.
    pub fn addresses(&self, ids: &[DatanodeId]) -> Vec<DatanodeAddress> {
        ids.iter()
            .filter_map(|id| self.datanodes.get(*id).map(Datanode::at))
            .collect()
    }

    /// Renews a lease. Chunks that a file names are left out: a commit overtook the renewal, nobody writes there any
    /// more, and what counts as being written holds stops back until the lease runs out.
    pub fn renew(
        &mut self,
        lease: LeaseId,
        chunks: &[ChunkId],
        now: Duration,
    ) -> Result<(), LeaseRefused> {
        let mut unnamed = chunks.to_vec();
        unnamed.retain(|chunk| !self.replicas.is_known(*chunk));
        self.leases.renew(lease, &unnamed, now)
    }

    /// The catalog names these chunks no longer: they were condemned.
    pub fn forget(&mut self, chunks: &[ChunkId], now: Duration) {
        self.condemned_lately.extend_from_slice(chunks);
        for chunk in chunks {
            self.replicas.forget_chunk(*chunk, now);
        }
        self.leases.condemned(chunks.iter().copied());
    }

    /// Tells what the catalog expects of a chunk.
    pub fn expect(&mut self, id: ChunkId, record: &ChunkRecord, cluster_factor: u32) {
        self.replicas
            .load_chunk(expected(id, record, cluster_factor));
        if record.factor < cluster_factor {
            self.replicas.note_raised(id);
        }
    }

    /// Forgets what a tombstoned datanode holds: if it ever comes back it resets itself, so that
    /// nothing ordered or doubtful is left.
    pub fn write_off(&mut self, id: DatanodeId) {
        let _given_up = self.tasks.restarted(id);
        self.replicas.clear_datanode(id);
    }

    /// Bytes a second that repair copies, while it is measured; at least one.
    pub fn measured_copy_rate(&self) -> Option<f64> {
        (self.copy_rate >= 1.0).then_some(self.copy_rate)
    }

    /// As [`Self::measured_copy_rate`], in whole bytes.
    pub fn whole_copy_rate(&self) -> Option<u64> {
        // Positive and far below 2^64: bytes that disks copied in a second.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        self.measured_copy_rate().map(|rate| rate as u64)
    }

    /// Takes a datanode's answer to an order in.
    pub fn finish_task(&mut self, datanode: DatanodeId, finished: &FinishedTask, now: Duration) {
        let Some(task) = self.tasks.answered(datanode, finished.task) else {
            return;
        };
        match (&task.work, &finished.outcome) {
            (Work::Delete(delete), TaskOutcome::Done) => {
                self.replicas
                    .remove_replica(datanode, delete.chunk, delete.version);
            }
            (Work::Copy(copy), TaskOutcome::Done) => match copy.reason {
                CopyReason::Repair(_) => {
                    self.copied += 1;
                    self.copied_bytes += copy.chunk.length;
                }
                CopyReason::Move(_) => self.tasks.moves.landed(copy.chunk.id),
            },
            // Another try at once would most likely fail as this one did, and starve the others.
            (Work::Copy(copy), TaskOutcome::Failed { .. }) => {
                let pause = self.policy.liveness.dead_window();
                self.tasks.postpone(copy.chunk.id, now + pause);
                if copy.priority().is_none() {
                    self.tasks.moves.forget(copy.chunk.id);
                }
            }
            (Work::Delete(_) | Work::Verify(_), _) => {}
        }
    }

    /// Takes over which checkpoints are kept: their chunks are repaired like any other, those of
    /// dropped ones become orphans.
    pub fn expect_checkpoints(
        &mut self,
        checkpoints: Vec<CheckpointRecord>,
        factor: u32,
        now: Duration,
    ) {
        let old = std::mem::replace(&mut self.checkpoints, checkpoints);
        let ids = |kept: &[CheckpointRecord]| -> BTreeSet<ChunkId> {
            kept.iter().flat_map(|c| &c.chunks).map(|c| c.id).collect()
        };
        let (before, kept) = (ids(&old), ids(&self.checkpoints));
        let mut holders = std::mem::take(&mut self.checkpoint_holders);
        for chunk in self.checkpoints.iter().flat_map(|c| &c.chunks) {
            let expected = Expected {
                chunk: *chunk,
                factor,
                kind: ChunkKind::Checkpoint,
            };
            let held = holders.remove(&chunk.id).unwrap_or_default();
            self.replicas.commit_chunk(expected, &held, now);
        }
        for dropped in before.difference(&kept) {
            self.replicas.forget_chunk(*dropped, now);
        }
        self.leases.committed(kept);
    }

    /// Whether every replica that is left of some chunk of a checkpoint is damaged: nothing brings it
    /// back.
    pub fn is_ruined(&self, checkpoint: &CheckpointRecord) -> bool {
        let lost = |view: ChunkView| view.priority == Some(RepairPriority::CorruptOnly);
        let mut chunks = checkpoint.chunks.iter();
        chunks.any(|chunk| self.replicas.get(chunk.id).is_some_and(lost))
    }

    /// Whether a kept checkpoint is ruined.
    pub fn has_ruined_checkpoint(&self) -> bool {
        self.checkpoints.iter().any(|kept| self.is_ruined(kept))
    }

    /// Orders a replica to be read through, unless that is under way; says whether it was ordered.
    pub fn order_verify(
        &mut self,
        datanode: DatanodeId,
        chunk: ChunkId,
        version: ChunkVersion,
        now: Duration,
    ) -> bool {
        let under_way = self
            .tasks
            .of_chunk(chunk)
            .any(|task| matches!(&task.work, Work::Verify(verify) if verify.datanode == datanode));
        let work = Work::Verify(VerifyTask {
            chunk,
            version,
            datanode,
        });
        !under_way && self.tasks.start(work, now).is_some()
    }

    /// What a datanode is to be told now.
    pub fn commands_for(
        &mut self,
        datanode: DatanodeId,
        limit: usize,
        now: Duration,
    ) -> Vec<dfs_protocol::datanode::Command> {
        let again = self.policy.liveness.heartbeat_interval * TELL_AGAIN_HEARTBEATS;
        self.tasks
            .commands_for(datanode, &self.datanodes, again, limit, now)
    }

    /// What the volumes hold: those of every datanode that is heard, full ones above all.
    pub fn usage(&self, now: Duration) -> Usage {
        let mut usage = Usage {
            capacity_bytes: 0,
            used_bytes: 0,
        };
        for node in self.datanodes.serving() {
            if self.datanodes.liveness(node, now) == Liveness::Live {
                let stats = &node.stats;
                usage.capacity_bytes += stats.capacity_bytes;
                usage.used_bytes += stats.capacity_bytes.saturating_sub(stats.free_bytes);
            }
        }
        usage
    }

    /// What the volumes of all datanodes that are not dead have together.
    pub fn capacity(&self, now: Duration) -> Capacity {
        let mut sum = Capacity::default();
        for node in self.datanodes.serving() {
            if self.datanodes.liveness(node, now) != Liveness::Dead {
                sum.total_bytes += node.stats.capacity_bytes;
                sum.used_bytes += node.stats.used_bytes;
                sum.free_bytes += node.stats.free_bytes;
            }
        }
        sum
    }

    /// Whether the volumes are so full that the trash is emptied early.
    pub fn is_under_pressure(&self, now: Duration) -> bool {
        let usage = self.usage(now);
        usage.used_bytes as f64 > usage.capacity_bytes as f64 * self.policy.trash.pressure
    }

    /// Journal records below this are covered by every kept checkpoint.
    pub fn journal_floor(&self) -> u64 {
        self.checkpoints
            .first()
            .map_or(0, |oldest| oldest.sequence + 1)
    }
}

/// What the catalog expects of a chunk of a file.
pub fn expected(id: ChunkId, record: &ChunkRecord, cluster_factor: u32) -> Expected {
    Expected {
        chunk: dfs_protocol::chunk::SealedChunk {
            id,
            version: record.version,
            length: record.length,
            crc32c: record.crc32c,
        },
        factor: record.wanted(cluster_factor),
        kind: ChunkKind::Data,
    }
}

#[cfg(test)]
mod tests {
    use dfs_protocol::datanode::{AdminState, DatanodeStats};
    use dfs_protocol::{Fence, InstanceId};
    use jiff::Timestamp;

    use super::*;
    use crate::model::datanodes::{Heard, Message};
    use crate::model::op::DatanodeRecord;

    const SECOND: Duration = Duration::from_secs(1);

    fn hear(state: &mut State, nodes: std::ops::RangeInclusive<u128>, now: Duration) {
        for id in nodes.map(DatanodeId::from_u128) {
            let message = Message {
                instance: InstanceId(1),
                // Rises with time.
                sequence: now.as_secs(),
                address: "x:1".to_owned(),
                fence: Fence::default(),
                stats: DatanodeStats::default(),
            };
            let wall = Timestamp::UNIX_EPOCH;
            assert_eq!(state.datanodes.heard(id, message, now, wall), Heard::Fresh);
        }
    }

    /// Four datanodes that are heard, and looked at, every second for a minute; the time.
    fn settled() -> (State, Duration) {
        let comparison = Comparison::new(0, Fence::default());
        let mut state = State::new(Policy::default(), comparison, TaskTable::new());
        let mut now = SECOND;
        for id in (1..=4).map(DatanodeId::from_u128) {
            let record = DatanodeRecord {
                admin: AdminState::InService,
                zone: None,
                host: None,
                address: "x:1".to_owned(),
                registered: Timestamp::UNIX_EPOCH,
                claim: None,
            };
            state.datanodes.put(id, record, now).unwrap();
        }
        for _ in 0..60 {
            hear(&mut state, 1..=4, now);
            state.safe_mode.tick(&state.datanodes, &state.replicas, now);
            state.note_silence(now);
            assert_eq!(state.hold(now), None);
            now += SECOND;
        }
        (state, now)
    }

    #[test]
    fn fault_26_after_a_pause_of_the_tracker_the_last_to_be_heard_again_is_not_taken_for_lost() {
        let (mut state, mut now) = settled();
        now += 600 * SECOND;
        // All but one come before the tracker looks: this is no partition.
        hear(&mut state, 1..=3, now);
        state.note_silence(now);
        assert!(state.hold(now).is_some());
        // It has as long as any silent datanode, and then it is one.
        for _ in 0..10 {
            assert!(state.hold(now).is_some());
            now += SECOND;
            hear(&mut state, 1..=3, now);
            state.note_silence(now);
        }
        assert_eq!(state.hold(now), None);
    }

    #[test]
    fn one_that_falls_silent_while_the_tracker_looks_holds_nothing() {
        let (mut state, mut now) = settled();
        for _ in 0..30 {
            hear(&mut state, 1..=3, now);
            state.note_silence(now);
            assert_eq!(state.hold(now), None);
            now += SECOND;
        }
    }

    #[test]
    fn fault_22_of_those_that_return_from_a_partition_the_last_may_fail_to_announce_itself_once() {
        let (mut state, mut now) = settled();
        for _ in 0..60 {
            state.note_silence(now);
            now += SECOND;
        }
        hear(&mut state, 1..=3, now);
        state.note_silence(now);
        // Two tries of five seconds, and as long before each.
        for _ in 0..20 {
            assert!(state.hold(now).is_some());
            now += SECOND;
            hear(&mut state, 1..=3, now);
            state.note_silence(now);
        }
        hear(&mut state, 4..=4, now);
        assert_eq!(state.hold(now), None);
    }
}
