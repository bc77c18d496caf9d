//! What a datanode counts.

use dfs_protocol::datanode::{Damage, WriteMode};
use dfs_protocol::frame::HopFault;
use dfs_runtime::metrics::{counter, gauge, histogram, registered};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::store::Room;

mod repair;

pub use repair::{Direction, RepairMetrics};

/// Every metric of the role.
#[derive(Debug, Clone)]
pub struct DatanodeMetrics {
    /// The chunk store's.
    pub store: StoreMetrics,
    /// The volume's.
    pub volume: VolumeMetrics,
    /// Write streams open now.
    pub write_streams: IntGauge,
    /// Write streams and copies refused because too many were open.
    pub refused_busy: IntCounter,
    /// Whole chunks that wait for a place among the writes.
    pub waiting_writes: IntGauge,
    /// Attempts kept for resume now.
    pub parked_attempts: IntGauge,
    /// Attempts dropped because their time, or the room for them, was over.
    pub expired_attempts: IntCounter,
    /// Reads being served now.
    pub reads: IntGauge,
    /// Bytes of chunks sent to readers.
    pub read_bytes: IntCounter,
    /// Of these, bytes sent out of the page cache as they are.
    pub uncopied_read_bytes: IntCounter,
    /// Bytes of chunks received from writers.
    pub received_bytes: IntCounter,
    /// Requests refused for naming another datanode.
    pub wrong_datanode: IntCounter,
    /// Orders refused for an older fence.
    pub fenced: IntCounter,
    /// Heartbeats that were answered.
    pub heartbeats: IntCounter,
    /// Heartbeats and registrations that failed.
    pub heartbeat_errors: IntCounter,
    /// Full chunk reports sent.
    pub reports: IntCounter,
    /// Commands carried out.
    pub commands_done: IntCounter,
    /// Commands that failed.
    pub commands_failed: IntCounter,
    /// Commands dropped because too many waited.
    pub commands_dropped: IntCounter,
    /// Waits given up because the other datanode was silent.
    pub silent_peers: IntCounter,
    /// Bytes fetched from peers to make replicas.
    pub copied_bytes: IntCounter,
    /// Repair traffic.
    pub repair: RepairMetrics,
    /// Bytes verified by scrub.
    pub scrubbed_bytes: IntCounter,
    /// Replicas that stay open for the next read.
    pub open_chunks: IntGauge,
    /// Age of the replica verified longest ago.
    pub oldest_unverified: IntGauge,
    /// Journal records appended.
    pub journal_records: IntCounter,
    /// Journal appends and backfills refused: over a limit of bytes or records.
    pub journal_refused: IntCounter,
    /// Journal segments with damage in the middle.
    pub journal_damaged: IntGauge,
    hop_faults: IntCounterVec,
}

