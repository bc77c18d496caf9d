//! Every knob of the tracker, with the defaults of a production cluster.

use std::path::PathBuf;
use std::time::Duration;

use dfs_protocol::ClusterId;
use dfs_protocol::chunk::DEFAULT_CHUNK_SIZE;
use dfs_runtime::forwarded::TrustedProxies;
use dfs_runtime::server::ServerLimits;
use dfs_runtime::token::Tokens;
use dfs_runtime::trace::Tracer;

use crate::plan::{DEFAULT_REPAIR_RATE, Policy};
use crate::store::JournalMode;

/// Who lets newcomers in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AdmissionPolicy {
    /// Whoever reaches the port, with the token where there is one, is in.
    #[default]
    Auto,
    /// A newcomer waits until an administrator admits it.
    Operator,
}

/// Knobs of the tracker.
#[derive(Debug, Clone)]
pub struct TrackerConfig {
    /// The tracker's volume.
    pub dir: PathBuf,
    /// Replicas of each chunk, 1 to 7.
    pub replication_factor: u32,
    /// Fewest replicas of an acknowledged write; min(2, factor) when not said.
    pub min_write: Option<u32>,
    /// Bytes of a full chunk.
    pub chunk_size: u64,
    /// Between two heartbeats of a datanode.
    pub heartbeat_interval: Duration,
    /// How long a datanode may be silent before its chunks are copied elsewhere.
    pub repair_delay: Duration,
    /// How long an unnamed chunk stays after its lease was last renewed.
    pub orphan_age: Duration,
    /// How long a write lease lasts between renewals.
    pub lease: Duration,
    /// How long deleted and replaced versions can be restored; zero turns the trash off.
    pub trash_retention: Duration,
    /// Whether a change waits for the journals.
    pub journal: JournalMode,
    /// A checkpoint is taken after so many journal records ...
    pub checkpoint_records: u64,
    /// ... or when this long has passed since the last one and something changed.
    pub checkpoint_interval: Duration,
    /// Most copies under way in the whole cluster.
    pub repairs_total: u32,
    /// Most copies under way to or from one datanode.
    pub repairs_per_datanode: u32,
    /// Bytes that up to 64 small copies may have together in the place of one.
    pub repair_small_copy: u64,
    /// Most bytes a second that one datanode receives for repair, and that it sends; 0 for no limit.
    pub repair_rate: u64,
    /// Most bytes a second that are copied off datanodes that leave.
    pub decommission_rate: Option<u64>,
    /// Percent by which the used shares of two datanodes may differ; 0 turns rebalance off.
    pub rebalance_threshold: u32,
    /// Most bytes that begin to move in a second.
    pub rebalance_rate: u64,
    /// Datanodes that so many moved bytes would make alike are alike enough.
    pub rebalance_slack: u64,
    /// Bytes of the engine's cache.
    pub cache_bytes: usize,
    /// Saves the allocator state with each commit: quick restarts, dearer commits.
    pub quick_repair: bool,
    /// Below so many free bytes on its volume the catalog takes no changes but deletions.
    pub reserve_bytes: u64,
    /// Bytes kept aside so that deletions still work on a full volume.
    pub ballast_bytes: u64,
    /// Who may call, and what datanodes are shown.
    pub tokens: Tokens,
    /// Who lets newcomers in.
    pub admission: AdmissionPolicy,
    /// The cluster whose catalog must be here: where there is none, none is made (it is lost).
    pub expect_cluster: Option<ClusterId>,
    /// How often the loops look.
    pub tick: Duration,
    /// Limits of the API listener.
    pub server: ServerLimits,
    /// Whose word on the client is taken, for logs.
    pub proxies: TrustedProxies,
    /// Who writes requests down.
    pub tracer: Tracer,
}

impl TrackerConfig {
    /// Production defaults on the volume `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            replication_factor: 3,
            min_write: None,
            chunk_size: DEFAULT_CHUNK_SIZE,
            heartbeat_interval: Duration::from_secs(1),
            repair_delay: Duration::from_mins(5),
            orphan_age: Duration::from_hours(1),
            lease: Duration::from_mins(1),
            trash_retention: Duration::from_hours(24),
            journal: JournalMode::Sync,
            checkpoint_records: 20_000,
            checkpoint_interval: Duration::from_mins(15),
            repairs_total: 64,
            repairs_per_datanode: 4,
            repair_small_copy: 16 * 1024 * 1024,
            repair_rate: DEFAULT_REPAIR_RATE,
            decommission_rate: None,
            rebalance_threshold: 5,
            rebalance_rate: 64 * 1024 * 1024,
            rebalance_slack: 1024 * 1024,
            cache_bytes: 32 * 1024 * 1024,
            quick_repair: false,
            reserve_bytes: 64 * 1024 * 1024,
            ballast_bytes: 16 * 1024 * 1024,
            tokens: Tokens::none(),
            admission: AdmissionPolicy::Auto,
            expect_cluster: None,
            tick: Duration::from_millis(250),
            server: ServerLimits::default(),
            proxies: TrustedProxies::default(),
            tracer: Tracer::off(),
        }
    }

    /// The fewest replicas of an acknowledged write.
    pub fn min_write(&self) -> u32 {
        self.min_write.unwrap_or(2).min(self.replication_factor)
    }

    /// The knobs of the tracker's decisions.
    pub fn policy(&self) -> Policy {
        let mut policy = Policy {
            factor: self.replication_factor,
            min_write: Some(self.min_write()),
            ..Policy::default()
        };
        policy.liveness.heartbeat_interval = self.heartbeat_interval;
        // A promise is kept by the next heartbeats; a datanode that misses ten is dead anyway.
        policy.promise_patience = self.heartbeat_interval * 30;
        policy.leases.duration = self.lease;
        policy.leases.remember = self.orphan_age.max(self.lease) * 2;
        policy.repair.delay = self.repair_delay;
        policy.repair.copies_to = self.repairs_per_datanode;
        policy.repair.copies_from = self.repairs_per_datanode;
        policy.repair.copies_total = self.repairs_total;
        policy.repair.small_copy = self.repair_small_copy;
        policy.repair.rate = self.repair_rate;
        policy.repair.decommission_rate = self.decommission_rate;
        policy.rebalance.threshold = self.rebalance_threshold;
        policy.rebalance.rate = self.rebalance_rate;
        policy.rebalance.slack = self.rebalance_slack;
        policy.gc.orphan_age = self.orphan_age;
        policy.gc.forget_after = self.orphan_age * 24;
        policy.trash.retention = self.trash_retention;
        policy
    }

    /// Whether deleted versions are kept.
    pub fn keeps_trash(&self) -> bool {
        !self.trash_retention.is_zero()
    }
}
