//! What can go wrong in the catalog, named for what the caller can do.

use std::io;

use dfs_protocol::datanode::AdminState;
use dfs_protocol::{ChunkId, DatanodeId, ErrorCode, Fence, Problem, TrashId, VersionId};

/// An engine failed, or its bytes make no sense.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk gave an error. After it nothing written may be relied on: stop, restart, re-read.
    #[error("the catalog's disk failed while {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error(
        "the catalog is damaged: {detail}; keep the directory aside and run `dfs tracker rebuild` \
         to restore the catalog from the datanodes"
    )]
    Corrupt {
        /// What and where.
        detail: String,
    },
    /// Written by a program that this one does not know.
    #[error("{what} has format {found}, this program reads up to {known}: run the newer program")]
    FormatUnknown {
        /// What was read.
        what: &'static str,
        /// Its format.
        found: u8,
        /// The newest that is known.
        known: u8,
    },
    /// The volume has no room.
    #[error("the tracker's volume is full")]
    Full,
    /// Another process has the catalog.
    #[error("another process uses the catalog in {dir}: stop it first")]
    Locked {
        /// Where.
        dir: String,
    },
    /// A load or rebuild did not come to its end.
    #[error("the catalog was only partly loaded: empty its directory and load or rebuild again")]
    PartlyLoaded,
    /// A load or rebuild needs an empty catalog.
    #[error("the catalog is not empty: load or rebuild into an empty directory")]
    NotEmpty,
    /// The caller ended the transaction: nothing was written.
    #[error("the transaction was given up")]
    Abandoned,
    /// This process ends: work that had not begun is not done any more.
    #[error("the tracker is ending")]
    Ending,
    /// The engine failed in a way of its own, or a task of ours panicked.
    #[error("the catalog's engine failed: {detail}")]
    Engine {
        /// What it said.
        detail: String,
    },
}

impl StoreError {
    /// Whether the catalog must not be written any more by this process.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Full | Self::Abandoned | Self::NotEmpty | Self::Locked { .. } => false,
            Self::Io { .. }
            | Self::Corrupt { .. }
            | Self::FormatUnknown { .. }
            | Self::PartlyLoaded
            | Self::Ending
            | Self::Engine { .. } => true,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => full(),
            StoreError::Ending => {
                Self::new(ErrorCode::Unavailable, error.to_string()).next("retry after a second")
            }
            StoreError::Io { .. }
            | StoreError::Corrupt { .. }
            | StoreError::FormatUnknown { .. }
            | StoreError::Locked { .. }
            | StoreError::PartlyLoaded
            | StoreError::NotEmpty
            | StoreError::Abandoned
            | StoreError::Engine { .. } => Self::new(ErrorCode::Internal, error.to_string())
                .next("see the tracker's log; reads that do not touch the damage go on"),
        }
    }
}

/// The catalog, in its serial order, says no. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyRefusal {
    /// No such file or directory.
    #[error("nothing is stored at `{path}`")]
    NotFound {
        /// Which.
        path: String,
    },
    /// No such entry in the trash.
    #[error("the trash holds no entry {id}")]
    TrashNotFound {
        /// Which.
        id: TrashId,
    },
    /// The precondition does not hold.
    #[error("the precondition on `{path}` does not hold: {}", current_version(.current.as_ref()))]
    PreconditionFailed {
        /// Which path.
        path: String,
        /// What lives there.
        current: Option<VersionId>,
    },
    /// A file has the name of a directory that the change needs.
    #[error("`{path}` is a file, so nothing can be stored below it")]
    FileInTheWay {
        /// The file.
        path: String,
    },
    /// A directory has the name of the file.
    #[error("`{path}/` is a directory, so no file can have its name")]
    DirectoryInTheWay {
        /// The directory, without its trailing slash.
        path: String,
    },
    /// A file that must not be overwritten lives there.
    #[error("`{path}` exists already")]
    PathTaken {
        /// Which.
        path: String,
    },
    /// The upload named a chunk that was condemned: it must start over.
    #[error("chunk {chunk} was condemned before the commit arrived")]
    ChunkCondemned {
        /// Which.
        chunk: ChunkId,
    },
    /// The upload was committed before and something newer took its place since.
    #[error("the upload to `{path}` was committed before and has been superseded since")]
    Superseded {
        /// Where it was to appear.
        path: String,
    },
    /// A replica that was counted lies on a datanode that is not in service: place it anew.
    #[error("a replica of chunk {chunk} lies on datanode {datanode}, which is not in service")]
    ReplicaNotInService {
        /// Which chunk.
        chunk: ChunkId,
        /// Which datanode.
        datanode: DatanodeId,
    },
    /// What a datanode's record says was decided on an older one.
    #[error("datanode {datanode} is {admin:?} by now")]
    AdminChanged {
        /// Whose.
        datanode: DatanodeId,
        /// What it is now.
        admin: AdminState,
    },
    /// Another tracker has begun a later epoch.
    #[error("fence {offered} is not later than {stored}")]
    Fenced {
        /// What was offered.
        offered: Fence,
        /// What is stored.
        stored: Fence,
    },
    /// More files than one transaction may move.
    #[error("`{path}` holds more than {limit} files, the most that one move takes")]
    TooManyFiles {
        /// Which directory.
        path: String,
        /// The limit.
        limit: u64,
    },
    /// A deregistered datanode's uuid is gone for ever.
    #[error("datanode {datanode} is tombstoned: it comes back only under a new uuid")]
    Tombstoned {
        /// Which.
        datanode: DatanodeId,
    },
    /// The request contradicts itself.
    #[error("{detail}")]
    Invalid {
        /// How.
        detail: String,
    },
    /// The volume has no room for changes that take some.
    #[error("the tracker's volume is full")]
    Full,
    /// The engine failed: the whole batch ends.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn current_version(current: Option<&VersionId>) -> String {
    current.map_or_else(
        || "nothing is stored there".to_owned(),
        |version| format!("version {version} is stored there"),
    )
}

