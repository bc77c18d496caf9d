//! Setting the replication factor of files, and how far it is reached.

use dfs_protocol::factor::{FactorChange, FactorPage, FactorRequest};
use dfs_protocol::{ChunkId, FilePath, PathPrefix, Problem};

use super::reads::no_file;
use super::writes::unexpected;
use super::{State, Tracker};
use crate::model::op::{FactoredPage, Op, OpOutcome};
use crate::plan::shortage;
use crate::store::apply::page_below;
use crate::store::{ApplyRefusal, SubmitError};

impl Tracker {
    /// Sets the factor of a file, or of a page of those below a directory, or looks at it only. A
    /// page is one transaction; doing it twice changes nothing the second time.
    ///
    /// Errors: `not-found`, `precondition-failed`, `invalid-parameter`.
    pub async fn refactor(&self, request: FactorRequest) -> Result<FactorPage, Problem> {
        let FactorRequest {
            path,
            after,
            precondition,
            change,
        } = request;
        let page = match change {
            Some(change) => {
                let factor = match change {
                    FactorChange::Cluster => None,
                    FactorChange::Own(factor) => Some(self.resolve_factor(Some(factor))?),
                };
                self.hears_majority()?;
                let op = Op::SetFactor {
                    path,
                    after,
                    precondition,
                    factor,
                    cluster: self.config.replication_factor,
                };
                match self.catalog.submit(op).await? {
                    OpOutcome::Factored(page) => page,
                    other => return Err(unexpected(&other)),
                }
            }
            None => self.look(path, after).await?,
        };
        Ok(self.weigh_factors(page))
    }

    async fn look(
        &self,
        path: PathPrefix,
        after: Option<FilePath>,
    ) -> Result<FactoredPage, Problem> {
        if !path.is_directory() {
            let file = FilePath::parse(path.as_str())?;
            let found = self.catalog.get_file(&file).await?;
            let found = found.ok_or_else(|| no_file(&file))?;
            return Ok(FactoredPage {
                files: 1,
                chunks: found.chunks.iter().map(|chunk| chunk.id).collect(),
                ..FactoredPage::default()
            });
        }
        let read = self.catalog.read(move |snapshot| {
            match page_below(snapshot.txn(), &path, after.as_ref()) {
                Err(ApplyRefusal::Store(error)) => Err(error),
                decided => Ok(decided),
            }
        });
        let (files, next) = read.await?.map_err(SubmitError::Refused)?;
        Ok(FactoredPage {
            files: files.len() as u64,
            changed: 0,
            chunks: files
                .iter()
                .flat_map(|file| file.chunks.iter().map(|chunk| chunk.id))
                .collect(),
            refactored: Vec::new(),
            next,
        })
    }

    fn weigh_factors(&self, page: FactoredPage) -> FactorPage {
        let FactoredPage {
            files,
            changed,
            chunks,
            refactored: _,
            next,
        } = page;
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.sync(now);
        let mut answer = FactorPage {
            files,
            changed,
            chunks: chunks.len() as u64,
            copy_rate: state.whole_copy_rate(),
            next,
            ..FactorPage::default()
        };
        for chunk in chunks {
            state.weigh_chunk(chunk, &mut answer);
        }
        answer.unreachable = shortage::unreachable(&state.datanodes, answer.wanted, now);
        answer
    }
}

impl State {
    fn weigh_chunk(&self, id: ChunkId, answer: &mut FactorPage) {
        let Some(chunk) = self.replicas.get(id) else {
            return;
        };
        let counted = chunk
            .replicas
            .iter()
            .filter(|replica| replica.class.good() && replica.holder.counts() && replica.present);
        let (counted, wanted) = (counted.count() as u64, u64::from(chunk.expected.factor));
        let bytes = chunk.expected.chunk.length;
        answer.wanted = answer.wanted.max(chunk.expected.factor);
        answer.chunks_to_go += u64::from(counted != wanted);
        answer.bytes_to_copy += wanted.saturating_sub(counted) * bytes;
        answer.bytes_to_free += counted.saturating_sub(wanted) * bytes;
    }
}
