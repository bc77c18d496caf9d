//! What a datanode is told when it starts.

use std::path::PathBuf;
use std::time::Duration;

use dfs_protocol::datanode::WriteMode;
use dfs_runtime::server::ServerLimits;
use dfs_runtime::token::Tokens;
use dfs_runtime::trace::Tracer;

use crate::journal::DEFAULT_SEGMENT_BYTES;
use crate::store::{PackLimits, SpaceLimits};

/// Settings of one datanode.
#[derive(Debug, Clone)]
pub struct DatanodeConfig {
    /// The volume's directory; made when it is missing.
    pub dir: PathBuf,
    /// `host:port` of the tracker.
    pub tracker: String,
    /// `host:port` where peers reach this datanode's API.
    pub advertise: String,
    /// Failure domain, if known.
    pub zone: Option<String>,
    /// Kubernetes node, if there is one.
    pub host: Option<String>,
    /// Kubernetes pod, if it runs in one.
    pub pod: Option<String>,
    /// Who may call, and what peers are shown.
    pub tokens: Tokens,
    /// Who writes requests down.
    pub tracer: Tracer,
    /// When the volume stops taking chunks.
    pub space: SpaceLimits,
    /// Which chunks are packed.
    pub packs: PackLimits,
    /// How the others are written, if the volume can; the best that it can otherwise.
    pub writes: Option<WriteMode>,
    /// Bytes per second that compaction of packs copies.
    pub compaction_rate: u64,
    /// How long an attempt without its writer is kept for resume.
    pub resume_lease: Duration,
    /// Attempts without writers kept at most.
    pub resume_attempts: usize,
    /// Chunks written at once, by streams, uploads and copies; and as many more that came whole.
    pub max_writes: usize,
    /// Chunks read at once.
    pub max_reads: usize,
    /// A write stream whose writer is silent for so long, within a chunk or between two, is taken for broken; so is a
    /// read stream.
    pub stream_idle: Duration,
    /// What the hops behind are given to have a chunk durable, see `write_stream::durable_within`.
    pub durable_within: Duration,
    /// Bytes per second that scrub reads.
    pub scrub_rate: u64,
    /// A replica verified within this time is not verified again.
    pub scrub_interval: Duration,
    /// Bytes per second that repair copies fetch, and as many that they are sent; 0 for no limit. Until the
    /// tracker says another.
    pub repair_rate: u64,
    /// Commands of the tracker carried out at once, and as many copies of last replicas besides.
    pub max_commands: usize,
    /// Length of a journal segment in bytes.
    pub journal_segment: u64,
    /// How long chunks of an earlier identity are kept.
    pub retired_retention: Duration,
    /// Limits of the API's listener.
    pub limits: ServerLimits,
}

impl DatanodeConfig {
    /// The defaults for a volume, a tracker and an advertised address.
    pub fn new(dir: PathBuf, tracker: impl Into<String>, advertise: impl Into<String>) -> Self {
        Self {
            dir,
            tracker: tracker.into(),
            advertise: advertise.into(),
            zone: None,
            host: None,
            pod: None,
            tokens: Tokens::none(),
            tracer: Tracer::off(),
            space: SpaceLimits::default(),
            packs: PackLimits::default(),
            writes: None,
            compaction_rate: 32 * 1024 * 1024,
            resume_lease: Duration::from_mins(2),
            resume_attempts: 64,
            max_writes: 128,
            max_reads: 256,
            stream_idle: Duration::from_mins(2),
            durable_within: Duration::from_mins(1),
            scrub_rate: 16 * 1024 * 1024,
            scrub_interval: Duration::from_hours(24),
            repair_rate: 256 * 1024 * 1024,
            max_commands: 8,
            journal_segment: DEFAULT_SEGMENT_BYTES,
            retired_retention: Duration::from_hours(24),
            limits: ServerLimits::default(),
        }
    }
}
