//! The whole store looked at once: what the catalog says against itself and against what the
//! datanodes reported.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use dfs_protocol::calls::{FsckPage, FsckRequest};
use dfs_protocol::chunk::{ChunkKind, SealedChunk};
use dfs_protocol::status::{ChunkHealth, FsckFinding, FsckLine, FsckProblem, FsckVerdict};
use dfs_protocol::{ChunkId, FilePath, Problem, TrashId};

use super::{State, Tracker};
use crate::model::health::ReplicaClass;
use crate::model::replicas::{ChunkView, ReplicaView};

/// Records of one page of the walk.
const PAGE: usize = 1000;
/// Findings that are spelled out; all are counted.
const NAMED_FINDINGS: usize = 10_000;

#[derive(Default)]
struct Check {
    lines: Vec<FsckLine>,
    findings: BTreeMap<FsckProblem, u64>,
    references: HashMap<ChunkId, u32>,
    files: u64,
    chunks: u64,
}

impl Tracker {
    /// Walks the catalog page by page and judges every chunk. The answer is one page: findings,
    /// then the verdict. Changes made meanwhile are seen before or after, never as damage.
    pub async fn check(&self, _: FsckRequest) -> Result<FsckPage, Problem> {
        let mut check = Check::default();
        let before = self.catalog.meta().await?.sequence;
        self.walk_files(&mut check).await?;
        self.walk_trash(&mut check).await?;
        let quiet = self.walk_chunks(&mut check, before).await?;
        let condemned = self.condemned_ids().await?;
        let now = self.clock.monotonic();
        let mut state = self.state();
        state.sync(now);
        check.judge_replicas(&state);
        for unknown in state.replicas.unknown_from(ChunkId::from_u128(0)) {
            let explained = condemned.contains(&unknown.id)
                || state.leases.is_leased(unknown.id, now)
                || unknown.kind == ChunkKind::Checkpoint;
            if !explained {
                let detail = format!("{} replicas that nothing names", unknown.replicas.len());
                check.find(FsckProblem::Orphan, Some(unknown.id), detail);
            }
        }
        let waits = state
            .safe_mode
            .waits_for(&state.datanodes, &state.replicas, now);
        drop(state);
        Ok(FsckPage {
            lines: check.finish(waits.as_deref(), quiet),
            next: None,
        })
    }

    async fn walk_files(&self, check: &mut Check) -> Result<(), Problem> {
        let mut after: Option<FilePath> = None;
        loop {
            let from = after.clone();
            let page = self
                .catalog
                .read(move |snapshot| snapshot.scan_files(from.as_ref(), PAGE))
                .await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.path.clone());
            for file in page {
                check.files += 1;
                check.refer(&file.chunks);
                let held: u64 = file.chunks.iter().map(|chunk| chunk.length).sum();
                if held != file.size {
                    let detail = format!("{} bytes, its chunks hold {held}", file.size);
                    check.find_at(FsckProblem::Dangling, None, Some(file.path), None, detail);
                }
            }
        }
    }

    async fn walk_trash(&self, check: &mut Check) -> Result<(), Problem> {
        let mut after: Option<TrashId> = None;
        loop {
            let page = self
                .catalog
                .read(move |snapshot| snapshot.scan_trash(after, PAGE))
                .await?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(last.id);
            for entry in &page {
                check.refer(&entry.file.chunks);
            }
        }
    }

    /// Compares counted references with the recount, unless something changed meanwhile. Returns
    /// whether nothing did.
    async fn walk_chunks(&self, check: &mut Check, before: u64) -> Result<bool, Problem> {
        let mut recorded: Vec<(ChunkId, u32)> = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .catalog
                .read(move |snapshot| snapshot.scan_chunks(after, PAGE))
                .await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            recorded.extend(page.iter().map(|(id, record)| (*id, record.references)));
        }
        check.chunks = recorded.len() as u64;
        if self.catalog.meta().await?.sequence != before {
            return Ok(false);
        }
        let state = self.state();
        for (id, _) in &recorded {
            if !state.replicas.is_known(*id) {
                let detail =
                    "the tracker's memory lacks this chunk: restart the tracker".to_owned();
                check.find(FsckProblem::Dangling, Some(*id), detail);
            }
        }
        drop(state);
        for (id, references) in recorded {
            let found = check.references.remove(&id).unwrap_or(0);
            if found != references {
                let detail = format!("{references} references are counted, {found} found");
                check.find(FsckProblem::Miscounted, Some(id), detail);
            }
        }
        let dangling: Vec<ChunkId> = check.references.keys().copied().collect();
        for id in dangling {
            let detail = "a file names a chunk that the catalog does not know".to_owned();
            check.find(FsckProblem::Dangling, Some(id), detail);
        }
        Ok(true)
    }

    async fn condemned_ids(&self) -> Result<BTreeSet<ChunkId>, Problem> {
        let mut ids = BTreeSet::new();
        let mut after = None;
        loop {
            let page = self
                .catalog
                .read(move |snapshot| snapshot.scan_condemned(after, PAGE))
                .await?;
            let Some((last, _)) = page.last() else {
                return Ok(ids);
            };
            after = Some(*last);
            ids.extend(page.iter().map(|(id, _)| *id));
        }
    }
}

