//! The journal's tail: what no write brings along. A new member of the journal set gets the records that
//! it lacks, and the catalog notes that they are there. A loop of its own: it may wait for an append
//! that itself waits for datanodes to come into the roster, which the pulse lets in.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;

use super::Work;
use crate::model::datanodes::Datanode;
use crate::service::Tracker;

#[derive(Debug, Default)]
pub(super) struct JournalTail {
    trouble: bool,
}

impl Work for JournalTail {
    async fn tick(&mut self, tracker: &Arc<Tracker>) {
        let (serving, left_out): (BTreeSet<_>, Vec<_>) = {
            let state = tracker.state();
            let serving = state.datanodes.serving().map(|node| node.id);
            let left_out = state.datanodes.serving().filter(|node| node.unreachable);
            (serving.collect(), left_out.map(Datanode::at).collect())
        };
        tracker.journal.forget_others(&serving);
        join_all(left_out.iter().map(|at| tracker.journal.try_again(at))).await;
        let unreachable = i64::try_from(left_out.len()).unwrap_or(i64::MAX);
        tracker.metrics.unreachable.set(unreachable);
        let outcome = tracker.journal.catch_up().await;
        if let Err(error) = &outcome
            && !self.trouble
        {
            tracing::warn!(%error, "the journal cannot be brought up to date");
        }
        self.trouble = outcome.is_err();
        let confirmed = tracker.catalog.confirmed_sequence();
        if let Ok(meta) = tracker.catalog.meta().await {
            let lag = meta.sequence.saturating_sub(confirmed);
            if lag > 0 && !self.trouble {
                // The records are on the members by now; the catalog notes that they are.
                if let Err(error) = tracker.catalog.confirm_journal().await {
                    tracing::debug!(%error, "the journal is not confirmed yet");
                }
            }
        }
        let members = tracker.journal.members().len();
        tracker
            .metrics
            .journal_members
            .set(i64::try_from(members).unwrap_or(i64::MAX));
    }
}
