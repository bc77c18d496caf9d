//! The client verbs: one function each, from arguments to an exit code.

mod change;
mod cmp;
mod events;
mod expand;
mod fsck;
mod get;
mod list;
mod nodes;
mod plan;
mod put;
mod setrep;
mod status;
mod top;
mod trash;
mod tree;
mod usage;

#[cfg(test)]
pub(crate) mod tests;

use std::io::Read;

use dfs_runtime::net::SharedConnector;

use crate::args::{ClientArgs, Command};
use crate::exit::{Exit, Failure};
use crate::human;
use crate::output::{Output, is_closed_output};
use crate::session::{Door, Session};
use crate::tokens;
use crate::transfer::{Progress, Tally};

/// What a command gets from its process.
pub struct Environment {
    /// Where connections come from.
    pub connector: SharedConnector,
    /// Where it writes.
    pub out: Output,
    /// Standard input.
    pub stdin: Box<dyn Read + Send>,
    /// The store, where it is known without the command line.
    pub door: Option<Door>,
}

/// Runs a client verb. Role commands are refused: see [`crate::roles`]. The future is not `Send`:
/// await it where it is made, or join several on one task.
pub async fn run(command: Command, environment: Environment) -> Exit {
    let out = environment.out.clone();
    if let Command::Completions(args) = &command {
        let written = out.line(crate::completions::script(args.shell).trim_end());
        return finish(&out, written.map(|()| Exit::Done));
    }
    let ended = match client_of(&command) {
        Some(client) => match tokens::of_client(client).await {
            Ok(tokens) => {
                let session = Session::new(client, environment.connector, environment.out);
                let session = match environment.door {
                    Some(door) => session.at(door),
                    None => session.with_tokens(tokens),
                };
                dispatch(&session, command, environment.stdin).await
            }
            Err(failure) => Err(failure),
        },
        None => Err(Failure::usage("dfs", "this is a role, not a client verb")),
    };
    out.set_bar(None);
    finish(&out, ended)
}

/// Tells the failure and gives the code.
pub(crate) fn finish(out: &Output, ended: Result<Exit, Failure>) -> Exit {
    match ended {
        Ok(exit) => exit,
        Err(failure) if is_closed_output(&failure) => Exit::Done,
        Err(failure) => {
            out.failure(&failure);
            failure.exit
        }
    }
}

async fn dispatch(
    session: &Session,
    command: Command,
    stdin: Box<dyn Read + Send>,
) -> Result<Exit, Failure> {
    match command {
        Command::Put(args) => put::put(session, args, stdin).await,
        Command::Get(args) => get::get(session, args).await,
        Command::Cat(args) => get::cat(session, &args.paths).await,
        Command::Cmp(args) => cmp::cmp(session, args).await,
        Command::Ls(args) => list::ls(session, &args).await,
        Command::Tree(args) => tree::tree(session, &args).await,
        Command::Du(args) => usage::du(session, &args).await,
        Command::Events(args) => events::events(session, &args).await,
        Command::Stat(args) => list::stat(session, &args.paths).await,
        Command::Rm(args) => change::rm(session, args).await,
        Command::Cp(args) => change::cp(session, args).await,
        Command::Mv(args) => change::mv(session, args).await,
        Command::Setrep(args) => setrep::setrep(session, args).await,
        Command::Status(_) => status::status(session).await,
        Command::Nodes(_) => nodes::nodes(session).await,
        Command::Top(args) => Box::pin(top::top(session, &args)).await,
        Command::Chunks(args) => nodes::chunks(session, &args.path).await,
        Command::Fsck(_) => fsck::fsck(session).await,
        Command::Decommission(args) => nodes::decommission(session, &args).await,
        Command::Recommission(args) => nodes::recommission(session, &args.datanode).await,
        Command::Maintenance(args) => nodes::maintenance(session, &args).await,
        Command::Plan(args) => plan::plan(session, args.command).await,
        Command::Proof(args) => plan::proof(session, &args.node).await,
        Command::Lost(args) => nodes::lost(session, &args.node.datanode, args.accept_loss).await,
        Command::Trash(args) => trash::trash(session, args.command).await,
        Command::Dev(_)
        | Command::Tracker(_)
        | Command::Datanode(_)
        | Command::DatanodeStop(_)
        | Command::Gateway(_)
        | Command::Completions(_)
        | Command::Operator(_)
        | Command::Meta(_) => Err(Failure::usage("dfs", "this is a role, not a client verb")),
    }
}

fn client_of(command: &Command) -> Option<&ClientArgs> {
    use crate::args::{PlanCommand, TrashCommand};
    Some(match command {
        Command::Put(args) => &args.client,
        Command::Get(args) => &args.client,
        Command::Cat(args) => &args.client,
        Command::Cmp(args) => &args.client,
        Command::Ls(args) => &args.client,
        Command::Tree(args) => &args.client,
        Command::Du(args) => &args.client,
        Command::Events(args) => &args.client,
        Command::Stat(args) => &args.client,
        Command::Rm(args) => &args.client,
        Command::Cp(args) => &args.client,
        Command::Mv(args) => &args.client,
        Command::Setrep(args) => &args.client,
        Command::Status(args) | Command::Nodes(args) => &args.client,
        Command::Top(args) => &args.client,
        Command::Chunks(args) => &args.client,
        Command::Fsck(args) => &args.client,
        Command::Decommission(args) => &args.node.client,
        Command::Recommission(args) => &args.client,
        Command::Maintenance(args) => &args.node.client,
        Command::Plan(args) => match &args.command {
            PlanCommand::Lose { client, .. } | PlanCommand::Scale { client, .. } => client,
        },
        Command::Proof(args) => &args.client,
        Command::Lost(args) => &args.node.client,
        Command::Trash(args) => match &args.command {
            TrashCommand::List { client }
            | TrashCommand::Restore { client, .. }
            | TrashCommand::Purge { client, .. } => client,
        },
        Command::Dev(_)
        | Command::Tracker(_)
        | Command::Datanode(_)
        | Command::DatanodeStop(_)
        | Command::Gateway(_)
        | Command::Completions(_)
        | Command::Operator(_)
        | Command::Meta(_) => return None,
    })
}

/// Ends a verb on several files: takes the bar away, tells the count, gives the code. The summary
/// is for people and only where one file's own line does not say it all.
fn conclude(
    session: &Session,
    progress: &Progress,
    verb: &str,
    tally: Tally,
    summary: bool,
) -> Result<Exit, Failure> {
    progress.finish(&session.out);
    if summary && !session.out.is_json() {
        let files = human::count(tally.done, "file");
        let bytes = match tally.bytes {
            0 => String::new(),
            bytes => format!(", {}", human::bytes(bytes)),
        };
        session.out.line(&format!("{verb} {files}{bytes}"))?;
    }
    let asked = tally.done + tally.failed + tally.skipped;
    if tally.failed > 0 && asked > 1 {
        let mut text = format!(
            "{} of {} failed",
            human::thousands(tally.failed),
            human::count(asked, "file")
        );
        if tally.skipped > 0 {
            let skipped = human::thousands(tally.skipped);
            text = format!("{text}; {skipped} were not tried: the store is not available");
        }
        session.out.note(&text);
    }
    Ok(tally.exit)
}
