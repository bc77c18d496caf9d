//! The journal beside the catalog: every batch also goes to R datanodes, so that the tracker's
//! volume is not a single point of loss. The sink does the network; the order of records and what
//! must be sent again are decided here.

use std::fmt::Debug;

use async_trait::async_trait;
use dfs_protocol::datanode::JournalRecord;

/// Whether a change is answered before the journals confirmed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalMode {
    /// Answered after catalog and journals are durable.
    Sync,
    /// Answered after the catalog is durable; the journals trail.
    Async,
}

/// Why a record was not confirmed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Too few datanodes confirmed; trying again may help.
    #[error("{confirmed} of {wanted} journals confirmed: {detail}")]
    TooFew {
        /// How many did.
        confirmed: u32,
        /// How many had to.
        wanted: u32,
        /// What the others said.
        detail: String,
    },
    /// A datanode has accepted a later tracker: this one must stop.
    #[error("a later tracker acts: {detail}")]
    Deposed {
        /// What it said.
        detail: String,
    },
}

/// Where records go. Called with rising sequences, one call at a time; after an error the same
/// record comes again, maybe under a later fence, before any later one. Appending a record twice
/// must be harmless.
#[async_trait]
pub trait JournalSink: Debug + Send + Sync + 'static {
    /// Returns when enough datanodes have the record durably. The record's fence is the acting
    /// tracker's, also when the record is an older one sent again: whoever appends a record says
    /// that it belongs to its own history.
    async fn append(&self, record: &JournalRecord) -> Result<(), JournalError>;
}

/// Confirms everything and keeps nothing.
#[derive(Debug, Default)]
pub struct NullJournal;

#[async_trait]
impl JournalSink for NullJournal {
    async fn append(&self, _record: &JournalRecord) -> Result<(), JournalError> {
        Ok(())
    }
}
