//! Reads a range chunk by chunk. A replica that fails is left for another, from the position reached;
//! beside one that lets the reader wait another is asked.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use dfs_client::ClientError;
use dfs_client::blocks::Block;
use dfs_protocol::chunk::{DatanodeAddress, SealedChunk};
use dfs_protocol::upload::{LocateRequest, LocateResponse, SuspectReplica};
use dfs_protocol::{DatanodeId, ErrorCode};
use dfs_runtime::trace;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::progress::Progress;
use super::race::{Arrived, Lane, Race, damaged};
use crate::error::DownloadError;
use crate::gateway::SharedGateway;
use crate::metrics::{Doubt, Hedge};
use crate::patience::{REPORT_PAUSE, is_unreported};
use crate::suspects;

type Blocks = mpsc::Sender<Result<Bytes, DownloadError>>;

/// Who takes the bytes.
enum Taker {
    /// The client, as fast as it reads.
    Client(Blocks),
    /// Whoever answers once all are at hand.
    Memory(VecDeque<Bytes>),
}

impl Taker {
    /// Hands bytes over; false when nobody wants them any more.
    async fn take(&mut self, bytes: Bytes) -> bool {
        match self {
            Self::Client(blocks) => blocks.send(Ok(bytes)).await.is_ok(),
            Self::Memory(taken) => {
                taken.push_back(bytes);
                true
            }
        }
    }

    /// Returns when the client went away. Who reads for memory is dropped then.
    async fn gone(&self) {
        match self {
            Self::Client(blocks) => blocks.closed().await,
            Self::Memory(_) => std::future::pending().await,
        }
    }
}

/// How often locations are asked for anew within one chunk.
const RELOCATIONS: u32 = 1;

/// One download.
#[derive(Debug)]
pub(super) struct Reader {
    gateway: SharedGateway,
    located: LocateResponse,
    /// Monotonic time until which a tracker that gathers reports is waited for where every known replica failed.
    deadline: Duration,
}

/// Why a chunk's reading ended early.
enum Ended {
    /// The client went away.
    ClientGone,
    Failed(DownloadError),
}

/// The reading of one chunk.
struct Search {
    /// Which of the file's chunks.
    index: usize,
    /// Where the chunk begins in the file.
    start: u64,
    progress: Progress,
    /// Replicas that failed, or are asked now.
    tried: BTreeSet<DatanodeId>,
    /// Replicas that are damaged or not where they should be: asking them again changes nothing.
    bad: BTreeSet<DatanodeId>,
    relocations: u32,
    /// What the last replica said.
    detail: String,
}

impl Reader {
    pub(super) fn new(gateway: SharedGateway, located: LocateResponse) -> Self {
        // Where locations are still unknown, they were waited for already.
        let patience = if is_unreported(&located) {
            Duration::ZERO
        } else {
            gateway.config.tracker_patience
        };
        Self {
            deadline: gateway.clock.monotonic() + patience,
            gateway,
            located,
        }
    }

    /// Sends the range's bytes; the last item is an error if they could not all be had.
    pub(super) async fn run(self, range: Range<u64>, blocks: Blocks) {
        let mut taker = Taker::Client(blocks.clone());
        if let Err(Ended::Failed(error)) = self.hand_to(&mut taker, range).await {
            // The client may be gone: then nobody needs the error.
            let _gone = blocks.send(Err(error)).await;
        }
    }

    /// All of the range's bytes.
    pub(super) async fn gather(self, range: Range<u64>) -> Result<VecDeque<Bytes>, DownloadError> {
        let mut taker = Taker::Memory(VecDeque::new());
        match (self.hand_to(&mut taker, range).await, taker) {
            (Ok(()), Taker::Memory(pieces)) => Ok(pieces),
            (Err(Ended::Failed(error)), _) => Err(error),
            (Ok(()) | Err(Ended::ClientGone), _) => Err(DownloadError::Interrupted),
        }
    }

    async fn hand_to(mut self, taker: &mut Taker, range: Range<u64>) -> Result<(), Ended> {
        let mut start = 0;
        for index in 0..self.located.file.chunks.len() {
            let length = self.located.file.chunks[index].length;
            let end = start + length;
            if end > range.start && start < range.end {
                let part = range.start.saturating_sub(start)..range.end.min(end) - start;
                self.chunk(index, start, part, taker).await?;
            }
            start = end;
        }
        Ok(())
    }

