//! Whole chunks into packs, many in one call.

use std::sync::Arc;

use dfs_protocol::chunk::Replica;

use super::attempt::Attempt;
use super::error::StoreError;
use super::files::Shared;
use super::packs::{Body, Job};

/// A chunk that waits for its batch. The attempt keeps its name and its room until then.
#[derive(Debug)]
pub(super) struct Filled {
    pub(super) attempt: Attempt,
    pub(super) replica: Replica,
    pub(super) body: Body,
}

/// Appends what could be filled; each chunk has an answer of its own.
pub(super) fn put_packed(
    shared: &Arc<Shared>,
    chunks: Vec<Result<Filled, StoreError>>,
) -> Vec<Result<Replica, StoreError>> {
    let mut jobs = Vec::with_capacity(chunks.len());
    let begun: Vec<_> = chunks
        .into_iter()
        .map(|filled| {
            filled.map(|filled| {
                let Filled {
                    attempt,
                    replica,
                    body,
                } = filled;
                jobs.push(Job::Seal(body));
                (attempt, replica)
            })
        })
        .collect();
    let mut appended = shared.append_each(jobs).into_iter();
    let answer = |begun: Result<(Attempt, Replica), StoreError>| {
        let (attempt, replica) = begun?;
        // One for each job; without one nothing is known to be durable.
        let written = appended.next().unwrap_or_else(|| {
            let reason = "a pack gave no answer".to_owned();
            Err(StoreError::Failed { reason })
        });
        attempt.appended(replica, written)
    };
    begun.into_iter().map(answer).collect()
}
