//! What readers ask: where a file's chunks are, which names there are.

use std::time::Duration;

use dfs_protocol::chunk::{DatanodeAddress, SealedChunk};
use dfs_protocol::datanode::Liveness;
use dfs_protocol::upload::{
    ListRequest, ListResponse, LocateRequest, LocateResponse, LocatedChunk, MAX_LIST_LIMIT,
    SuspectReplica,
};
use dfs_protocol::{ChunkId, ErrorCode, FilePath, Problem};

use super::{State, Tracker};
use crate::model::datanodes::Datanode;
use crate::model::health::HolderView;

/// Between two looks whether a commit was learnt.
const LEARNING_PAUSE: Duration = Duration::from_millis(2);
/// Looks before what is there is answered: a chunk may also be gone since the record was read.
const LEARNING_LOOKS: u32 = 100;

impl Tracker {
    /// A file, and valid replicas of each of its chunks.
    ///
    /// Errors: `not-found`.
    pub async fn find(&self, request: LocateRequest) -> Result<LocateResponse, Problem> {
        let LocateRequest { path, locations } = request;
        let mut file = self
            .catalog
            .get_file(&path)
            .await?
            .ok_or_else(|| no_file(&path))?;
        file.factor = file.wanted(self.config.replication_factor);
        let wanted = if locations {
            file.chunks.as_slice()
        } else {
            &[]
        };
        self.wait_until_known(wanted).await;
        let mut rng = self.rng.fork();
        let now = self.clock.monotonic();
        let state = self.state();
        let chunks = wanted
            .iter()
            .map(|chunk| LocatedChunk {
                chunk: *chunk,
                replicas: readable(&state, chunk.id, now, &mut rng),
            })
            .collect();
        let safe_mode = state.in_safe_mode();
        drop(state);
        Ok(LocateResponse {
            file,
            chunks,
            safe_mode,
        })
    }

    /// The catalog shows a commit an instant before the memory learns of it: a reader between the two
    /// must not hear that nobody has the file.
    async fn wait_until_known(&self, chunks: &[SealedChunk]) {
        for _ in 0..LEARNING_LOOKS {
            let known = {
                let state = self.state();
                chunks.iter().all(|chunk| state.replicas.is_known(chunk.id))
            };
            if known {
                return;
            }
            tokio::time::sleep(LEARNING_PAUSE).await;
        }
    }

    /// One page of names.
    pub async fn names(&self, request: ListRequest) -> Result<ListResponse, Problem> {
        if request.limit == 0 || request.limit > MAX_LIST_LIMIT {
            return Err(Problem::new(
                ErrorCode::InvalidParameter,
                format!("the limit must be 1 to {MAX_LIST_LIMIT}"),
            ));
        }
        Ok(self.catalog.list(request).await?)
    }

    /// A reader found a replica wanting: its datanode is asked to verify it. The reader's word
    /// alone condemns nothing.
    pub fn doubt(&self, suspect: &SuspectReplica) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let holds = state.replicas.get(suspect.chunk.id).is_some_and(|view| {
            view.replicas
                .iter()
                .any(|replica| replica.datanode == suspect.datanode)
        });
        let SealedChunk { id, version, .. } = suspect.chunk;
        if holds && state.order_verify(suspect.datanode, id, version, now) {
            tracing::warn!(
                datanode = %suspect.datanode, chunk = %suspect.chunk.id, detail = suspect.detail,
                "a reader found a replica wanting: it is verified"
            );
        }
        self.metrics.suspects.inc();
    }
}

/// Datanodes to read a chunk from; the load is spread by chance. Those that missed heartbeats come last,
/// the suspect ones among them: they may serve all the same, but a reader does not begin with them.
pub(super) fn readable(
    state: &State,
    chunk: ChunkId,
    now: Duration,
    rng: &mut fastrand::Rng,
) -> Vec<DatanodeAddress> {
    let Some(view) = state.replicas.get(chunk) else {
        return Vec::new();
    };
    let is_suspect = |id| state.datanodes.liveness_of(id, now) == Liveness::Suspect;
    let good = view.replicas.iter().filter(|r| {
        let holder = HolderView {
            live: r.holder.live || is_suspect(r.datanode),
            ..r.holder
        };
        r.present && r.class.good() && holder.readable()
    });
    let mut found: Vec<&Datanode> = good
        .filter_map(|replica| state.datanodes.get(replica.datanode))
        .collect();
    rng.shuffle(&mut found);
    found.sort_by_key(|node| state.datanodes.is_late(node, now));
    found.into_iter().map(Datanode::at).collect()
}

pub(super) fn no_file(path: &FilePath) -> Problem {
    Problem::new(
        ErrorCode::NotFound,
        format!("nothing is stored at `{path}`"),
    )
    .next("list what is there: dfs ls")
}
