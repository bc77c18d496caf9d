//! What the loss of one datanode's volume would cost.

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::Verdict;

use super::removal::NAMED_CHUNKS;
use crate::model::datanodes::{DatanodeTable, Picture};
use crate::model::replicas::{ChunkView, ReplicaMap};

/// Whether every chunk has a valid replica on another datanode, heard or not. A datanode that did not
/// report in this tracker's life may hold any chunk: then chunks without a known replica count too.
pub fn nothing_only_there(
    datanodes: &DatanodeTable,
    replicas: &ReplicaMap,
    lost: DatanodeId,
) -> Verdict {
    let reported = datanodes
        .get(lost)
        .is_some_and(|node| node.picture != Picture::Unknown);
    let chunks: Box<dyn Iterator<Item = ChunkView>> = if reported {
        Box::new(replicas.of_datanode(lost))
    } else {
        Box::new(replicas.iter())
    };
    let (mut named, mut count) = (Vec::new(), 0);
    for chunk in chunks {
        let is_elsewhere = chunk.replicas.iter().any(|replica| {
            replica.datanode != lost
                && replica.present
                && replica.verified()
                && replica.holder.admin != AdminState::Tombstoned
        });
        let may_be_there = !reported
            || chunk
                .replicas
                .iter()
                .any(|replica| replica.datanode == lost && replica.present && replica.verified());
        if !is_elsewhere && may_be_there {
            count += 1;
            if named.len() < NAMED_CHUNKS {
                named.push(chunk.expected.chunk.id);
            }
        }
    }
    let reason = match (count, reported) {
        (0, _) => "every chunk has a replica elsewhere".to_owned(),
        (count, true) => format!("{count} chunks have their only remaining replica there"),
        (count, false) => format!("{count} chunks are known nowhere else and may be there"),
    };
    Verdict {
        safe: count == 0,
        reason,
        chunks: named,
        chunk_count: count,
    }
}
