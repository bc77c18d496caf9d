//! Options of `dfs setrep`.

use clap::Args;
use dfs_protocol::factor::FactorChange;
use dfs_protocol::file::MAX_FACTOR;

use super::client::ClientArgs;

/// `dfs setrep N PATH...`.
#[derive(Debug, Args)]
#[command(after_help = "\
A PATH that ends in a slash is a directory: everything below it, files that come later not
included. More replicas are copied by repair, replicas that are too many are deleted once
datanodes have proved that enough are left; -w waits for both.")]
pub struct SetrepArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Wait until every file has as many replicas as it should
    #[arg(short, long = "wait-reached")]
    pub wait_reached: bool,
    /// As hdfs has it; directories are taken whole in any case
    #[arg(short = 'R', hide = true)]
    pub recursive: bool,
    /// Replicas, 1 to 7, or `default`: as many as the cluster's files have, whatever that becomes
    #[arg(value_name = "N", value_parser = read_factor)]
    pub factor: FactorChange,
    /// Paths in the store
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<String>,
}

fn read_factor(text: &str) -> Result<FactorChange, String> {
    if text == "default" {
        return Ok(FactorChange::Cluster);
    }
    let factor = text.parse().ok();
    factor
        .and_then(FactorChange::own)
        .ok_or_else(|| format!("write 1 to {MAX_FACTOR}, or `default`"))
}
