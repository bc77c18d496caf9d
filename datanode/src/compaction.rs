//! Gives the room of removed small chunks back, one pack at a time, within a bandwidth. Always on.

use std::sync::Arc;
use std::time::Duration;

use crate::context::Context;
use crate::throttle::Throttle;

/// How long to wait when no pack is worth it, or the disk refused.
const REST: Duration = Duration::from_secs(10);

/// Compacts until the shutdown.
pub async fn run(ctx: Arc<Context>) {
    let throttle = Throttle::new(ctx.clock.clone(), ctx.config.compaction_rate);
    while !ctx.shutdown.is_triggered() {
        let step = ctx.blocking(|ctx| ctx.store.compact()).await;
        match step {
            Ok(Ok(Some(bytes))) => {
                tokio::select! {
                    () = throttle.pass(bytes) => {}
                    () = ctx.shutdown.triggered() => {}
                }
                continue;
            }
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = error.describe(), "could not compact a pack");
            }
            Err(problem) => {
                tracing::warn!(%problem, "could not compact a pack");
            }
        }
        tokio::select! {
            () = ctx.shutdown.triggered() => {}
            () = tokio::time::sleep(REST) => {}
        }
    }
}
