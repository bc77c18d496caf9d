//! What calls are called, in metrics and traces: a closed set, whatever is asked for.

use dfs_protocol::routes::{datanode, tracker};
use dfs_runtime::metrics::Label as _;

use crate::error::ClientError;

dfs_runtime::label_enum! {
    /// Whom a call goes to.
    pub enum Peer: "peer" {
        /// The tracker.
        Tracker = "tracker",
        /// A datanode.
        Datanode = "datanode",
        /// Whoever it is.
        Other = "other",
    }
}

dfs_runtime::label_enum! {
    /// What a call is for.
    pub enum Call: "call" {
        /// Room for new chunks.
        Allocate = "allocate",
        /// Chunks that are being written, or are not any more.
        Renew = "renew",
        /// An upload becomes visible.
        Commit = "commit",
        /// A file and where it is.
        Locate = "locate",
        /// Names.
        List = "list",
        /// Any other change of the catalog or of an admin state.
        Change = "change",
        /// Any other look at the tracker's state.
        Look = "look",
        /// A datanode says that it lives.
        Heartbeat = "heartbeat",
        /// A datanode or a reader says what it found.
        Report = "report",
        /// Who a datanode is.
        Identity = "identity",
        /// Blocks of a chunk.
        Read = "read",
        /// A chunk, through a chain.
        Write = "write",
        /// A replica is fetched from a peer.
        Copy = "copy",
        /// What a datanode holds.
        Holdings = "holdings",
        /// Records of the catalog's journal.
        Journal = "journal",
        /// Anything else.
        Other = "other",
    }
}

impl Call {
    /// What a request with this path is for.
    pub fn of(path: &str) -> Self {
        if let Some(name) = path.strip_prefix(tracker::CALL_PREFIX) {
            return Self::named(name);
        }
        match path {
            tracker::REGISTER | tracker::HEARTBEAT => Self::Heartbeat,
            tracker::CHUNK_REPORT => Self::Report,
            tracker::STATUS
            | tracker::CHUNKS
            | tracker::FSCK
            | tracker::TRASH
            | tracker::CATALOG
            | tracker::PLAN
            | tracker::REFUSALS
            | tracker::NODES
            | tracker::OK_TO_STOP => Self::Look,
            tracker::CATALOG_REBUILD => Self::Change,
            datanode::IDENTITY => Self::Identity,
            datanode::DOWNLOAD_CHUNK | datanode::READ_STREAM => Self::Read,
            datanode::UPLOAD_CHUNK | datanode::WRITE_STREAM => Self::Write,
            datanode::COPY => Self::Copy,
            datanode::INVENTORY => Self::Holdings,
            datanode::JOURNAL | datanode::JOURNAL_BACKFILL => Self::Journal,
            _ if path.starts_with("/nodes/") && path.ends_with("/proof") => Self::Look,
            _ if path.starts_with("/nodes/") => Self::Change,
            _ if path.starts_with("/chunks/") => Self::Holdings,
            _ => Self::Other,
        }
    }

    fn named(name: &str) -> Self {
        match name {
            "allocate" => Self::Allocate,
            "renew" => Self::Renew,
            "commit" => Self::Commit,
            "locate" => Self::Locate,
            "list" => Self::List,
            "suspect" => Self::Report,
            "status" | "datanodes" | "chunks" | "fsck" | "trash" | "safe_to_remove"
            | "ok_to_stop" => Self::Look,
            _ => Self::Change,
        }
    }

    /// Whom it goes to.
    pub const fn peer(self) -> Peer {
        match self {
            Self::Allocate
            | Self::Renew
            | Self::Commit
            | Self::Locate
            | Self::List
            | Self::Change
            | Self::Look
            | Self::Heartbeat
            | Self::Report => Peer::Tracker,
            Self::Identity
            | Self::Read
            | Self::Write
            | Self::Copy
            | Self::Holdings
            | Self::Journal => Peer::Datanode,
            Self::Other => Peer::Other,
        }
    }

    /// As a span is named.
    pub(crate) fn name(self) -> &'static str {
        self.as_str()
    }
}

dfs_runtime::label_enum! {
    /// How a call ended: at the head of its answer, or without one.
    pub enum CallResult: "result" {
        /// It was answered.
        Ok = "ok",
        /// The peer said no.
        Refused = "refused",
        /// It was not sent.
        NotConnected = "not-connected",
        /// The connection broke.
        Unreachable = "unreachable",
        /// There was no answer in time.
        TimedOut = "timed-out",
        /// The answer is none of this protocol.
        Malformed = "malformed",
        /// Whoever asked did not wait for the answer.
        GivenUp = "given-up",
    }
}

impl From<&ClientError> for CallResult {
    fn from(error: &ClientError) -> Self {
        match error {
            ClientError::Refused(_) => Self::Refused,
            ClientError::NotConnected { .. } => Self::NotConnected,
            ClientError::Unreachable { .. } | ClientError::BrokenOff { .. } => Self::Unreachable,
            ClientError::TimedOut { .. } => Self::TimedOut,
            ClientError::Malformed { .. } => Self::Malformed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_calls_and_ids_in_them_make_none() {
        let calls = [
            ("/internal/call/locate", Call::Locate),
            ("/internal/call/set_admin", Call::Change),
            ("/internal/heartbeat", Call::Heartbeat),
            ("/chunks", Call::Look),
            ("/chunks/copy", Call::Copy),
            ("/chunks/0190-7", Call::Holdings),
            ("/chunks/write-stream", Call::Write),
            ("/nodes/0190-7/admit", Call::Change),
            ("/nodes/0190-7/proof", Call::Look),
            ("/download-chunk", Call::Read),
            ("/files/any", Call::Other),
        ];
        for (path, call) in calls {
            assert_eq!(Call::of(path), call, "{path}");
        }
        assert_eq!(Call::Read.peer(), Peer::Datanode);
    }
}
