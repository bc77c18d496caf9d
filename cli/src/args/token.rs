//! Where the cluster token is.

use std::path::PathBuf;

use clap::Args;

/// The file of the cluster's tokens.
#[derive(Debug, Clone, Default, Args)]
pub struct TokenArgs {
    /// File of the cluster's tokens, one a line: the first is sent, each one is accepted. Read again
    /// while a role runs. Verbs also take the token itself in DFS_TOKEN
    #[arg(long, env = "DFS_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}
