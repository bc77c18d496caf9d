//! Reads every replica through, longest unverified first, within a bandwidth. Always on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dfs_protocol::checksum::crc32c;
use dfs_protocol::datanode::Damage;
use dfs_protocol::{ChunkId, ChunkVersion};
use dfs_runtime::disk::{SharedDisk, read_whole, replace_durably};

use crate::context::Context;
use crate::store::index::{MonotonicSeconds, ReplicaKey};
use crate::store::layout::VERIFIED_FILE;
use crate::store::{ChunkRead, ReplicaIndex, StoreError};
use crate::throttle::Throttle;

/// Blocks read at once: 1 MiB.
const STEP: u64 = 16;
/// How long to wait when everything was verified lately.
const REST: Duration = Duration::from_secs(30);
/// How often verification times are written down.
const SAVE_EVERY: Duration = Duration::from_mins(10);
/// 48 bytes for each of many millions of replicas.
const MAX_FILE: u64 = 1 << 30;

/// Scrubs until the shutdown.
pub async fn run(ctx: Arc<Context>, disk: SharedDisk) {
    let throttle = Throttle::new(ctx.clock.clone(), ctx.config.scrub_rate);
    let mut saved = ctx.clock.monotonic();
    while !ctx.shutdown.is_triggered() {
        let due = pass(&ctx, &throttle).await;
        if ctx.clock.monotonic() >= saved + SAVE_EVERY {
            save_now(&ctx, &disk).await;
            saved = ctx.clock.monotonic();
        }
        if !due {
            tokio::select! {
                () = ctx.shutdown.triggered() => {}
                () = tokio::time::sleep(REST) => {}
            }
        }
    }
    save_now(&ctx, &disk).await;
}

/// Verifies replicas that are due, until the time to save comes. False when none was due.
async fn pass(ctx: &Arc<Context>, throttle: &Throttle) -> bool {
    let until = ctx.clock.monotonic() + SAVE_EVERY;
    let interval = i64::try_from(ctx.config.scrub_interval.as_secs()).unwrap_or(i64::MAX);
    let replicas = ctx.store.index().by_verification();
    let mut any = false;
    for (key, verified) in &replicas {
        let age = ctx.seconds().saturating_sub(verified.unwrap_or(0));
        ctx.oldest_verified
            .store(verified.unwrap_or(0), Ordering::Relaxed);
        let due = verified.is_none() || age >= interval;
        if !due || ctx.shutdown.is_triggered() || ctx.clock.monotonic() >= until {
            return any;
        }
        any = true;
        let verdict = verify(ctx, *key, Some(throttle)).await;
        if let Err(error @ (StoreError::Disk { .. } | StoreError::Failed { .. })) = verdict {
            tracing::warn!(chunk = %key.0, error = error.describe(), "scrub could not read");
            // Counted as seen: one unreadable replica must not stop the others' turn.
            ctx.store.index().verified(*key, ctx.seconds());
        }
    }
    if replicas.is_empty() || any {
        ctx.oldest_verified.store(ctx.seconds(), Ordering::Relaxed);
    }
    any
}

/// Reads one replica through. What is damaged is set aside by the store.
pub async fn verify(
    ctx: &Arc<Context>,
    (id, version): ReplicaKey,
    throttle: Option<&Throttle>,
) -> Result<(), StoreError> {
    let reader = blocking(ctx, move |ctx| ctx.store.open(id, version)).await?;
    let total = crate::store::record::block_count(reader.header().chunk.length);
    let mut first = 0;
    while first < total {
        let reading = Arc::clone(&reader);
        let bytes = blocking(ctx, move |_| read_step(reading.as_ref(), first)).await?;
        ctx.metrics.scrubbed_bytes.inc_by(bytes);
        if let Some(throttle) = throttle {
            tokio::select! {
                () = throttle.pass(bytes) => {}
                () = ctx.shutdown.triggered() => return Ok(()),
            }
        }
        first += STEP;
    }
    if !reader.whole_matches() {
        let damage = Damage::Footer;
        blocking(ctx, move |ctx| {
            ctx.store.set_aside(id, version, damage);
            Ok(())
        })
        .await?;
        return Err(StoreError::Corrupt {
            chunk: id,
            version,
            damage,
        });
    }
    ctx.store.index().verified((id, version), ctx.seconds());
    Ok(())
}

fn read_step(reader: &dyn ChunkRead, first: u64) -> Result<u64, StoreError> {
    let blocks = reader.blocks(first, STEP)?;
    Ok(blocks.iter().map(|block| block.data.len() as u64).sum())
}

async fn blocking<T: Send + 'static>(
    ctx: &Arc<Context>,
    work: impl FnOnce(&Context) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    ctx.blocking(work).await.unwrap_or_else(|problem| {
        Err(StoreError::Disk {
            doing: "reading a chunk",
            source: std::io::Error::other(problem),
        })
    })
}

async fn save_now(ctx: &Arc<Context>, disk: &SharedDisk) {
    let disk = Arc::clone(disk);
    let wall = ctx.clock.wall().as_second();
    let saved = ctx
        .blocking(move |ctx| {
            save(
                &disk,
                ctx.volume.root(),
                ctx.store.index(),
                ctx.seconds(),
                wall,
            )
        })
        .await;
    if let Ok(Err(error)) = saved {
        tracing::warn!(%error, "could not write down when replicas were verified");
    }
}

/// Writes verification times down, as wall-clock seconds: they only order the next scrub.
pub fn save(
    disk: &SharedDisk,
    root: &Path,
    index: &ReplicaIndex,
    now: MonotonicSeconds,
    wall: i64,
) -> std::io::Result<()> {
    let times: Vec<(ChunkId, ChunkVersion, i64)> = index
        .by_verification()
        .into_iter()
        .filter_map(|((id, version), at)| Some((id, version, wall - (now - at?))))
        .collect();
    let mut bytes = postcard::to_stdvec(&times).map_err(std::io::Error::other)?;
    bytes.extend_from_slice(&crc32c(&bytes).to_le_bytes());
    replace_durably(disk.as_ref(), root, VERIFIED_FILE, &bytes)
}

/// Reads verification times; an unreadable file only makes everything due.
pub fn load(
    disk: &SharedDisk,
    root: &Path,
    index: &ReplicaIndex,
    now: MonotonicSeconds,
    wall: i64,
) {
    let Ok(bytes) = read_whole(disk.as_ref(), &root.join(VERIFIED_FILE), MAX_FILE) else {
        return;
    };
    let Some((table, crc)) = bytes.split_last_chunk::<4>() else {
        return;
    };
    if crc32c(table).to_le_bytes() != *crc {
        return;
    }
    let times: Vec<(ChunkId, ChunkVersion, i64)> = postcard::from_bytes(table).unwrap_or_default();
    for (id, version, at) in times {
        // A wall clock that jumped back must not put verifications into the future.
        index.verified((id, version), now - (wall.saturating_sub(at)).max(0));
    }
}
