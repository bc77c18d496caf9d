//! Making an upload visible: commit, complete what lacks replicas, commit again.

use std::time::Duration;

use dfs_client::ClientError;
use dfs_protocol::chunk::DatanodeAddress;
use dfs_protocol::datanode::CopyRequest;
use dfs_protocol::file::FileRecord;
use dfs_protocol::upload::{CommitRequest, CommitResponse, NeededCopy, WrittenChunk};
use dfs_protocol::{DatanodeId, Fence};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use super::Upload;
use crate::error::UploadError;
use crate::gateway::Gateway;

/// Between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How long one datanode may take for a copy before another is asked.
const COPY_LIMIT: Duration = Duration::from_secs(25);
/// Chunks that are completed at once.
const COPIES_AT_ONCE: usize = 4;

/// A file that is visible and durable.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) file: FileRecord,
    pub(crate) replaced: bool,
    /// Datanodes that hold every chunk.
    pub(crate) replicas: Vec<DatanodeId>,
    /// Fewest replicas of any chunk.
    pub(crate) replica_count: u32,
    pub(crate) wanted: u32,
}

/// Commits what the upload wrote. Its chunks are no longer given up once they may be named.
pub(super) async fn commit(upload: &mut Upload) -> Result<Committed, UploadError> {
    let gateway = upload.gateway.clone();
    let mut request = request(upload);
    let deadline = gateway.deadline(gateway.config.replica_deadline);
    let mut pause = FIRST_PAUSE;
    let mut unknown = false;
    loop {
        let answer = match commit_once(&gateway, &request, &mut unknown).await {
            Ok(answer) => answer,
            Err(error) => {
                if unknown {
                    keep_chunks(upload);
                }
                return Err(error);
            }
        };
        match answer {
            CommitResponse::Committed {
                file,
                replaced,
                replicas,
                replica_count,
                wanted,
            } => {
                keep_chunks(upload);
                return Ok(Committed {
                    file: *file,
                    replaced,
                    replicas,
                    replica_count,
                    wanted,
                });
            }
            CommitResponse::NeedsReplicas { fence, copies } => {
                let missing = copies.iter().map(|copy| copy.missing).sum();
                let Some(left) = gateway.left(deadline) else {
                    return Err(UploadError::ReplicasMissing { missing });
                };
                let made = complete(&gateway, fence, copies, &mut request.chunks, left).await;
                if made == 0 {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}

fn keep_chunks(upload: &mut Upload) {
    for written in upload.written.drain(..) {
        written.held.keep();
    }
}

fn request(upload: &Upload) -> CommitRequest {
    let file = &upload.file;
    let chunks = upload.written.iter().map(|written| WrittenChunk {
        chunk: written.chunk,
        replicas: written.replicas.clone(),
    });
    CommitRequest {
        upload: upload.id,
        lease: upload.gateway.lease.id(),
        file: upload.file_id,
        path: file.path.clone(),
        precondition: file.precondition.clone(),
        content_type: file.content_type.clone(),
        content_encoding: file.content_encoding.clone(),
        metadata: file.metadata.clone(),
        size: upload.size,
        crc64nvme: upload.crc64nvme,
        md5: upload.digests.md5(),
        factor: None,
        chunks: chunks.collect(),
    }
}

/// One answer to a commit. The same request may be repeated: the upload's id makes it one.
/// `unknown` is set when a try may have taken effect unheard.
async fn commit_once(
    gateway: &Gateway,
    request: &CommitRequest,
    unknown: &mut bool,
) -> Result<CommitResponse, UploadError> {
    let deadline = gateway.deadline(gateway.config.commit_deadline);
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match gateway.tracker.commit(request.clone()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        // A refusal is an answer; anything else leaves the outcome open.
        let refused = matches!(error, ClientError::Refused(_));
        *unknown |= !refused;
        if !error.is_transient() && refused {
            return Err(error.into());
        }
        if gateway.left(deadline).is_none() {
            return Err(if *unknown {
                UploadError::OutcomeUnknown { source: error }
            } else {
                error.into()
            });
        }
        tracing::warn!(%error, "a commit is tried again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Makes missing replicas and adds them to what will be committed; returns how many.
async fn complete(
    gateway: &Gateway,
    fence: Fence,
    copies: Vec<NeededCopy>,
    chunks: &mut [WrittenChunk],
    left: Duration,
) -> u64 {
    let mut made = 0;
    let copying = futures_util::stream::iter(copies)
        .map(|copy| async move {
            let id = copy.chunk.id;
            let arrived = tokio::time::timeout(left, spread(gateway, fence, copy)).await;
            (id, arrived.unwrap_or_default())
        })
        .buffer_unordered(COPIES_AT_ONCE);
    let mut copying = std::pin::pin!(copying);
    while let Some((id, arrived)) = copying.next().await {
        let Some(written) = chunks.iter_mut().find(|written| written.chunk.id == id) else {
            continue;
        };
        for datanode in arrived {
            if !written.replicas.contains(&datanode) {
                written.replicas.push(datanode);
                made += 1;
            }
        }
    }
    gateway.metrics.completed_replicas.inc_by(made);
    made
}

/// Lets targets fetch one chunk, as many at once as are missing, until enough have it.
async fn spread(gateway: &Gateway, fence: Fence, copy: NeededCopy) -> Vec<DatanodeId> {
    let NeededCopy {
        chunk,
        mut sources,
        mut targets,
        missing,
    } = copy;
    let missing = missing as usize;
    // A silent target is tried all the same when there is no other: the tracker counts on it.
    gateway.suspects.put_last(&mut sources);
    gateway.suspects.put_last(&mut targets);
    let fetch = |target: DatanodeAddress| {
        let request = CopyRequest {
            fence,
            chunk,
            sources: sources.clone(),
        };
        async move {
            let copied = gateway.datanodes.copy(&target, &request);
            let copied = gateway.streams.watch().unless_silent(&target, copied);
            let error = match tokio::time::timeout(COPY_LIMIT, copied).await {
                Ok(Ok(_)) => {
                    gateway.suspects.clear(target.id);
                    return Some(target.id);
                }
                Ok(Err(error)) => {
                    gateway.note_failed(target.id, &error);
                    error.to_string()
                }
                Err(_) => "it took too long".to_owned(),
            };
            tracing::warn!(chunk = %chunk.id, datanode = %target.id, error,
                "a missing replica was not made");
            None
        }
    };
    let mut waiting = targets.into_iter();
    let mut running: FuturesUnordered<_> = waiting.by_ref().take(missing).map(fetch).collect();
    let mut arrived = Vec::new();
    while let Some(ended) = running.next().await {
        match ended {
            Some(id) => arrived.push(id),
            None => running.extend(waiting.next().map(fetch)),
        }
    }
    arrived
}
