//! What the datanodes of a broken chain hold.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_protocol::chunk::{DatanodeAddress, SealedChunk};
use dfs_protocol::datanode::ChunkState;
use dfs_protocol::{ChunkId, ChunkVersion, DatanodeId};
use futures_util::future::join_all;

use crate::gateway::SharedGateway;

/// How long a datanode may take to say what it holds: an answer from memory, for which an upload waits.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Replicas that were sealed although the answer got lost: those of the version that most
/// datanodes sealed, if their bytes are the ones that were sent.
pub(super) async fn sealed(
    gateway: &SharedGateway,
    targets: &[DatanodeAddress],
    wanted: &SealedChunk,
) -> Option<(SealedChunk, Vec<DatanodeId>)> {
    let mut by_version: BTreeMap<ChunkVersion, Vec<DatanodeId>> = BTreeMap::new();
    for (datanode, state) in ask(gateway, targets, wanted.id).await {
        let Some(replica) = state.sealed else {
            continue;
        };
        let chunk = replica.chunk;
        if (chunk.length, chunk.crc32c) == (wanted.length, wanted.crc32c) {
            by_version.entry(chunk.version).or_default().push(datanode);
        }
    }
    let best = by_version
        .into_iter()
        .max_by_key(|(version, replicas)| (replicas.len(), *version));
    best.map(|(version, replicas)| (SealedChunk { version, ..*wanted }, replicas))
}

/// Who can go on from `length`: the datanodes that hold an attempt of version `from` or later (all
/// attempts have the same bytes), and the highest version among them.
pub(super) async fn resumable(
    gateway: &SharedGateway,
    targets: &[DatanodeAddress],
    chunk: ChunkId,
    from: ChunkVersion,
    length: u64,
) -> (Vec<DatanodeId>, ChunkVersion) {
    let mut holders = Vec::new();
    let mut highest = from;
    for (datanode, state) in ask(gateway, targets, chunk).await {
        let open = state.open;
        if let Some(open) = open.filter(|open| open.version >= from && open.length >= length) {
            holders.push(datanode);
            highest = highest.max(open.version);
        }
    }
    (holders, highest)
}

async fn ask(
    gateway: &SharedGateway,
    targets: &[DatanodeAddress],
    chunk: ChunkId,
) -> Vec<(DatanodeId, ChunkState)> {
    // What a silent one holds cannot be counted on.
    let mut heard = targets.to_vec();
    gateway.suspects.leave_out_silent(&mut heard);
    let questions = heard.iter().map(|target| async move {
        let asked = gateway.datanodes.chunk_state(target, chunk);
        let state = tokio::time::timeout(ANSWER_LIMIT, asked).await.ok()?.ok()?;
        Some((target.id, state))
    });
    join_all(questions).await.into_iter().flatten().collect()
}