impl Check {
    fn refer(&mut self, chunks: &[SealedChunk]) {
        for chunk in chunks {
            *self.references.entry(chunk.id).or_default() += 1;
        }
    }

    fn judge_replicas(&mut self, state: &State) {
        for view in state.replicas.iter() {
            let problem = match view.health {
                ChunkHealth::Healthy => None,
                ChunkHealth::AtRisk | ChunkHealth::UnderReplicated => {
                    Some(FsckProblem::UnderReplicated)
                }
                ChunkHealth::MisReplicated => Some(FsckProblem::MisReplicated),
                ChunkHealth::OverReplicated => Some(FsckProblem::OverReplicated),
                ChunkHealth::Missing => Some(FsckProblem::Missing),
            };
            if let Some(problem) = problem {
                self.find(problem, Some(view.expected.chunk.id), counts(&view));
            }
            for replica in view.replicas.iter().filter(|replica| replica.present) {
                let problem = match replica.class {
                    ReplicaClass::Valid | ReplicaClass::Promised | ReplicaClass::Newer => continue,
                    ReplicaClass::Stale => FsckProblem::Stale,
                    ReplicaClass::Corrupt => FsckProblem::Corrupt,
                };
                self.find_replica(problem, &view, replica);
            }
        }
    }

    fn find_replica(&mut self, problem: FsckProblem, view: &ChunkView, replica: &ReplicaView) {
        self.count(problem);
        self.name(FsckFinding {
            problem,
            chunk: Some(view.expected.chunk.id),
            path: None,
            trash: None,
            datanode: Some(replica.datanode),
            detail: format!(
                "version {} where {} is expected",
                replica.sealed.version, view.expected.chunk.version
            ),
        });
    }

    fn find(&mut self, problem: FsckProblem, chunk: Option<ChunkId>, detail: String) {
        self.find_at(problem, chunk, None, None, detail);
    }

    fn find_at(
        &mut self,
        problem: FsckProblem,
        chunk: Option<ChunkId>,
        path: Option<FilePath>,
        trash: Option<TrashId>,
        detail: String,
    ) {
        self.count(problem);
        self.name(FsckFinding {
            problem,
            chunk,
            path,
            trash,
            datanode: None,
            detail,
        });
    }

    fn count(&mut self, problem: FsckProblem) {
        *self.findings.entry(problem).or_default() += 1;
    }

    fn name(&mut self, finding: FsckFinding) {
        if self.lines.len() < NAMED_FINDINGS {
            self.lines.push(FsckLine::Finding(finding));
        }
    }

    fn finish(self, waits: Option<&str>, quiet: bool) -> Vec<FsckLine> {
        let Self {
            mut lines,
            findings,
            references: _,
            files,
            chunks,
        } = self;
        let total: u64 = findings.values().sum();
        let clean = total == 0 && waits.is_none();
        let summary = match (waits, total) {
            (Some(waits), _) => format!("Not everything could be looked at: {waits}."),
            (None, 0) if quiet => {
                format!("Clean: {files} files in {chunks} chunks, nothing amiss.")
            }
            (None, 0) => format!(
                "Clean: {files} files in {chunks} chunks; references were not recounted because \
                 the catalog changed meanwhile."
            ),
            (None, _) => format!("{total} findings in {files} files and {chunks} chunks."),
        };
        lines.push(FsckLine::Verdict(FsckVerdict {
            clean,
            summary,
            files,
            chunks,
            findings,
        }));
        lines
    }
}

fn counts(view: &ChunkView) -> String {
    let good = view
        .replicas
        .iter()
        .filter(|r| r.present && r.class.good() && r.holder.counts());
    format!("{} of {} replicas", good.count(), view.expected.factor)
}
