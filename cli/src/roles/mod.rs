//! The roles as commands: from arguments to a running process. What a role does is in its own
//! crate; here its listeners are bound, its directory is looked at, its end is awaited.

mod board;
mod datanode;
mod datanode_stop;
mod dev;
mod gateway;
mod meta;
mod operator;
mod place;
mod switchboard;
#[cfg(test)]
mod tests;
mod tracker;

pub use datanode::run_datanode;
pub use datanode_stop::run_datanode_stop;
pub use dev::{Dev, DevConfig, run_dev};
pub use gateway::run_gateway;
pub use meta::{run_dump, run_load, run_rebuild};
pub use operator::run_operator;
pub use switchboard::{Hosted, switchboard};
pub use tracker::{run_tracker, tracker_config};

use std::time::Duration;

use dfs_runtime::clock::{SharedClock, SystemClock};
use dfs_runtime::disk::{RealDisk, SharedDisk};
use dfs_runtime::net::{SharedConnector, TcpConnector};
use dfs_runtime::process::raise_handle_limit;
use dfs_runtime::rng::SharedRng;
use dfs_runtime::shutdown::{Shutdown, shutdown_pair};
use dfs_runtime::signals::on_signals;
use dfs_runtime::telemetry;

use crate::args::{Command, MetaCommand, TrackerCommand};
use crate::exit::{Exit, Failure};
use crate::output::Output;

/// How long requests in flight may go on after the wish to end: below the 30 s that Kubernetes
/// grants by default.
const DRAIN: Duration = Duration::from_secs(20);

/// What roles take from outside.
#[derive(Debug, Clone)]
pub struct World {
    /// Holds the volumes.
    pub disk: SharedDisk,
    /// Time.
    pub clock: SharedClock,
    /// Randomness.
    pub rng: SharedRng,
    /// Connections to other roles.
    pub connector: SharedConnector,
}

impl World {
    /// The machine's.
    pub fn real() -> Self {
        Self {
            disk: RealDisk::shared(),
            clock: SystemClock::shared(),
            rng: SharedRng::from_entropy(),
            connector: TcpConnector::within_cluster(),
        }
    }
}

/// Runs a role until it ends, or until SIGTERM or SIGINT. Client verbs are refused.
pub async fn run(command: Command, out: &Output) -> Exit {
    // What a person started to look at, or a tool that ends by itself, only warns.
    let quiet = match &command {
        Command::Dev(_) | Command::Meta(_) | Command::DatanodeStop(_) => true,
        Command::Tracker(args) => args.command.is_some(),
        _ => false,
    };
    if quiet {
        telemetry::init_quiet();
    } else {
        telemetry::init();
    }
    raise_handle_limit();
    let (trigger, shutdown) = shutdown_pair();
    let signals = match on_signals(trigger) {
        Ok(signals) => signals,
        Err(error) => {
            out.failure(&Failure::local("listen to signals", &error));
            return Exit::Failed;
        }
    };
    let ended = tokio::select! {
        ended = dispatch(command, out, shutdown) => ended,
        // A second signal: the person does not want to wait.
        () = signals => return Exit::Interrupted,
    };
    crate::verbs::finish(out, ended)
}

async fn dispatch(command: Command, out: &Output, shutdown: Shutdown) -> Result<Exit, Failure> {
    let world = World::real();
    match command {
        Command::Dev(args) => run_dev(&args, world, out, shutdown).await?,
        Command::Tracker(args) => match args.command {
            None => run_tracker(&args.options, world, shutdown).await?,
            Some(TrackerCommand::Rebuild(args)) => run_rebuild(&args, world, out).await?,
        },
        Command::Datanode(args) => run_datanode(&args, world, shutdown).await?,
        Command::DatanodeStop(args) => run_datanode_stop(&args, world.connector, out).await,
        Command::Gateway(args) => run_gateway(&args, world, shutdown).await?,
        Command::Operator(args) => run_operator(&args, world, shutdown).await?,
        Command::Meta(args) => match args.command {
            MetaCommand::Dump { dir } => run_dump(dir, world, out).await?,
            MetaCommand::Load { dir } => run_load(dir, world, out).await?,
        },
        _ => return Err(Failure::usage("dfs", "this is a client verb, not a role")),
    }
    Ok(Exit::Done)
}
