//! The `dfs` binary: parses, runs, ends with a code.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use dfs_cli::args::{self, Command};
use dfs_cli::completions;
use dfs_cli::exit::Exit;
use dfs_cli::kube::{self, CalledAs, KubeArgs};
use dfs_cli::output::Output;
use dfs_cli::roles;
use dfs_cli::verbs::{self, Environment};
use dfs_runtime::net::TcpConnector;
use tokio::signal::unix::{SignalKind, signal};

/// How long a thread that waits for a pipe may hold the end up.
const LAST_WAIT: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().collect();
    let out = Output::process(std::io::stderr().is_terminal());
    let work = match CalledAs::of(argv.first()) {
        CalledAs::Completion => return complete(&argv, &out),
        CalledAs::Plugin => kube::parse(argv).map(|(kube, command)| Work::Kube(kube, command)),
        CalledAs::Dfs => args::parse(argv).map(|cli| Work::Dfs(cli.command)),
    };
    let work = match work {
        Ok(work) => work,
        Err(error) => {
            // Help and version go to standard output, errors to standard error; a reader that
            // left is none.
            let _written = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
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
    let exit = runtime.block_on(run(work, out));
    runtime.shutdown_timeout(LAST_WAIT);
    ExitCode::from(exit.code())
}

/// What was asked for, by whichever name.
enum Work {
    Dfs(Command),
    Kube(KubeArgs, Command),
}

/// Answers kubectl, which asks how the last of the words behind `kubectl dfs` may go on.
fn complete(argv: &[OsString], out: &Output) -> ExitCode {
    let words: Vec<_> = argv
        .iter()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let (candidates, directive) = completions::complete(&kube::command(), &words);
    let written = out.line(&completions::render(&candidates, directive));
    ExitCode::from(written.map_or(Exit::Failed, |()| Exit::Done).code())
}

async fn run(work: Work, out: Output) -> Exit {
    let command = match work {
        Work::Dfs(command) => command,
        Work::Kube(kube, command) => {
            return until_signal(Box::pin(kube::run(&kube, command, out))).await;
        }
    };
    let is_role = matches!(
        command,
        Command::Dev(_)
            | Command::Tracker(_)
            | Command::Datanode(_)
            | Command::DatanodeStop(_)
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
        door: None,
    };
    until_signal(verbs::run(command, environment)).await
}

/// Ends a verb at Ctrl-C or SIGTERM, by dropping it: children are killed, half-written files go.
async fn until_signal(verb: impl Future<Output = Exit>) -> Exit {
    let Ok(mut end) = signal(SignalKind::terminate()) else {
        return verb.await;
    };
    tokio::select! {
        exit = verb => exit,
        _ = tokio::signal::ctrl_c() => Exit::Interrupted,
        _ = end.recv() => Exit::Interrupted,
    }
}
