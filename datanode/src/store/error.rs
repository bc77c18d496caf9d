//! How the chunk store fails, and the switch that stops the process after a failed fsync.

use std::io;
use std::path::Path;

use dfs_protocol::datanode::Damage;
use dfs_protocol::frame::HopFault;
use dfs_protocol::{ChunkId, ChunkVersion, ErrorCode, Problem};
use tokio::sync::watch;

/// A failure of the chunk store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such replica here.
    #[error("chunk {chunk} version {version} is not on this datanode")]
    NotFound {
        /// Which chunk.
        chunk: ChunkId,
        /// Which version.
        version: ChunkVersion,
    },
    /// A sealed replica is already there; sealed chunks never change.
    #[error("chunk {chunk} version {version} is already sealed here")]
    AlreadySealed {
        /// Which chunk.
        chunk: ChunkId,
        /// Which version.
        version: ChunkVersion,
    },
    /// Another stream is writing it.
    #[error("chunk {chunk} version {version} is being written by another stream")]
    InProgress {
        /// Which chunk.
        chunk: ChunkId,
        /// Which version.
        version: ChunkVersion,
    },
    /// The attempt to go on with is not there, or shorter than asked for.
    #[error("chunk {chunk} cannot go on at byte {length}: this datanode has {have} bytes of it")]
    CannotResume {
        /// Which chunk.
        chunk: ChunkId,
        /// Where to go on.
        length: u64,
        /// What is there.
        have: u64,
    },
    /// The replica of that name is of another kind.
    #[error("chunk {chunk} is of another kind than the order says")]
    WrongKind {
        /// Which chunk.
        chunk: ChunkId,
    },
    /// No room.
    #[error("the volume has room for {free} more bytes of chunks, {needed} are needed")]
    NoSpace {
        /// Bytes wanted.
        needed: u64,
        /// Bytes that chunks may still take.
        free: u64,
    },
    /// The replica is damaged and was set aside.
    #[error("the replica of chunk {chunk} version {version} is damaged ({})", damage.as_str())]
    Corrupt {
        /// Which chunk.
        chunk: ChunkId,
        /// Which version.
        version: ChunkVersion,
        /// How it showed.
        damage: Damage,
    },
    /// What arrived is not what was announced.
    #[error("the bytes of chunk {chunk} do not match what was announced: {detail}")]
    Mismatch {
        /// Which chunk.
        chunk: ChunkId,
        /// What differs.
        detail: &'static str,
    },
    /// The writer broke the rules of the stream.
    #[error("the write of chunk {chunk} broke the protocol: {detail}")]
    Protocol {
        /// Which chunk.
        chunk: ChunkId,
        /// Which rule.
        detail: &'static str,
    },
    /// The disk failed; the replica in question was not acknowledged or not read.
    #[error("{doing} failed")]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// An fsync failed: nothing is acknowledged until the process has restarted (I14).
    #[error("the volume stopped after a failed fsync: {reason}")]
    Failed {
        /// What failed.
        reason: String,
    },
}

impl StoreError {
    /// A disk error; running out of room is told apart.
    pub fn disk(doing: &'static str, source: io::Error) -> Self {
        if is_full(&source) {
            Self::NoSpace { needed: 0, free: 0 }
        } else {
            Self::Disk { doing, source }
        }
    }

    /// What a writer upstream is told.
    pub fn fault(&self) -> HopFault {
        match self {
            Self::AlreadySealed { .. } => HopFault::AlreadySealed,
            Self::InProgress { .. } => HopFault::Busy,
            Self::CannotResume { .. } | Self::NotFound { .. } => HopFault::CannotResume,
            Self::NoSpace { .. } => HopFault::NoSpace,
            Self::Mismatch { .. } => HopFault::Corrupt,
            Self::Protocol { .. } | Self::WrongKind { .. } => HopFault::Protocol,
            Self::Corrupt { .. } | Self::Disk { .. } | Self::Failed { .. } => HopFault::Disk,
        }
    }

