//! The tracker's commands: carried out by a bounded number of workers, each under the fence that
//! it came with, each answered in a heartbeat.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

use dfs_protocol::datanode::{Command, FinishedTask, TaskOutcome};
use dfs_protocol::repair::RepairLane;
use dfs_protocol::{Fence, TaskId};
use tokio::sync::Semaphore;

use crate::context::Context;
use crate::replicate::{Pace, copy};
use crate::scrub::verify;

/// Commands that may run or wait. The tracker plans anew what is dropped.
const MAX_KNOWN: usize = 4096;
/// As many more may be copies of last replicas.
const MAX_KNOWN_LAST: usize = 256;

/// Who carries commands out. Copies of last replicas have workers of their own: neither slow copies nor a
/// purge keep them waiting.
#[derive(Debug)]
pub struct Workers {
    last_replicas: Semaphore,
    others: Semaphore,
}

impl Workers {
    /// So many for copies of last replicas, and so many for all the rest.
    pub fn new(each: usize) -> Arc<Self> {
        Arc::new(Self {
            last_replicas: Semaphore::new(each),
            others: Semaphore::new(each),
        })
    }

    /// Nothing that waits begins any more.
    pub fn close(&self) {
        self.last_replicas.close();
        self.others.close();
    }

    fn of(&self, lane: RepairLane) -> &Semaphore {
        match lane {
            RepairLane::LastReplica => &self.last_replicas,
            RepairLane::Other => &self.others,
        }
    }
}

/// Starts the commands of a heartbeat's reply; those already known are not started twice. `last_replicas` are
/// the copies of chunks with one replica left.
pub fn start(
    ctx: &Arc<Context>,
    workers: &Arc<Workers>,
    fence: Fence,
    commands: Vec<Command>,
    last_replicas: &BTreeSet<TaskId>,
) {
    for command in commands {
        let lane = if last_replicas.contains(&command.task()) {
            RepairLane::LastReplica
        } else {
            RepairLane::Other
        };
        let mut tasks = ctx.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = |task: &FinishedTask| task.task == command.task();
        if tasks.known.contains(&command.task()) || tasks.finished.iter().any(answered) {
            continue;
        }
        let most = match lane {
            RepairLane::LastReplica => MAX_KNOWN + MAX_KNOWN_LAST,
            RepairLane::Other => MAX_KNOWN,
        };
        if tasks.known.len() >= most {
            ctx.metrics.commands_dropped.inc();
            continue;
        }
        tasks.known.insert(command.task());
        drop(tasks);
        let (running, workers) = (Arc::clone(ctx), Arc::clone(workers));
        ctx.spawn(async move {
            let ctx = running;
            let task = command.task();
            let outcome = match workers.of(lane).acquire().await {
                Ok(_permit) => carry_out(&ctx, fence, command, lane).await,
                Err(_closed) => failed(&"the datanode is stopping"),
            };
            match &outcome {
                TaskOutcome::Done => ctx.metrics.commands_done.inc(),
                TaskOutcome::Failed { detail, .. } => {
                    ctx.metrics.commands_failed.inc();
                    tracing::info!(%task, detail, "a command failed");
                }
            }
            ctx.finish(FinishedTask { task, outcome });
        });
    }
}

/// Carries one command out, unless a newer tracker was heard since it came (I8).
pub async fn carry_out(
    ctx: &Arc<Context>,
    fence: Fence,
    command: Command,
    lane: RepairLane,
) -> TaskOutcome {
    if let Err(problem) = ctx.accept(fence).await {
        return failed(&problem);
    }
    match command {
        Command::Copy { chunk, sources, .. } => {
            match copy(ctx, &chunk, &sources, Pace::Repair(lane)).await {
                Ok(_) => TaskOutcome::Done,
                Err(error) => TaskOutcome::Failed {
                    source: error.source_datanode,
                    detail: error.problem.to_string(),
                },
            }
        }
        Command::Delete {
            chunk,
            version,
            kind,
            ..
        } => {
            let removed = ctx
                .blocking(move |ctx| {
                    drop(ctx.attempts.take_parked((chunk, version)));
                    ctx.store.remove(chunk, version, kind)
                })
                .await;
            match removed {
                Ok(Ok(_)) => TaskOutcome::Done,
                Ok(Err(error)) => failed(&error.describe()),
                Err(problem) => failed(&problem),
            }
        }
        Command::Verify { chunk, version, .. } => match verify(ctx, (chunk, version), None).await {
            Ok(()) => TaskOutcome::Done,
            Err(error) => failed(&error.describe()),
        },
    }
}

fn failed(detail: &dyn std::fmt::Display) -> TaskOutcome {
    TaskOutcome::Failed {
        source: None,
        detail: detail.to_string(),
    }
}