impl DatanodeMetrics {
    /// Registers every metric.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let c = |name: &str, help: &str| counter(registry, &format!("dfs_datanode_{name}"), help);
        let g = |name: &str, help: &str| gauge(registry, &format!("dfs_datanode_{name}"), help);
        let hop_faults = registered(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "dfs_datanode_hop_faults_total",
                    "Chunk writes that failed here or behind, by fault",
                ),
                &["fault"],
            )?,
        )?;
        for fault in HopFault::ALL {
            hop_faults.with_label_values(&[fault.as_str()]);
        }
        Ok(Self {
            store: StoreMetrics::register(registry)?,
            volume: VolumeMetrics::register(registry)?,
            write_streams: g("write_streams", "Write streams open now")?,
            waiting_writes: g("waiting_writes", "Whole chunks that wait for a place now")?,
            refused_busy: c("refused_busy_total", "Streams and copies refused: too many")?,
            parked_attempts: g("parked_attempts", "Attempts kept for resume now")?,
            expired_attempts: c("expired_attempts_total", "Attempts dropped unresumed")?,
            reads: g("reads", "Reads being served now")?,
            read_bytes: c("read_bytes_total", "Bytes of chunks sent to readers")?,
            uncopied_read_bytes: c(
                "uncopied_read_bytes_total",
                "Bytes of chunks sent out of the page cache as they are, for their readers to verify",
            )?,
            received_bytes: c(
                "received_bytes_total",
                "Bytes of chunks received from writers, sealed or not",
            )?,
            wrong_datanode: c(
                "wrong_datanode_total",
                "Requests meant for another datanode",
            )?,
            fenced: c("fenced_total", "Orders refused for an older fence")?,
            heartbeats: c("heartbeats_total", "Heartbeats answered")?,
            heartbeat_errors: c("heartbeat_errors_total", "Heartbeats that failed")?,
            reports: c("chunk_reports_total", "Full chunk reports sent")?,
            commands_done: c("commands_done_total", "Commands carried out")?,
            silent_peers: c(
                "silent_peers_total",
                "Waits given up because the other datanode was silent",
            )?,
            commands_failed: c("commands_failed_total", "Commands that failed")?,
            commands_dropped: c(
                "commands_dropped_total",
                "Commands dropped: too many waiting",
            )?,
            copied_bytes: c("copied_bytes_total", "Bytes fetched from peers")?,
            repair: RepairMetrics::register(registry)?,
            scrubbed_bytes: c("scrubbed_bytes_total", "Bytes verified by scrub")?,
            open_chunks: g(
                "open_chunks",
                "Replicas that stay open for the next read, at most 128",
            )?,
            oldest_unverified: g(
                "oldest_unverified_seconds",
                "Age of the replica verified longest ago",
            )?,
            journal_records: c("journal_records_total", "Journal records appended")?,
            journal_refused: c(
                "journal_refused_total",
                "Journal records refused: over a limit of bytes or records",
            )?,
            journal_damaged: g("journal_damaged_segments", "Journal segments with damage")?,
            hop_faults,
        })
    }

    /// Counter of one kind of fault of a write.
    pub fn hop_fault(&self, fault: HopFault) -> IntCounter {
        self.hop_faults.with_label_values(&[fault.as_str()])
    }
}

/// Room on the volume, as of the last heartbeat.
#[derive(Debug, Clone)]
pub struct VolumeMetrics {
    capacity: IntGauge,
    used: IntGauge,
    free: IntGauge,
    reserve: IntGauge,
    /// 1 while no chunk is taken.
    pub read_only: IntGauge,
}

impl VolumeMetrics {
    /// Registers every metric.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let g = |name: &str, help: &str| gauge(registry, &format!("dfs_datanode_{name}"), help);
        Ok(Self {
            capacity: g("volume_capacity_bytes", "Bytes of the volume")?,
            used: g(
                "volume_used_bytes",
                "Bytes that chunks occupy on the volume",
            )?,
            free: g(
                "volume_free_bytes",
                "Bytes that chunks may still take, without the reserve and what open writes will need",
            )?,
            reserve: g(
                "volume_reserve_bytes",
                "Bytes of the volume that chunks never take",
            )?,
            read_only: g(
                "read_only",
                "1 while no chunk is taken: too little room, or a disk that refuses writes or failed",
            )?,
        })
    }

    /// How it is now.
    pub fn set(&self, room: &Room, used: u64) {
        let Room {
            capacity,
            free,
            reserve,
            read_only: _,
        } = *room;
        let whole = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.capacity.set(whole(capacity));
        self.used.set(whole(used));
        self.free.set(whole(free));
        self.reserve.set(whole(reserve));
    }
}

/// The chunk store's metrics.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    /// Chunks sealed.
    pub sealed: IntCounter,
    /// Bytes of sealed records.
    pub written_bytes: IntCounter,
    /// Replicas removed by order.
    pub removed: IntCounter,
    /// Writes that the disk refused.
    pub write_errors: IntCounter,
    /// 1 while the disk refuses writes and no chunk is taken.
    pub refuses_writes: IntGauge,
    /// Chunks refused for lack of room.
    pub refused_full: IntCounter,
    /// Files on the volume that are not ours.
    pub foreign_files: IntGauge,
    /// Buffers for reads of many blocks and for direct writes, in use or idle.
    pub read_buffers: IntGauge,
    write_modes: IntGaugeVec,
    /// Those of small chunks.
    pub packs: PackMetrics,
    corrupt: IntCounterVec,
}

