//! Replicas that are asked for the same next block: the first one that delivers it is read on.

use std::ops::Range;
use std::time::Duration;

use dfs_client::blocks::{Block, BlockStream, read_blocks};
use dfs_client::{ClientError, HttpClient};
use dfs_protocol::DatanodeId;
use dfs_protocol::chunk::{DatanodeAddress, SealedChunk};
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::OwnedSemaphorePermit;

/// One replica that is being read.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) replica: DatanodeAddress,
    stream: BlockStream,
}

impl Lane {
    /// The next block. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Block, ClientError> {
        match self.stream.next().await? {
            Some(block) => Ok(block),
            None => Err(damaged(&self.replica, "the blocks ended early")),
        }
    }

    /// Reads the end mark, so that the connection can be used again.
    pub(super) async fn end(mut self) {
        let _unneeded = self.stream.next().await;
    }
}

/// What became of one runner.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) datanode: DatanodeId,
    /// Asked because another one let the reader wait.
    pub(super) is_hedge: bool,
    /// Those that were asked before it and have not arrived.
    pub(super) overtaken: Vec<DatanodeId>,
    /// When it was opened; none of one that was open before.
    pub(super) opened: Option<Duration>,
    pub(super) outcome: Result<(Lane, Block), ClientError>,
}

/// The replicas that run. Dropped, whoever has not arrived is broken off.
#[derive(Default)]
pub(super) struct Race {
    runners: FuturesUnordered<BoxFuture<'static, Arrived>>,
    /// In the order in which they were asked.
    running: Vec<DatanodeId>,
}

impl Race {
    /// Goes on with a replica that is open.
    pub(super) fn go_on(&mut self, mut lane: Lane) {
        let datanode = lane.replica.id;
        let runner = async move {
            let next = lane.next().await;
            Arrived {
                datanode,
                is_hedge: false,
                overtaken: Vec::new(),
                opened: None,
                outcome: next.map(|block| (lane, block)),
            }
        };
        self.enter(datanode, runner.boxed());
    }

    /// Opens a replica at the bytes that are wanted next. A hedge holds its place until the race ends.
    pub(super) fn open(
        &mut self,
        http: HttpClient,
        replica: DatanodeAddress,
        chunk: SealedChunk,
        rest: Range<u64>,
        now: Duration,
        hedge: Option<OwnedSemaphorePermit>,
    ) {
        let datanode = replica.id;
        let runner = async move {
            let is_hedge = hedge.is_some();
            let first = async {
                let stream = read_blocks(&http, &replica, &chunk, rest).await?;
                let mut lane = Lane { replica, stream };
                let block = lane.next().await?;
                Ok((lane, block))
            };
            let outcome = first.await;
            drop(hedge);
            Arrived {
                datanode,
                is_hedge,
                overtaken: Vec::new(),
                opened: Some(now),
                outcome,
            }
        };
        self.enter(datanode, runner.boxed());
    }

    fn enter(&mut self, datanode: DatanodeId, runner: BoxFuture<'static, Arrived>) {
        self.running.push(datanode);
        self.runners.push(runner);
    }

    /// Whoever arrives next; pending while nobody runs. Safe to cancel.
    pub(super) async fn next(&mut self) -> Arrived {
        match self.runners.next().await {
            Some(mut arrived) => {
                let is_it = |id: &DatanodeId| *id == arrived.datanode;
                if let Some(at) = self.running.iter().position(is_it) {
                    self.running.remove(at);
                    arrived.overtaken = self.running[..at].to_vec();
                }
                arrived
            }
            None => std::future::pending().await,
        }
    }

    /// Whether everybody arrived.
    pub(super) fn is_over(&self) -> bool {
        self.running.is_empty()
    }
}

/// What a replica is told by that cannot be read as what it should be.
pub(super) fn damaged(replica: &DatanodeAddress, detail: &str) -> ClientError {
    ClientError::Malformed {
        address: replica.address.clone(),
        detail: detail.to_owned(),
    }
}
