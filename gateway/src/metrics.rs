//! What the doors count. Requests by route and status are counted by the request edge of `runtime`.

use dfs_protocol::frame::HopFault;
use dfs_runtime::label_enum;
use dfs_runtime::metrics::{CounterBy, counter, gauge};
use prometheus::{IntCounter, IntGauge, Registry};

label_enum! {
    /// A limit of the doors that was hit.
    pub enum Refusal: "limit" {
        /// Too many uploads at once.
        Uploads = "uploads",
        /// Too many downloads at once.
        Downloads = "downloads",
        /// A file over the largest size.
        FileBytes = "file-bytes",
        /// A form with too many parts, or too long part headers.
        Form = "form",
        /// User metadata over its size.
        Metadata = "metadata",
    }
}

label_enum! {
    /// Why a chain lost a hop.
    pub enum HopFaultLabel: "fault" {
        /// Not reached, or the connection broke.
        Unreachable = "unreachable",
        /// The volume is full or read-only.
        NoSpace = "no-space",
        /// The disk failed.
        Disk = "disk",
        /// The fence is older than one already accepted.
        Fenced = "fenced",
        /// Not the datanode, or not the cluster, that was meant.
        WrongDatanode = "wrong-datanode",
        /// The attempt to resume is not there.
        CannotResume = "cannot-resume",
        /// A sealed replica of this chunk is already there.
        AlreadySealed = "already-sealed",
        /// Bytes did not match their checksum.
        Corrupt = "corrupt",
        /// The stream broke the protocol.
        Protocol = "protocol",
        /// Too many streams.
        Busy = "busy",
    }
}

impl From<HopFault> for HopFaultLabel {
    fn from(fault: HopFault) -> Self {
        match fault {
            HopFault::Unreachable => Self::Unreachable,
            HopFault::NoSpace => Self::NoSpace,
            HopFault::Disk => Self::Disk,
            HopFault::Fenced => Self::Fenced,
            HopFault::WrongDatanode => Self::WrongDatanode,
            HopFault::CannotResume => Self::CannotResume,
            HopFault::AlreadySealed => Self::AlreadySealed,
            HopFault::Corrupt => Self::Corrupt,
            HopFault::Protocol => Self::Protocol,
            HopFault::Busy => Self::Busy,
        }
    }
}

label_enum! {
    /// A second replica that was asked because the first let its reader wait.
    pub enum Hedge: "hedge" {
        /// Asked.
        Sent = "sent",
        /// Was faster than the first.
        Won = "won",
        /// Not asked: as many as may be were outstanding.
        Refused = "refused",
    }
}

label_enum! {
    /// What was seen of a datanode that comes last for a while; the worse is the greater.
    pub enum Doubt: "doubt" {
        /// Another replica was faster by far.
        Slow = "slow",
        /// It was not reached, or did not answer.
        Silent = "silent",
    }
}

label_enum! {
    /// How an upload ended.
    pub enum UploadEnd: "outcome" {
        /// Acknowledged.
        Committed = "committed",
        /// Refused, or broken off by its client.
        Failed = "failed",
    }
}

/// Metrics of the doors.
#[derive(Debug, Clone)]
pub struct GatewayMetrics {
    /// Bytes of file content received.
    pub received_bytes: IntCounter,
    /// Bytes of file content sent.
    pub sent_bytes: IntCounter,
    /// Bytes of running uploads that no chain confirmed yet.
    pub window_bytes: IntGauge,
    /// Uploads that ended.
    pub uploads: CounterBy<UploadEnd>,
    /// Hops lost by chains.
    pub hop_failures: CounterBy<HopFaultLabel>,
    /// Reads that went on from another replica.
    pub failovers: IntCounter,
    /// Second replicas asked by reads that waited.
    pub hedges: CounterBy<Hedge>,
    /// Datanodes seen to fail or stall.
    pub doubts: CounterBy<Doubt>,
    /// Waits that were given up because the datanode was silent.
    pub silent: IntCounter,
    /// Downloads broken after their header was sent.
    pub broken_downloads: IntCounter,
    /// Uploads whose bytes did not match a digest header.
    pub digest_mismatches: IntCounter,
    /// Replicas copied before a commit.
    pub completed_replicas: IntCounter,
    /// Tries of calls that waited for a tracker that was not reached.
    pub tracker_retries: IntCounter,
    /// Calls that waited in vain.
    pub tracker_given_up: IntCounter,
    /// Limits hit.
    pub refusals: CounterBy<Refusal>,
}

impl GatewayMetrics {
    /// Registers every series.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let count =
            |name: &str, help: &str| counter(registry, &format!("dfs_gateway_{name}"), help);
        Ok(Self {
            received_bytes: count("received_bytes_total", "Bytes of file content received")?,
            sent_bytes: count("sent_bytes_total", "Bytes of file content sent")?,
            window_bytes: gauge(
                registry,
                "dfs_gateway_upload_window_bytes",
                "Bytes of running uploads that no chain confirmed yet",
            )?,
            uploads: CounterBy::register(
                registry,
                "dfs_gateway_uploads_total",
                "Uploads that ended",
            )?,
            hop_failures: CounterBy::register(
                registry,
                "dfs_gateway_hop_failures_total",
                "Hops lost by chunk chains",
            )?,
            failovers: count(
                "read_failovers_total",
                "Reads that went on from another replica",
            )?,
            hedges: CounterBy::register(
                registry,
                "dfs_gateway_read_hedges_total",
                "Second replicas asked by reads that waited for the first",
            )?,
            doubts: CounterBy::register(
                registry,
                "dfs_gateway_datanode_doubts_total",
                "Datanodes seen to fail or stall: they come last for a while",
            )?,
            silent: count(
                "silent_datanodes_total",
                "Waits given up because the datanode was silent",
            )?,
            broken_downloads: count(
                "broken_downloads_total",
                "Downloads broken after their header was sent",
            )?,
            digest_mismatches: count(
                "digest_mismatches_total",
                "Uploads whose bytes did not match a digest header",
            )?,
            tracker_retries: count(
                "tracker_retries_total",
                "Calls repeated because the tracker was not reached or not ready",
            )?,
            tracker_given_up: count(
                "tracker_given_up_total",
                "Calls that failed although they waited for the tracker as long as they may",
            )?,
            completed_replicas: count(
                "completed_replicas_total",
                "Replicas copied before a commit",
            )?,
            refusals: CounterBy::register(
                registry,
                "dfs_gateway_refusals_total",
                "Requests refused by a limit of the doors",
            )?,
        })
    }
}