    /// The error with its source, for logs and details.
    pub fn describe(&self) -> String {
        match self {
            Self::Disk { source, .. } => format!("{self}: {source}"),
            Self::NotFound { .. }
            | Self::AlreadySealed { .. }
            | Self::InProgress { .. }
            | Self::CannotResume { .. }
            | Self::WrongKind { .. }
            | Self::NoSpace { .. }
            | Self::Corrupt { .. }
            | Self::Mismatch { .. }
            | Self::Protocol { .. }
            | Self::Failed { .. } => self.to_string(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let (code, next) = match &error {
            StoreError::NotFound { .. } => (
                ErrorCode::NotFound,
                "ask the tracker where the chunk's replicas are",
            ),
            StoreError::AlreadySealed { .. } => (
                ErrorCode::Conflict,
                "read it instead, or write under a new chunk id",
            ),
            StoreError::InProgress { .. } => (
                ErrorCode::Conflict,
                "wait for the other stream, or write under a new version",
            ),
            StoreError::CannotResume { .. } => {
                (ErrorCode::Conflict, "write the chunk from its beginning")
            }
            StoreError::WrongKind { .. } => (ErrorCode::Conflict, "ask the tracker again"),
            StoreError::NoSpace { .. } => (
                ErrorCode::InsufficientStorage,
                "write to another datanode; delete files or add room to this volume",
            ),
            StoreError::Corrupt { .. } => (
                ErrorCode::DataUnavailable,
                "read another replica; this one was set aside and will be repaired",
            ),
            StoreError::Mismatch { .. } => (ErrorCode::BadDigest, "send the chunk again"),
            StoreError::Protocol { .. } => (ErrorCode::BadRequest, "send the chunk again"),
            StoreError::Disk { .. } => (ErrorCode::Unavailable, "use another replica"),
            StoreError::Failed { .. } => (
                ErrorCode::Unavailable,
                "use another datanode until this one has restarted",
            ),
        };
        Self::new(code, error.describe()).next(next)
    }
}

/// Whether an error says that the file system or the quota is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Whether an error is about this process rather than about the bytes: no handles, no memory, no
/// permission. Nothing is set aside for it (fault 29).
pub fn is_passing(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
        || matches!(
            error.kind(),
            io::ErrorKind::PermissionDenied
                | io::ErrorKind::OutOfMemory
                | io::ErrorKind::Interrupted
                | io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
        )
}

/// Set once when an fsync failed, or what is durable is not known for another reason. From then on nothing is acknowledged, and the process stops.
#[derive(Debug)]
pub struct FailStop(watch::Sender<Option<String>>);

impl Default for FailStop {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl FailStop {
    /// Stops the store after a failed fsync. The first reason stays.
    pub fn fail(&self, what: &Path, error: &io::Error) -> StoreError {
        self.stop(format!("fsync of {}: {error}", what.display()))
    }

    /// Stops the store: what is durable is not known any more.
    pub fn stop(&self, reason: String) -> StoreError {
        tracing::error!(
            reason,
            "nothing more is acknowledged and the datanode stops"
        );
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                *current = Some(reason.clone());
            }
            first
        });
        StoreError::Failed { reason }
    }

    /// Fails when the store was stopped.
    pub fn check(&self) -> Result<(), StoreError> {
        match &*self.0.borrow() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Failed {
                reason: reason.clone(),
            }),
        }
    }

    /// Whether the store was stopped.
    pub fn is_failed(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits until the store is stopped; gives the reason.
    pub async fn failed(&self) -> String {
        let mut receiver = self.0.subscribe();
        loop {
            if let Some(reason) = receiver.borrow_and_update().clone() {
                return reason;
            }
            if receiver.changed().await.is_err() {
                // The sender lives in `self`: it cannot be gone.
                std::future::pending::<()>().await;
            }
        }
    }
}
