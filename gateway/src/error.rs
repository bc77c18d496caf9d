//! How uploads and downloads fail, by what the client can do.

use dfs_client::ClientError;
use dfs_protocol::frame::{HopFailure, HopFault};
use dfs_protocol::{ErrorCode, FilePath, Problem};

/// An upload that was not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The request itself, or its body, is at fault; nothing was kept.
    #[error("{0}")]
    Request(Box<Problem>),
    /// The tracker refused, or was not reached before anything was to be committed.
    #[error(transparent)]
    Tracker(#[from] ClientError),
    /// Every datanode of a chunk's chain failed.
    #[error("no datanode of the chain is left")]
    ChainLost {
        /// What happened, in order.
        failures: Vec<HopFailure>,
    },
    /// The writer went away before the chunk was complete.
    #[error("the upload was given up")]
    GivenUp,
    /// Missing replicas could not be made in time.
    #[error("{missing} replicas could not be made in time")]
    ReplicasMissing {
        /// How many.
        missing: u32,
    },
    /// The commit was sent and no answer came: it may have taken effect.
    #[error("the tracker did not answer the commit: {source}")]
    OutcomeUnknown {
        /// The last failure.
        source: ClientError,
    },
    /// A task of ours ended without a result.
    #[error("a chunk's task failed")]
    TaskFailed,
}

impl From<Problem> for UploadError {
    fn from(problem: Problem) -> Self {
        Self::Request(Box::new(problem))
    }
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Request(problem) => *problem,
            // The tracker speaks of ids that it dropped meanwhile: for the client that is "again".
            UploadError::Tracker(error) if error.is(ErrorCode::Stale) => unavailable(
                "the upload took so long that its chunks were collected, or the tracker changed",
                "upload again",
            ),
            UploadError::Tracker(error) => error.into_problem(),
            // The tracker's picture of the volumes may be a heartbeat old.
            UploadError::ChainLost { failures } if is_full(&failures) => Self::new(
                ErrorCode::InsufficientStorage,
                "every datanode that was tried has too little room",
            )
            .next("delete files, or add datanodes or room to their volumes"),
            UploadError::ChainLost { failures } => {
                let last = failures.last();
                let why = last.map_or_else(String::new, |hop| {
                    format!("; the last, {}: {}", hop.datanode.short(), hop.detail)
                });
                unavailable(
                    &format!("every datanode that took this upload failed{why}"),
                    "nothing was stored: upload again",
                )
            }
            UploadError::GivenUp => Self::new(
                ErrorCode::IncompleteBody,
                "the body ended before its announced length",
            ),
            error @ UploadError::ReplicasMissing { .. } => unavailable(
                &error.to_string(),
                "nothing was stored: upload again, and look at the datanodes in `dfs status`",
            ),
            error @ UploadError::OutcomeUnknown { .. } => unavailable(
                &format!("{error}; whether the file was stored is unknown"),
                "read the file's ETag, or upload again: a repeated upload is harmless",
            ),
            error @ UploadError::TaskFailed => unavailable(
                &error.to_string(),
                "nothing was stored: upload again; report the request id if it happens again",
            ),
        }
    }
}

/// Whether room was all that lacked.
fn is_full(failures: &[HopFailure]) -> bool {
    let full = |failed: &HopFailure| failed.cause == HopFault::NoSpace;
    !failures.is_empty() && failures.iter().all(full)
}

fn unavailable(detail: &str, next: &str) -> Problem {
    Problem::new(ErrorCode::Unavailable, detail).next(next)
}

/// A download that cannot begin, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The tracker does not know the file, or was not reached.
    #[error(transparent)]
    Tracker(#[from] ClientError),
    /// No replica of a chunk can be read.
    #[error("no replica of bytes {from}.. of `{path}` can be read now: {detail}")]
    Unavailable {
        /// Which file.
        path: FilePath,
        /// First byte that is missing.
        from: u64,
        /// What the last replica said.
        detail: String,
        /// Set when the tracker still gathers reports.
        safe_mode: bool,
    },
    /// The reader ended before the range did.
    #[error("the reading was interrupted")]
    Interrupted,
}

impl From<DownloadError> for Problem {
    fn from(error: DownloadError) -> Self {
        let text = error.to_string();
        match error {
            DownloadError::Tracker(error) => error.into_problem(),
            // A reader ends early with the role that it reads for: another door, or the next start, serves it.
            DownloadError::Interrupted => Self::new(ErrorCode::Unavailable, text)
                .next("try again; report the request id if it happens again")
                .retry_after(1),
            DownloadError::Unavailable {
                safe_mode: true, ..
            } => Self::new(ErrorCode::SafeMode, text)
                .next("the tracker started a moment ago: try again shortly")
                .retry_after(2),
            DownloadError::Unavailable {
                safe_mode: false, ..
            } => Self::new(ErrorCode::DataUnavailable, text)
                .next("bring the datanodes that hold it back; `dfs chunks` shows them")
                .retry_after(5),
        }
    }
}
