//! The roles of `dfs` over a disk whose un-synced state dies with the process: `kill -9` of this
//! is a power cut. Takes the command line of `dfs tracker`, `dfs datanode` and `dfs dev`.
//!
//! `DFS_VOLATILE_SKIP_SYNC=PART` plants a bug: an fsync of a path that holds PART does nothing.

use std::process::ExitCode;

use dfs_cli::args::{self, Command, TrackerCommand};
use dfs_cli::exit::{Exit, Failure};
use dfs_cli::output::Output;
use dfs_cli::roles::{World, run_datanode, run_dev, run_rebuild, run_tracker};
use dfs_e2e::disk::{CallKind, DiskFaults, Effect, Fault, FaultyDisk, VolatileDisk};
use dfs_runtime::disk::SharedDisk;
use dfs_runtime::shutdown::{Shutdown, shutdown_pair};
use dfs_runtime::signals::on_signals;
use dfs_runtime::telemetry;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody may be there to read it.
            let _written = error.print();
            return ExitCode::from(Exit::Usage.code());
        }
    };
    telemetry::init();
    let out = Output::process(false);
    let (trigger, shutdown) = shutdown_pair();
    let signals = match on_signals(trigger) {
        Ok(signals) => signals,
        Err(error) => {
            out.failure(&Failure::local("listen to signals", &error));
            return ExitCode::from(Exit::Failed.code());
        }
    };
    let ended = tokio::select! {
        ended = run(cli.command, &out, shutdown) => ended,
        () = signals => return ExitCode::from(Exit::Interrupted.code()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.exit.code())
        }
    }
}

async fn run(command: Command, out: &Output, shutdown: Shutdown) -> Result<(), Failure> {
    let world = World {
        disk: disk(),
        ..World::real()
    };
    match command {
        Command::Dev(args) => run_dev(&args, world, out, shutdown).await,
        Command::Datanode(args) => run_datanode(&args, world, shutdown).await,
        Command::Tracker(args) => match args.command {
            None => run_tracker(&args.options, world, shutdown).await,
            Some(TrackerCommand::Rebuild(args)) => run_rebuild(&args, world, out).await,
        },
        _ => Err(Failure::usage(
            "dfs-volatile",
            "only the tracker, datanodes and dev run on a volatile disk",
        )),
    }
}

fn disk() -> SharedDisk {
    let volatile = VolatileDisk::new();
    let Ok(part) = std::env::var("DFS_VOLATILE_SKIP_SYNC") else {
        return volatile;
    };
    let faults = DiskFaults::new();
    for kind in [CallKind::Sync, CallKind::SyncDir] {
        faults.inject(Fault::on(kind, Effect::SkipSync).path(&part));
    }
    FaultyDisk::over_volatile(volatile, faults)
}