    /// Sends `part` (bytes of the chunk), trying every replica and, once, newly asked ones.
    async fn chunk(
        &mut self,
        index: usize,
        start: u64,
        part: Range<u64>,
        taker: &mut Taker,
    ) -> Result<(), Ended> {
        let mut search = Search {
            index,
            start,
            progress: Progress::new(&self.located.file.chunks[index], part),
            tried: BTreeSet::new(),
            bad: BTreeSet::new(),
            relocations: 0,
            detail: "no datanode has reported a replica".to_owned(),
        };
        let mut reading = None;
        while !search.progress.is_whole() {
            let next = tokio::select! {
                next = self.next_block(reading.take(), &mut search) => next,
                () = taker.gone() => return Err(Ended::ClientGone),
            };
            let (lane, block) = next.map_err(Ended::Failed)?;
            let Some(bytes) = search.progress.accept(&block) else {
                let error = damaged(&lane.replica, "the chunk's checksum is wrong");
                self.leave(lane.replica.id, &error, &mut search);
                continue;
            };
            if !taker.take(bytes).await {
                return Err(Ended::ClientGone);
            }
            reading = Some(lane);
        }
        if let Some(lane) = reading {
            // All bytes are sent: an end mark that does not come is not worth a wait.
            let _late = tokio::time::timeout(self.gateway.config.hedge_after, lane.end()).await;
        }
        Ok(())
    }

    /// The block at the position reached, from the replica that is being read or from whichever
    /// delivers it first.
    async fn next_block(
        &mut self,
        reading: Option<Lane>,
        search: &mut Search,
    ) -> Result<(Lane, Block), DownloadError> {
        let long = self.gateway.config.hedge_after;
        // In the middle of a chunk a disk may seek. A first block is late when others would have been here.
        let mut patience = self.gateway.hedge_delay.now();
        let mut lasts = suspects::LASTS;
        let mut race = Race::default();
        if let Some(mut lane) = reading {
            match tokio::time::timeout(long, lane.next()).await {
                Ok(Ok(block)) => return Ok((lane, block)),
                Ok(Err(error)) => self.leave(lane.replica.id, &error, search),
                Err(_) => {
                    race.go_on(lane);
                    self.hedge(&mut race, search);
                    patience = long;
                }
            }
        }
        loop {
            if race.is_over() {
                let replica = self.another(search).await?;
                self.open(&mut race, replica, search, None);
            }
            let arrived = tokio::select! {
                arrived = race.next() => arrived,
                () = tokio::time::sleep(patience) => {
                    if patience < long {
                        // Late, but nobody knows yet how late.
                        lasts = suspects::BRIEFLY;
                    }
                    self.hedge(&mut race, search);
                    patience = long;
                    continue;
                }
            };
            let Arrived {
                datanode,
                is_hedge,
                overtaken,
                opened,
                outcome,
            } = arrived;
            match outcome {
                Ok(first) => {
                    if let Some(opened) = opened {
                        let took = self.gateway.clock.monotonic().saturating_sub(opened);
                        self.gateway.hedge_delay.note(took);
                    }
                    self.won(datanode, is_hedge, (&overtaken, lasts), search);
                    return Ok(first);
                }
                Err(error) => self.leave(datanode, &error, search),
            }
        }
    }

    /// Asks one more replica beside those that let the reader wait, if there is one and a place for it.
    fn hedge(&self, race: &mut Race, search: &mut Search) {
        let Some(replica) = self.untried(search) else {
            return;
        };
        let Ok(place) = self.gateway.hedges.clone().try_acquire_owned() else {
            self.gateway.metrics.hedges.inc(Hedge::Refused);
            return;
        };
        self.gateway.metrics.hedges.inc(Hedge::Sent);
        self.open(race, replica, search, Some(place));
    }

    fn open(
        &self,
        race: &mut Race,
        replica: DatanodeAddress,
        search: &mut Search,
        hedge: Option<OwnedSemaphorePermit>,
    ) {
        search.tried.insert(replica.id);
        let http = self.gateway.datanodes.http().clone();
        let Progress { chunk, .. } = search.progress;
        let now = self.gateway.clock.monotonic();
        race.open(http, replica, chunk, search.progress.rest(), now, hedge);
    }

