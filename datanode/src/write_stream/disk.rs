//! The disk's side of one chunk being written: a blocking thread behind a bounded queue, so that
//! receiving and writing overlap.

use std::sync::Arc;

use bytes::Bytes;
use dfs_protocol::ChunkVersion;
use dfs_protocol::chunk::{Replica, SealedChunk};
use dfs_protocol::frame::Resume;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::store::{ChunkStore, NewChunk, StagedChunk, StoreError};

/// Blocks that wait for the disk: 4 MiB.
const QUEUE: usize = 64;

/// How the chunk begins.
#[derive(Debug)]
pub enum Begin {
    /// At its first byte. What an older attempt left under the same name goes.
    Fresh(NewChunk, Option<Box<dyn StagedChunk>>),
    /// Where a broken attempt can go on.
    Resumed(Box<dyn StagedChunk>, ChunkVersion, Resume),
}

/// What the disk is asked.
#[derive(Debug)]
pub enum DiskOrder {
    /// Write one block.
    Block {
        /// Position in the chunk.
        offset: u64,
        /// CRC32C of `data`.
        crc32c: u32,
        /// The bytes.
        data: Bytes,
    },
    /// Seal; the answer comes after everything is durable.
    Seal(SealedChunk, oneshot::Sender<Result<Replica, StoreError>>),
}

/// A chunk being written to the disk.
#[derive(Debug)]
pub struct DiskWrite {
    /// Takes orders; closing it ends the write.
    pub orders: mpsc::Sender<DiskOrder>,
    /// Bytes written so far.
    pub written: watch::Receiver<u64>,
    /// What is left when the orders end without a seal, or why it failed.
    pub end: JoinHandle<Result<Option<Box<dyn StagedChunk>>, StoreError>>,
}

impl DiskWrite {
    /// Seals; durable on return.
    pub async fn seal(self, chunk: SealedChunk) -> Result<Replica, StoreError> {
        let (answer, on_answer) = oneshot::channel();
        // When the disk thread is gone the answer's sender is too, and the thread's end says why.
        let _ended = self.orders.send(DiskOrder::Seal(chunk, answer)).await;
        match on_answer.await {
            Ok(sealed) => sealed,
            Err(_) => match self.leave().await {
                Err(error) => Err(error),
                Ok(_) => Err(ended()),
            },
        }
    }

    /// Ends the write without a seal: what is left of it, or why the disk ended it before.
    pub async fn leave(self) -> Result<Option<Box<dyn StagedChunk>>, StoreError> {
        drop(self.orders);
        self.end.await.unwrap_or_else(|_| Err(ended()))
    }
}

pub(super) fn ended() -> StoreError {
    StoreError::Disk {
        doing: "writing a chunk",
        source: std::io::Error::other("the disk thread ended"),
    }
}

/// Begins a chunk; returns when it is open.
pub async fn begin(store: Arc<dyn ChunkStore>, begin: Begin) -> Result<DiskWrite, StoreError> {
    let (orders, queue) = mpsc::channel(QUEUE);
    let (progress, written) = watch::channel(0);
    let (opened, on_open) = oneshot::channel();
    let end = tokio::task::spawn_blocking(move || {
        let staged = match open(store.as_ref(), begin) {
            Ok(staged) => staged,
            Err(error) => {
                // Nobody waits only when the stream is gone already.
                let _unheard = opened.send(Err(error));
                return Ok(None);
            }
        };
        progress.send_replace(staged.length());
        if opened.send(Ok(())).is_err() {
            return Ok(None);
        }
        run(staged, queue, &progress)
    });
    match on_open.await {
        Ok(Ok(())) => Ok(DiskWrite {
            orders,
            written,
            end,
        }),
        Ok(Err(error)) => Err(error),
        Err(_gone) => Err(ended()),
    }
}

fn open(store: &dyn ChunkStore, begin: Begin) -> Result<Box<dyn StagedChunk>, StoreError> {
    match begin {
        Begin::Fresh(new, older) => {
            drop(older);
            store.begin(&new)
        }
        Begin::Resumed(mut staged, version, resume) => {
            staged.resume(version, &resume)?;
            Ok(staged)
        }
    }
}

fn run(
    mut staged: Box<dyn StagedChunk>,
    mut queue: mpsc::Receiver<DiskOrder>,
    progress: &watch::Sender<u64>,
) -> Result<Option<Box<dyn StagedChunk>>, StoreError> {
    while let Some(order) = queue.blocking_recv() {
        match order {
            DiskOrder::Block {
                offset,
                crc32c,
                data,
            } => {
                staged.append(offset, &data, crc32c)?;
                progress.send_replace(staged.length());
            }
            DiskOrder::Seal(chunk, answer) => {
                let _unheard = answer.send(staged.seal(&chunk));
                return Ok(None);
            }
        }
    }
    Ok(Some(staged))
}
