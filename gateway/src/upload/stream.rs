//! One attempt: blocks go out while confirmations come in.

use std::pin::pin;
use std::time::Duration;

use dfs_client::write_stream::{ChunkEvent, ChunkReceiver, ChunkSender, ChunkWriter, failure};
use dfs_protocol::chunk::{BLOCK_SIZE_U64, DatanodeAddress};
use dfs_protocol::frame::{HopFailure, HopFault, PROGRESS_STEP, SealedReport};
use tokio::sync::mpsc;

use super::chunk::{ChunkJob, Feed};
use crate::gateway::SharedGateway;

/// How long the reason of a broken stream may take to arrive.
const REASON_WAIT: Duration = Duration::from_secs(1);

/// The stream of a chunk that was sealed: may carry another.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) sender: ChunkSender,
    pub(super) receiver: ChunkReceiver,
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Streamed {
    /// Durable.
    Sealed {
        report: SealedReport,
        sent: Box<Sent>,
    },
    /// A hop broke; the failure names it.
    Broke(HopFailure),
    /// The upload went away.
    GivenUp,
}

/// Sends what the window holds and what the feed brings until the chunk is sealed.
pub(super) async fn stream(
    job: &mut ChunkJob,
    writer: ChunkWriter,
    feed: &mut mpsc::Receiver<Feed>,
) -> Streamed {
    let ChunkWriter {
        mut sender,
        mut receiver,
    } = writer;
    match stream_all(job, &mut sender, &mut receiver, feed).await {
        Ok(Some(report)) => Streamed::Sealed {
            report,
            sent: Box::new(Sent { sender, receiver }),
        },
        Ok(None) => {
            // The datanodes drop what they have; a chain that does not listen finds out by itself.
            let _ignored = tokio::time::timeout(REASON_WAIT, sender.abort()).await;
            Streamed::GivenUp
        }
        Err(failed) => Streamed::Broke(failed),
    }
}

/// The hop that a stream goes to, asked whether it lives while it is waited for.
struct FirstHop {
    gateway: SharedGateway,
    at: DatanodeAddress,
}

impl FirstHop {
    /// Ends when it is silent, with that as its failure.
    async fn silent(&self) -> HopFailure {
        self.gateway.streams.silent_hop(&self.at).await
    }
}

async fn stream_all(
    job: &mut ChunkJob,
    sender: &mut ChunkSender,
    receiver: &mut ChunkReceiver,
    feed: &mut mpsc::Receiver<Feed>,
) -> Result<Option<SealedReport>, HopFailure> {
    let hop = FirstHop {
        gateway: job.gateway.clone(),
        at: job.first(),
    };
    // Blocks of the window that were sent in this attempt.
    let mut sent = 0;
    loop {
        if sent < job.window.len() {
            send_block(job, &hop, sender, receiver, &mut sent).await?;
            continue;
        }
        if job.complete {
            return seal(job, &hop, sender, receiver, &mut sent).await.map(Some);
        }
        let stall = job.gateway.config.chain_stall;
        let owed = job.received.saturating_sub(job.base) > PROGRESS_STEP + BLOCK_SIZE_U64;
        tokio::select! {
            event = receiver.next() => { progress(job, event?, &mut sent)?; }
            () = tokio::time::sleep(stall), if owed => {
                return Err(job.first_hop(&"no confirmation came in time"));
            }
            silent = hop.silent(), if owed => return Err(silent),
            next = feed.recv() => match next {
                None => return Ok(None),
                Some(Feed::Seal) => job.complete = true,
                Some(Feed::Block(block)) => job.take(block),
            },
        }
    }
}

/// Sends one block, taking confirmations meanwhile: neither side may wait for the other.
async fn send_block(
    job: &mut ChunkJob,
    hop: &FirstHop,
    sender: &mut ChunkSender,
    receiver: &mut ChunkReceiver,
    sent: &mut usize,
) -> Result<(), HopFailure> {
    let Some(block) = job.window.get(*sent) else {
        return Ok(());
    };
    let (offset, crc32c, data) = (block.offset, block.crc32c, block.data.clone());
    let stall = job.gateway.config.chain_stall;
    let mut sending = pin!(sender.block(offset, crc32c, &data));
    let mut stalled = pin!(tokio::time::sleep(stall));
    let mut silent = pin!(hop.silent());
    loop {
        tokio::select! {
            done = &mut sending => match done {
                Ok(()) => break,
                Err(broken) => return Err(reason(receiver, broken).await),
            },
            event = receiver.next() => progress(job, event?, sent)?,
            () = &mut stalled => return Err(job.first_hop(&"the chain takes no more bytes")),
            silent = &mut silent => return Err(silent),
        }
    }
    *sent += 1;
    Ok(())
}

/// Announces the end and waits for the verdict.
async fn seal(
    job: &mut ChunkJob,
    hop: &FirstHop,
    sender: &mut ChunkSender,
    receiver: &mut ChunkReceiver,
    sent: &mut usize,
) -> Result<SealedReport, HopFailure> {
    let sealed = announce_and_hear(job, sender, receiver, sent);
    tokio::select! {
        sealed = sealed => sealed,
        silent = hop.silent() => Err(silent),
    }
}

async fn announce_and_hear(
    job: &mut ChunkJob,
    sender: &mut ChunkSender,
    receiver: &mut ChunkReceiver,
    sent: &mut usize,
) -> Result<SealedReport, HopFailure> {
    let stall = job.gateway.config.chain_stall;
    match tokio::time::timeout(stall, sender.seal(&job.seal())).await {
        Ok(Ok(())) => {}
        Ok(Err(broken)) => return Err(reason(receiver, broken).await),
        Err(_) => return Err(job.first_hop(&"the chain takes no more bytes")),
    }
    loop {
        let Ok(event) = tokio::time::timeout(stall, receiver.next()).await else {
            return Err(job.first_hop(&"the seal took too long"));
        };
        match event? {
            ChunkEvent::Sealed(report) => return Ok(report),
            other => progress(job, other, sent)?,
        }
    }
}

/// Takes a confirmation; anything else ends the attempt.
fn progress(job: &mut ChunkJob, event: ChunkEvent, sent: &mut usize) -> Result<(), HopFailure> {
    match event {
        ChunkEvent::Progress(offset) => {
            // A survivor resumes at a block's start, so a short last block stays.
            let confirmed = offset / BLOCK_SIZE_U64 * BLOCK_SIZE_U64;
            while *sent > 0 && job.window.front().is_some_and(|b| b.end() <= confirmed) {
                if let Some(block) = job.window.pop_front() {
                    job.base = block.end();
                }
                *sent -= 1;
            }
            Ok(())
        }
        ChunkEvent::Failed(failed) => Err(failed),
        ChunkEvent::Sealed(_) => {
            let hop = job.first_hop(&"");
            Err(failure(
                hop.datanode,
                HopFault::Protocol,
                &"sealed before the end",
            ))
        }
    }
}

/// A failure that names the hop at fault may already wait behind a send that failed.
async fn reason(receiver: &mut ChunkReceiver, broken: HopFailure) -> HopFailure {
    let named = async {
        loop {
            match receiver.next().await {
                Ok(ChunkEvent::Failed(failed)) => return Some(failed),
                Ok(ChunkEvent::Progress(_) | ChunkEvent::Sealed(_)) => {}
                Err(_) => return None,
            }
        }
    };
    let named = tokio::time::timeout(REASON_WAIT, named).await;
    named.ok().flatten().unwrap_or(broken)
}
