//! Options of the verbs that look around: sizes, trees, events; and of the shells.

use std::time::Duration;

use clap::{ArgAction, Args};
use dfs_runtime::units::parse_duration;

use super::ClientArgs;

/// Bounds of the time between two looks of `dfs top`: each look is three requests.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);
const LONGEST_INTERVAL: Duration = Duration::from_hours(1);

/// `dfs du [PATH...]`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
#[command(after_help = "\
Sizes are those of the files, once: each replica takes as much on its datanode, copies inside the
store take nothing.")]
pub struct DiskUsageArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Exact bytes
    #[arg(short, long, conflicts_with = "human")]
    pub bytes: bool,
    /// Sizes for people, like 1.5 MiB: what is shown anyway
    #[arg(short = 'h', long)]
    pub human: bool,
    /// Only the sum of each PATH
    #[arg(short, long, conflicts_with = "depth")]
    pub summarize: bool,
    /// Directories down to so many levels below PATH; deeper ones only count
    #[arg(short, long, value_name = "LEVELS")]
    pub depth: Option<usize>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    pub help: Option<bool>,
    /// Files, directories, patterns
    #[arg(default_value = "/")]
    pub paths: Vec<String>,
}

impl DiskUsageArgs {
    /// Levels that are shown; the PATH itself is 0.
    pub fn levels(&self) -> usize {
        match self.depth {
            _ if self.summarize => 0,
            Some(depth) => depth,
            None => usize::MAX,
        }
    }
}

/// `dfs tree [PATH]`.
#[derive(Debug, Args)]
pub struct TreeArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Exact bytes
    #[arg(short, long)]
    pub bytes: bool,
    /// So many levels; what is deeper is not looked at
    #[arg(short, long, value_name = "LEVELS", value_parser = clap::value_parser!(u32).range(1..))]
    pub depth: Option<u32>,
    /// A file or a directory
    #[arg(default_value = "/")]
    pub path: String,
}

/// `dfs events`.
#[derive(Debug, Args)]
#[command(after_help = "\
The tracker keeps its last thousand events in memory; metrics and logs have the rest.")]
pub struct EventsArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Go on with what happens, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Only events after this one
    #[arg(long, value_name = "ID")]
    pub since: Option<u64>,
}

/// `dfs top`.
#[derive(Debug, Args)]
#[command(after_help = "\
Keys: q or Esc ends it, ? shows the others. Where standard output is no terminal it writes one frame, as
with --once; with -o json that is one JSON document. NO_COLOR is honoured.
Rates are what datanodes counted between two heartbeats; hot files are what the tracker was asked for in the
last minutes, older accesses counting less.")]
pub struct TopArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Between two looks at the store
    #[arg(short, long, value_name = "DURATION", default_value = "2s", value_parser = parse_interval)]
    pub interval: Duration,
    /// Write one frame as plain text, after two looks
    #[arg(long)]
    pub once: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text).map_err(|error| error.to_string())?;
    if (SHORTEST_INTERVAL..=LONGEST_INTERVAL).contains(&interval) {
        Ok(interval)
    } else {
        Err("write 200ms to 1h".to_owned())
    }
}

/// `dfs completions SHELL`.
#[derive(Debug, Args)]
#[command(after_help = "\
  bash:  dfs completions bash > ~/.local/share/bash-completion/completions/dfs
  zsh:   dfs completions zsh > DIR/_dfs, where DIR is in $fpath
  fish:  dfs completions fish > ~/.config/fish/completions/dfs.fish
For `kubectl dfs`, link this binary as kubectl_complete-dfs beside kubectl-dfs.")]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}
