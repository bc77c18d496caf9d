//! What-if and proofs, for people.

use std::collections::{BTreeMap, BTreeSet};

use dfs_protocol::datanode::AdminState;
use dfs_protocol::plan::{
    MAX_PLANNED, NamingError, PlanAnswer, PlanQuestion, PlannedDatanode, Proof, find_datanode,
    find_datanodes,
};
use dfs_protocol::{ChunkId, ErrorCode, FilePath, Problem};

use super::{State, Tracker};
use crate::plan::removal::{ok_to_stop, safe_to_remove};
use crate::plan::what_if::{self, WhatIfView, planned};

/// Files of one page while chunks are looked for.
const PAGE: usize = 1000;
/// Pages that are searched for the files of chunks: a hundred thousand files.
const MAX_PAGES: usize = 100;

impl Tracker {
    /// What would be. Nothing changes.
    ///
    /// Errors: `not-found` for a name that no datanode has, `invalid-parameter`.
    pub async fn foresee(&self, question: PlanQuestion) -> Result<PlanAnswer, Problem> {
        let mut answer = {
            let now = self.clock.monotonic();
            let mut state = self.state();
            state.sync(now);
            let hold = state.hold(now);
            let view = WhatIfView {
                datanodes: &state.datanodes,
                replicas: &state.replicas,
                hold: hold.as_ref(),
                policy: &state.policy,
                copy_rate: state.whole_copy_rate(),
            };
            match question {
                PlanQuestion::Scale(wanted) if wanted as usize > MAX_PLANNED => {
                    return Err(too_many());
                }
                PlanQuestion::Scale(wanted) => what_if::scale(&view, wanted, now),
                PlanQuestion::Lose(names) if names.len() > MAX_PLANNED => return Err(too_many()),
                PlanQuestion::Lose(names) => {
                    let all = names_of(&state);
                    let mut gone = BTreeSet::new();
                    for name in names {
                        let found =
                            find_datanodes(&all, &name).map_err(|error| misnamed(&error))?;
                        gone.extend(found.iter().map(|node| node.id));
                    }
                    what_if::lose(&view, &gone, now)
                }
            }
        };
        let wanted = answer.missing_chunks.iter().copied().collect();
        (answer.missing_files, answer.files_searched) = self.files_of(wanted).await?;
        Ok(answer)
    }

    /// Whether a datanode may stop and whether it may go, by whatever name it has.
    ///
    /// Errors: `not-found`, `conflict` where the name means several.
    pub async fn prove(&self, name: &str) -> Result<Proof, Problem> {
        let mut proof = {
            let now = self.clock.monotonic();
            let mut state = self.state();
            state.sync(now);
            let datanode = find_datanode(&names_of(&state), name)
                .map_err(|error| misnamed(&error))?
                .clone();
            let hold = state.hold(now);
            let view = state.removal_view(hold.as_ref());
            let known = state.datanodes.get(datanode.id);
            Proof {
                admin: known.map_or(AdminState::Tombstoned, |node| node.record.admin),
                may_stop: ok_to_stop(&view, &[datanode.id], now),
                may_go: safe_to_remove(&view, datanode.id, now),
                datanode,
                files: Vec::new(),
                files_searched: true,
            }
        };
        let named = proof.may_stop.chunks.iter().chain(&proof.may_go.chunks);
        let wanted = named.copied().collect();
        (proof.files, proof.files_searched) = self.files_of(wanted).await?;
        Ok(proof)
    }

    /// Files that name these chunks, as far as a bounded search finds them, and whether every file was
    /// looked at that had to be.
    async fn files_of(&self, chunks: BTreeSet<ChunkId>) -> Result<(Vec<FilePath>, bool), Problem> {
        let mut wanted: BTreeMap<ChunkId, u32> = BTreeMap::new();
        for id in chunks {
            let record = self.catalog.read(move |snapshot| snapshot.get_chunk(id));
            // A checkpoint's chunks are in no file.
            if let Some(record) = record.await? {
                wanted.insert(id, record.references);
            }
        }
        let (mut found, mut after) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            if wanted.is_empty() {
                return Ok((found, true));
            }
            let from = after.clone();
            let page = self
                .catalog
                .read(move |snapshot| snapshot.scan_files(from.as_ref(), PAGE))
                .await?;
            for file in &page {
                let mut names_one = false;
                for chunk in &file.chunks {
                    if let Some(references) = wanted.get_mut(&chunk.id) {
                        names_one = true;
                        *references = references.saturating_sub(1);
                    }
                }
                if names_one {
                    found.push(file.path.clone());
                    wanted.retain(|_, references| *references > 0);
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after = Some(last.path.clone()),
                // What is left is named by the trash.
                _ => return Ok((found, true)),
            }
        }
        Ok((found, wanted.is_empty()))
    }
}

/// Every datanode that is not gone for ever, by all its names.
fn names_of(state: &State) -> Vec<PlannedDatanode> {
    let known = state.datanodes.iter();
    let known = known.filter(|node| node.record.admin != AdminState::Tombstoned);
    known.map(planned).collect()
}

fn misnamed(error: &NamingError) -> Problem {
    let code = match error {
        NamingError::Nobody { .. } => ErrorCode::NotFound,
        NamingError::Several { .. } => ErrorCode::Conflict,
    };
    Problem::new(code, error.to_string()).next("`dfs nodes` shows them all")
}

fn too_many() -> Problem {
    Problem::new(
        ErrorCode::InvalidParameter,
        format!("at most {MAX_PLANNED} datanodes are planned for"),
    )
}
