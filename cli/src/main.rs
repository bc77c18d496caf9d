//! The `dfs` binary: parses, runs, ends with a code.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use dfs_cli::args::{self, Cli, Command};
use dfs_cli::exit::Exit;
use dfs_cli::output::Output;
use dfs_cli::roles;
use dfs_cli::verbs::{self, Environment};
use dfs_runtime::net::TcpConnector;

/// How long a thread that waits for a pipe may hold the end up.
const LAST_WAIT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output, errors to standard error; a reader that
            // left is none.
            let _written = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let out = Output::process(std::io::stderr().is_terminal());
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            out.note(&format!("error: cannot start: {error}"));
            return ExitCode::from(Exit::Failed.code());
        }
    };
    let exit = runtime.block_on(run(cli, out));
    runtime.shutdown_timeout(LAST_WAIT);
    ExitCode::from(exit.code())
}

async fn run(cli: Cli, out: Output) -> Exit {
    let command = cli.command;
    let is_role = matches!(
        command,
        Command::Dev(_)
            | Command::Tracker(_)
            | Command::Datanode(_)
            | Command::Gateway(_)
            | Command::Operator(_)
            | Command::Meta(_)
    );
    if is_role {
        return roles::run(command, &out).await;
    }
    let environment = Environment {
        connector: TcpConnector::shared(),
        out,
        stdin: Box::new(std::io::stdin()),
    };
    tokio::select! {
        exit = verbs::run(command, environment) => exit,
        _ = tokio::signal::ctrl_c() => Exit::Interrupted,
    }
}
