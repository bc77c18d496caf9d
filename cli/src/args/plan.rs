//! Options of `dfs plan` and `dfs proof`.

use clap::{Args, Subcommand};

use super::client::ClientArgs;

/// `dfs plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// What if?
    #[command(subcommand)]
    pub command: PlanCommand,
}

/// What if?
#[derive(Debug, Subcommand)]
pub enum PlanCommand {
    /// Say what would be without some datanodes, all lost at once
    Lose {
        /// Where the store is.
        #[command(flatten)]
        client: ClientArgs,
        /// Ids, their first digits, HOST:PORTs, pods, or hosts (Kubernetes nodes): then all on it
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<String>,
    },
    /// Say what would be with another number of datanodes
    Scale {
        /// Where the store is.
        #[command(flatten)]
        client: ClientArgs,
        /// Datanodes in service
        #[arg(value_name = "N")]
        datanodes: u32,
    },
}

/// `dfs proof NODE`.
#[derive(Debug, Args)]
pub struct ProofArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Id, its first digits, HOST:PORT, pod, or host (Kubernetes node) of one datanode
    #[arg(value_name = "NODE")]
    pub node: String,
}
