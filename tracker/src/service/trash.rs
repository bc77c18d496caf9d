//! The trash as people use it: list, bring back, delete for good.

use dfs_protocol::calls::{Nothing, PurgeRequest, RestoreRequest, TrashPage, TrashRequest};
use dfs_protocol::file::FileRecord;
use dfs_protocol::{ErrorCode, Problem};

use super::Tracker;
use super::writes::unexpected;
use crate::model::op::{Op, OpOutcome};

/// Entries of the largest page.
const MAX_PAGE: u32 = 1000;

impl Tracker {
    /// One page, oldest first.
    pub async fn list_trash(&self, request: TrashRequest) -> Result<TrashPage, Problem> {
        let TrashRequest { limit, after } = request;
        let limit = limit.clamp(1, MAX_PAGE) as usize;
        let entries = self
            .catalog
            .read(move |snapshot| snapshot.scan_trash(after, limit))
            .await?;
        let next = if entries.len() == limit {
            entries.last().map(|entry| entry.id)
        } else {
            None
        };
        Ok(TrashPage { entries, next })
    }

    /// Brings a version back under its old path or another.
    ///
    /// Errors: `not-found`, `conflict` (the path is taken).
    pub async fn bring_back(&self, request: RestoreRequest) -> Result<FileRecord, Problem> {
        let RestoreRequest { id, to, upload } = request;
        self.hears_majority()?;
        let op = Op::Restore {
            id,
            to,
            upload,
            now: self.clock.wall(),
        };
        match self.catalog.submit(op).await? {
            OpOutcome::File { file, .. } => Ok(*file),
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes a version in the trash for good.
    ///
    /// Errors: `not-found`.
    pub async fn purge_one(&self, request: PurgeRequest) -> Result<Nothing, Problem> {
        self.hears_majority()?;
        let op = Op::Purge {
            ids: vec![request.id],
            now: self.clock.wall(),
        };
        match self.catalog.submit(op).await? {
            OpOutcome::Condemned { purged: 0, .. } => Err(Problem::new(
                ErrorCode::NotFound,
                format!("the trash holds no entry {}", request.id),
            )
            .next("list it: dfs trash list")),
            OpOutcome::Condemned { .. } => Ok(Nothing {}),
            other => Err(unexpected(&other)),
        }
    }
}