impl ApplyRefusal {
    /// Metric label value.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::TrashNotFound { .. } => "not-found",
            Self::PreconditionFailed { .. } => "precondition-failed",
            Self::FileInTheWay { .. } | Self::DirectoryInTheWay { .. } | Self::PathTaken { .. } => {
                "conflict"
            }
            Self::ChunkCondemned { .. } | Self::Superseded { .. } => "stale",
            Self::ReplicaNotInService { .. } => "replica-not-in-service",
            Self::AdminChanged { .. } => "admin-changed",
            Self::Fenced { .. } => "fenced",
            Self::TooManyFiles { .. } => "too-many-files",
            Self::Tombstoned { .. } => "tombstoned",
            Self::Invalid { .. } => "invalid",
            Self::Full => "full",
            Self::Store(_) => "store",
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } | Self::TrashNotFound { .. } => ErrorCode::NotFound,
            Self::PreconditionFailed { .. } => ErrorCode::PreconditionFailed,
            Self::FileInTheWay { .. }
            | Self::DirectoryInTheWay { .. }
            | Self::PathTaken { .. }
            | Self::ReplicaNotInService { .. }
            | Self::AdminChanged { .. }
            | Self::Tombstoned { .. } => ErrorCode::Conflict,
            Self::ChunkCondemned { .. } | Self::Superseded { .. } => ErrorCode::Stale,
            Self::Fenced { .. } => ErrorCode::Fenced,
            Self::TooManyFiles { .. } | Self::Invalid { .. } => ErrorCode::BadRequest,
            Self::Full => ErrorCode::InsufficientStorage,
            Self::Store(_) => ErrorCode::Internal,
        }
    }

    fn advice(&self) -> &'static str {
        match self {
            Self::NotFound { .. } | Self::TrashNotFound { .. } => "list what is there first",
            Self::PreconditionFailed { .. } => "read the current version and decide anew",
            Self::FileInTheWay { .. } | Self::DirectoryInTheWay { .. } => {
                "choose another name, or move what is in the way"
            }
            Self::PathTaken { .. } => "choose another name, or delete what is there first",
            Self::ChunkCondemned { .. } | Self::Superseded { .. } => "upload again",
            Self::ReplicaNotInService { .. } => "copy the replica to a datanode in service",
            Self::AdminChanged { .. } => "look at it again: dfs nodes",
            Self::Fenced { .. } => "another tracker acts: this one must stop",
            Self::TooManyFiles { .. } => "move its directories one by one",
            Self::Tombstoned { .. } => "let the datanode register under a new uuid",
            Self::Invalid { .. } => "correct the request",
            Self::Full => "delete files, or grow the tracker's volume",
            Self::Store(_) => "see the tracker's log",
        }
    }
}

impl From<ApplyRefusal> for Problem {
    fn from(refusal: ApplyRefusal) -> Self {
        match refusal {
            ApplyRefusal::Store(error) => error.into(),
            ApplyRefusal::Full => full(),
            other => Self::new(other.code(), other.to_string()).next(other.advice()),
        }
    }
}

/// What became of a submitted change when it was not done.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Decided: no. Nothing was changed.
    #[error(transparent)]
    Refused(#[from] ApplyRefusal),
    /// Too many changes wait: nothing was changed.
    #[error("too many changes wait for the catalog")]
    Busy,
    /// The change is on the tracker's disk, but the datanodes' journals did not confirm it: the
    /// outcome is unknown. Retrying the same change is harmless.
    #[error("the change was not confirmed by enough journals, its outcome is unknown: {detail}")]
    Unconfirmed {
        /// What the journal said.
        detail: String,
    },
    /// The catalog failed before and takes no change until the process restarts.
    #[error("the catalog failed and takes no changes until the tracker restarts: {detail}")]
    Poisoned {
        /// The first failure.
        detail: String,
    },
    /// The catalog is being closed.
    #[error("the tracker is stopping")]
    Closed,
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(refusal) => refusal.into(),
            SubmitError::Unconfirmed { .. } => Self::new(ErrorCode::Unavailable, error.to_string())
                .next("send the same request again: it has one effect"),
            SubmitError::Busy | SubmitError::Poisoned { .. } | SubmitError::Closed => {
                Self::new(ErrorCode::Unavailable, error.to_string()).next("retry after a second")
            }
        }
    }
}

fn full() -> Problem {
    Problem::new(
        ErrorCode::InsufficientStorage,
        "the tracker's volume has no room for more catalog",
    )
    .next("delete files, or grow the tracker's volume")
}