/// Entries of one batch: one fsync serves so many.
const BATCH_BUCKETS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// `dfs_datanode_pack*`: small chunks, many to a file.
#[derive(Debug, Clone)]
pub struct PackMetrics {
    packs: IntGauge,
    /// Packs that stay because the disk did not give them whole.
    pub unread: IntGauge,
    live: IntGauge,
    dead: IntGauge,
    /// Entries that wait for a batch.
    pub waiting: IntGauge,
    /// Packs deleted after what was live in them had been copied.
    pub compactions: IntCounter,
    /// Bytes of chunks copied by compaction.
    pub moved: IntCounter,
    batch: Histogram,
}

impl PackMetrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let c = |name: &str, help: &str| counter(registry, &format!("dfs_datanode_{name}"), help);
        let g = |name: &str, help: &str| gauge(registry, &format!("dfs_datanode_{name}"), help);
        Ok(Self {
            packs: g("packs", "Packs on the volume")?,
            unread: g(
                "packs_unread",
                "Packs that the disk did not give whole at the start: they stay until a later start reads them",
            )?,
            live: g("pack_live_bytes", "Bytes of live entries in packs")?,
            dead: g(
                "pack_dead_bytes",
                "Bytes of packs that compaction would give back",
            )?,
            waiting: g("pack_waiting_entries", "Entries that wait for a batch")?,
            compactions: c(
                "pack_compactions_total",
                "Packs deleted once nothing in them was needed",
            )?,
            moved: c(
                "pack_moved_bytes_total",
                "Bytes of chunks copied by compaction",
            )?,
            batch: histogram(
                registry,
                "dfs_datanode_pack_batch_entries",
                "Entries made durable by one fsync of a pack",
                BATCH_BUCKETS,
            )?,
        })
    }

    /// Packs, live bytes, dead bytes and packs that were not read whole, now.
    pub fn set(&self, [packs, live, dead, unread]: [u64; 4]) {
        let whole = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.packs.set(whole(packs));
        self.live.set(whole(live));
        self.dead.set(whole(dead));
        self.unread.set(whole(unread));
    }

    /// A batch of so many entries is durable.
    pub fn written(&self, entries: usize) {
        self.batch
            .observe(u32::try_from(entries).unwrap_or(u32::MAX).into());
    }

    /// Batches so far.
    pub fn batches(&self) -> u64 {
        self.batch.get_sample_count()
    }
}

impl StoreMetrics {
    /// Registers every metric.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let c = |name: &str, help: &str| counter(registry, &format!("dfs_datanode_{name}"), help);
        let corrupt = registered(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "dfs_datanode_corrupt_replicas_total",
                    "Replicas set aside, by damage",
                ),
                &["damage"],
            )?,
        )?;
        for damage in Damage::ALL {
            corrupt.with_label_values(&[damage.as_str()]);
        }
        let write_modes = registered(
            registry,
            IntGaugeVec::new(
                Opts::new(
                    "dfs_datanode_write_mode",
                    "1 for the way in which large chunks are written in this run",
                ),
                &["mode"],
            )?,
        )?;
        for mode in WriteMode::ALL {
            write_modes.with_label_values(&[mode.as_str()]);
        }
        Ok(Self {
            write_modes,
            sealed: c("sealed_chunks_total", "Chunks sealed")?,
            written_bytes: c("written_bytes_total", "Bytes of sealed records")?,
            removed: c("removed_chunks_total", "Replicas removed by order")?,
            write_errors: c("write_errors_total", "Writes that the disk refused")?,
            refuses_writes: gauge(
                registry,
                "dfs_datanode_refuses_writes",
                "1 while the disk refuses writes and no chunk is taken",
            )?,
            refused_full: c("refused_full_total", "Chunks refused for lack of room")?,
            foreign_files: gauge(
                registry,
                "dfs_datanode_foreign_files",
                "Files on the volume that are not ours",
            )?,
            read_buffers: gauge(
                registry,
                "dfs_datanode_read_buffers",
                "Buffers of 1 MiB for reads of many blocks and for direct writes, in use or idle",
            )?,
            packs: PackMetrics::register(registry)?,
            corrupt,
        })
    }

    /// Tells how large chunks are written.
    pub fn write_mode(&self, mode: WriteMode) {
        self.write_modes.with_label_values(&[mode.as_str()]).set(1);
    }

    /// Counter of one kind of damage.
    pub fn corrupt(&self, damage: Damage) -> IntCounter {
        self.corrupt.with_label_values(&[damage.as_str()])
    }
}
