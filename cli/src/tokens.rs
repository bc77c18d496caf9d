//! The cluster token as it is given on the command line.

use std::path::PathBuf;

use dfs_runtime::clock::SharedClock;
use dfs_runtime::disk::{RealDisk, SharedDisk};
use dfs_runtime::shutdown::Shutdown;
use dfs_runtime::token::{TokenError, Tokens};

use crate::args::{ClientArgs, TokenArgs};
use crate::exit::{Exit, Failure};
use crate::roles::World;

/// Holds the token itself, for verbs.
const VARIABLE: &str = "DFS_TOKEN";

/// The tokens of a role, read again until the shutdown.
pub async fn of_role(
    args: &TokenArgs,
    world: &World,
    shutdown: &Shutdown,
) -> Result<Tokens, Failure> {
    let Some(path) = args.token_file.clone() else {
        return Ok(Tokens::none());
    };
    let tokens = open(world.disk.clone(), world.clock.clone(), path).await?;
    let looking = tokens.clone();
    tokio::spawn(looking.keep_looking(world.clock.clone(), shutdown.clone()));
    Ok(tokens)
}

/// The tokens of a command that ends by itself.
pub async fn of_client(client: &ClientArgs) -> Result<Tokens, Failure> {
    if let Some(path) = client.token.token_file.clone() {
        let clock = dfs_runtime::clock::SystemClock::shared();
        return open(RealDisk::shared(), clock, path).await;
    }
    match std::env::var(VARIABLE) {
        Ok(token) if !token.trim().is_empty() => {
            Tokens::fixed(&token).map_err(|error| unusable(&format!("use {VARIABLE}"), &error))
        }
        _ => Ok(Tokens::none()),
    }
}

async fn open(disk: SharedDisk, clock: SharedClock, path: PathBuf) -> Result<Tokens, Failure> {
    let what = format!("read the token file {}", path.display());
    let now = clock.monotonic();
    let read = tokio::task::spawn_blocking(move || Tokens::open(disk, path, now)).await;
    match read {
        Ok(read) => read.map_err(|error| unusable(&what, &error)),
        Err(error) => Err(Failure::new(Exit::Failed, what, error.to_string())),
    }
}

fn unusable(what: &str, error: &TokenError) -> Failure {
    match error {
        TokenError::Unreadable { source, .. } => Failure::local(what, source),
        TokenError::Empty | TokenError::NotAToken { .. } | TokenError::TooMany => {
            Failure::new(Exit::Failed, what, error.to_string())
                .next("write one token a line, the one to be sent first")
        }
    }
}
