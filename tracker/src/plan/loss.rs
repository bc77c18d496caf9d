//! What the loss of one datanode's volume would cost.

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::Verdict;

use super::removal::NAMED_CHUNKS;
use crate::model::replicas::ReplicaMap;

/// Whether every chunk has a valid replica on another datanode, heard or not. Every chunk is looked at,
/// not only those that the datanode reported: what it took just before it died, or before this
/// tracker began, nobody reported.
pub fn nothing_only_there(replicas: &ReplicaMap, lost: DatanodeId) -> Verdict {
    let (mut chunks, mut chunk_count) = (Vec::new(), 0);
    for chunk in replicas.iter() {
        let is_elsewhere = chunk.replicas.iter().any(|replica| {
            replica.datanode != lost
                && replica.present
                && replica.verified()
                && replica.holder.admin != AdminState::Tombstoned
        });
        if is_elsewhere {
            continue;
        }
        chunk_count += 1;
        if chunks.len() < NAMED_CHUNKS {
            chunks.push(chunk.expected.chunk.id);
        }
    }
    let safe = chunk_count == 0;
    let reason = if safe {
        "every chunk has a replica elsewhere".to_owned()
    } else {
        format!("{chunk_count} chunks have no replica that is known elsewhere")
    };
    Verdict {
        safe,
        reason,
        chunks,
        chunk_count,
    }
}
