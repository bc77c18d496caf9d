//! The read path: locate -> verified blocks from the best replica -> the client, with failover in
//! mid-stream (design.md section 7).

mod body;
mod hedge_delay;
#[cfg(test)]
mod hedge_tests;
mod progress;
mod race;
mod reader;
#[cfg(test)]
pub(crate) mod tests;

use std::ops::Range;

use axum::body::Body;
use dfs_protocol::chunk::BLOCK_SIZE_U64;
use dfs_protocol::upload::LocateResponse;
use dfs_runtime::trace;
use tokio::sync::mpsc;

use body::DownloadBody;
pub(crate) use hedge_delay::HedgeDelay;
use reader::Reader;

use crate::error::DownloadError;
use crate::gateway::SharedGateway;
use dfs_protocol::Problem;

/// Blocks between the reader and the client: with what the sockets hold, the whole memory of a
/// download.
const AHEAD_BLOCKS: usize = 16;

/// Ranges up to this are read whole before they are answered, by the task of their request: of two blocks, in two
/// chunks at the most but for files of tiny chunks.
const SMALL_BYTES: u64 = 2 * BLOCK_SIZE_U64;

/// The bytes of a range as a body. Returns once the first bytes are at hand, so that what cannot be
/// read at all is an answer and not a broken connection.
pub(crate) async fn open(
    gateway: SharedGateway,
    located: LocateResponse,
    range: Range<u64>,
) -> Result<Body, Problem> {
    let length = range.end.saturating_sub(range.start);
    if length == 0 {
        return Ok(Body::empty());
    }
    let place = gateway.download_place()?;
    let metrics = gateway.metrics.clone();
    let reader = Reader::new(gateway, located);
    let body = |ready, blocks| Body::new(DownloadBody::new(ready, blocks, length, metrics, place));
    if length <= SMALL_BYTES {
        return Ok(body(reader.gather(range).await?, None));
    }
    let (blocks, mut received) = mpsc::channel(AHEAD_BLOCKS);
    tokio::spawn(trace::carried(reader.run(range, blocks)));
    match received.recv().await {
        Some(Ok(first)) => Ok(body([first].into(), Some(received))),
        Some(Err(error)) => Err(error.into()),
        None => Err(DownloadError::Interrupted.into()),
    }
}
