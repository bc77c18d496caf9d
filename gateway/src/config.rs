//! Every limit of the doors.

use std::time::Duration;

use dfs_protocol::chunk::BLOCK_SIZE_U64;
use dfs_protocol::frame::PROGRESS_STEP;
use dfs_runtime::token::Tokens;

/// Least window: confirmations come each [`PROGRESS_STEP`], and two chunks may share the window.
const LEAST_WINDOW: u64 = 2 * PROGRESS_STEP + BLOCK_SIZE_U64;

/// What `/openapi.json` describes.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Document {
    /// The public door alone.
    #[default]
    Public,
    /// Both doors, and the `paths` that the mounting role adds (an OpenAPI paths object).
    PublicAndAdmin {
        /// More paths; `serde_json::Value::Null` for none.
        more: serde_json::Value,
    },
}

/// Limits of the doors. The defaults suit a gateway of 1 GiB.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayConfig {
    /// Bytes of one upload that no chain confirmed yet: the whole memory of an upload. At least
    /// two progress steps and a block, whatever is set.
    pub window_bytes: u64,
    /// Largest file.
    pub max_file_bytes: u64,
    /// Uploads at once; the next gets 503.
    pub max_uploads: usize,
    /// Downloads at once; the next gets 503.
    pub max_downloads: usize,
    /// How long a read waits for a replica's next block before it asks another one as well; for the first block
    /// down to a tenth of it, where replicas are usually quicker.
    pub hedge_after: Duration,
    /// Second replicas asked at once; a read that finds no place goes on waiting for the first.
    pub max_hedges: usize,
    /// Placements asked for at once, 1 to 64.
    pub pool_size: u32,
    /// Placements older than this are not used.
    pub pool_max_age: Duration,
    /// How long a chain whose first hop lives may owe a confirmation. No shorter than the datanodes' own limit
    /// (`DatanodeConfig::durable_within`), so that they name the hop at fault first.
    pub chain_stall: Duration,
    /// How long a commit is repeated while the tracker does not answer or is not ready.
    pub commit_deadline: Duration,
    /// How long missing replicas are copied before a commit.
    pub replica_deadline: Duration,
    /// How long a call waits for a tracker that cannot be reached, as while it restarts.
    pub tracker_patience: Duration,
    /// What datanodes are shown.
    pub tokens: Tokens,
    /// What `/openapi.json` describes.
    pub document: Document,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            window_bytes: 4 * 1024 * 1024,
            max_file_bytes: 16 * 1024 * 1024 * 1024 * 1024,
            max_uploads: 128,
            max_downloads: 512,
            hedge_after: Duration::from_millis(500),
            max_hedges: 128,
            pool_size: 16,
            pool_max_age: Duration::from_secs(20),
            chain_stall: Duration::from_mins(1),
            commit_deadline: Duration::from_secs(30),
            replica_deadline: Duration::from_mins(1),
            tracker_patience: Duration::from_secs(30),
            tokens: Tokens::none(),
            document: Document::Public,
        }
    }
}

impl GatewayConfig {
    /// The window that is used.
    pub(crate) fn window(&self) -> usize {
        let bytes = self.window_bytes.max(LEAST_WINDOW);
        // A permit counts one byte; the semaphore's ceiling is far above any sensible window.
        usize::try_from(bytes).map_or(u32::MAX as usize, |bytes| bytes.min(u32::MAX as usize))
    }
}