    /// A replica delivered first: those that it overtook come last for so long, here and in other reads.
    fn won(
        &self,
        datanode: DatanodeId,
        is_hedge: bool,
        (overtaken, lasts): (&[DatanodeId], Duration),
        search: &mut Search,
    ) {
        if is_hedge {
            self.gateway.metrics.hedges.inc(Hedge::Won);
        }
        self.gateway.suspects.clear(datanode);
        for slow in overtaken {
            self.gateway.suspects.note_for(*slow, Doubt::Slow, lasts);
            search.tried.remove(slow);
        }
    }

    /// A replica failed: the read goes on from another.
    fn leave(&self, datanode: DatanodeId, error: &ClientError, search: &mut Search) {
        let chunk = search.progress.chunk;
        tracing::warn!(chunk = %chunk.id, %datanode, %error, "a read goes on from another replica");
        self.gateway.metrics.failovers.inc();
        self.gateway.note_failed(datanode, error);
        if is_bad(error) {
            search.bad.insert(datanode);
            self.report(&chunk, datanode, error);
        }
        search.tried.insert(datanode);
        search.detail = error.to_string();
    }

    /// A replica that was not tried, if need be after locations were asked for anew.
    async fn another(&mut self, search: &mut Search) -> Result<DatanodeAddress, DownloadError> {
        loop {
            if let Some(replica) = self.untried(search) {
                return Ok(replica);
            }
            let may_ask = if self.located.safe_mode {
                self.waited().await
            } else {
                search.relocations < RELOCATIONS
            };
            if !may_ask || !self.relocate().await {
                return Err(DownloadError::Unavailable {
                    path: self.located.file.path.clone(),
                    from: search.start + search.progress.next,
                    detail: search.detail.clone(),
                    safe_mode: self.located.safe_mode,
                });
            }
            search.relocations += 1;
            search.tried.clone_from(&search.bad);
        }
    }

    /// The first replica that was not tried; those in doubt come last.
    fn untried(&self, search: &Search) -> Option<DatanodeAddress> {
        let located = self.located.chunks.get(search.index)?;
        let untried = |replica: &&DatanodeAddress| !search.tried.contains(&replica.id);
        let replicas = located.replicas.iter().filter(untried);
        let best = replicas.min_by_key(|replica| self.gateway.suspects.doubt(replica.id));
        best.cloned()
    }

    /// Waits for a moment while the tracker gathers reports; says whether there was time for it. Other replicas are
    /// about to be known, and the one that failed may have ended with the tracker.
    async fn waited(&self) -> bool {
        if self.gateway.clock.monotonic() >= self.deadline {
            return false;
        }
        self.gateway.metrics.tracker_retries.inc();
        tokio::time::sleep(REPORT_PAUSE).await;
        true
    }

    /// Asks for locations again; false when the file is no longer what is being read.
    async fn relocate(&mut self) -> bool {
        let request = LocateRequest {
            path: self.located.file.path.clone(),
            locations: true,
        };
        match self.gateway.tracker.locate(request).await {
            Ok(located) if located.file.version == self.located.file.version => {
                self.located = located;
                true
            }
            _ => false,
        }
    }

    /// Lets the tracker have a replica verified that is damaged or not where it should be.
    fn report(&self, chunk: &SealedChunk, datanode: DatanodeId, error: &ClientError) {
        let report = SuspectReplica {
            chunk: *chunk,
            datanode,
            detail: error.to_string(),
        };
        let tracker = self.gateway.tracker.clone();
        tokio::spawn(trace::carried(async move {
            if let Err(error) = tracker.suspect(report).await {
                tracing::warn!(%error, "cannot report a suspect replica");
            }
        }));
    }
}

/// Whether a replica itself is at fault, and not the way to it.
fn is_bad(error: &ClientError) -> bool {
    match error {
        ClientError::Malformed { .. } => true,
        ClientError::Refused(problem) => {
            !problem.is(ErrorCode::WrongDatanode) && !error.is_transient()
        }
        ClientError::NotConnected { .. }
        | ClientError::Unreachable { .. }
        | ClientError::TimedOut { .. }
        | ClientError::BrokenOff { .. } => false,
    }
}
