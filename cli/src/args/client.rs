//! Options of the client verbs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use dfs_protocol::{DatanodeId, TrashId, VersionId};

use super::address::Address;
use super::token::TokenArgs;
use dfs_runtime::units::parse_duration;

/// The tracker takes no longer time.
const LONGEST_AWAY: Duration = Duration::from_hours(24);

/// Where the store is and how it is spoken of.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// The tracker, or a gateway for the verbs on files
    #[arg(long, env = "DFS_TRACKER", default_value = "http://127.0.0.1:6000")]
    pub tracker: Address,
    /// For people, or for scripts (JSON; one document a line where there are many)
    #[arg(short, long, env = "DFS_OUTPUT", value_enum, default_value_t = OutputFormat::Text)]
    pub output: OutputFormat,
    /// How often a request that failed for the moment is sent again
    #[arg(long, env = "DFS_RETRIES", default_value_t = 6,
          value_parser = clap::value_parser!(u32).range(0..=100))]
    pub retries: u32,
    /// Try again also while nothing listens there: the store may be about to start
    #[arg(long, env = "DFS_WAIT")]
    pub wait: bool,
    /// The cluster token, where the store asks for one.
    #[command(flatten)]
    pub token: TokenArgs,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people
    Text,
    /// For scripts
    Json,
}

/// How several files travel.
#[derive(Debug, Clone, Copy, Args)]
pub struct TransferArgs {
    /// Whole directories
    #[arg(short, long)]
    pub recursive: bool,
    /// Files under way at the same time
    #[arg(short, long, env = "DFS_JOBS", default_value_t = 4,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
    /// No progress bar
    #[arg(short, long)]
    pub quiet: bool,
}

/// `dfs put SRC... DEST`.
#[derive(Debug, Args)]
#[command(after_help = "\
A DEST that ends in a slash is a directory: each SRC goes into it under its own name.
Otherwise DEST is the very path of the one SRC; with -r, of the directory.
Without DEST a single SRC goes to the top of the store. SRC `-` is standard input.
Symbolic links are followed; special files and cycles are skipped with a warning.")]
pub struct PutArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// How files travel.
    #[command(flatten)]
    pub transfer: TransferArgs,
    /// Only where nothing is yet (exit 4 otherwise)
    #[arg(long, conflicts_with = "if_match")]
    pub if_absent: bool,
    /// Only over this version (exit 4 otherwise)
    #[arg(long, value_name = "ETAG")]
    pub if_match: Option<VersionId>,
    /// Media type
    #[arg(long)]
    pub content_type: Option<String>,
    /// Local files, then where they go
    #[arg(required = true, value_name = "SRC... DEST")]
    pub paths: Vec<PathBuf>,
}

/// `dfs get SRC... DEST`.
#[derive(Debug, Args)]
#[command(after_help = "\
A DEST that ends in a slash, is . or .., or is a directory takes each SRC under its own name.
Otherwise DEST is the file itself. With -r, DEST without a slash becomes the directory.
Without DEST a single SRC goes to the current directory. DEST `-` is standard output.
Each file appears under its name only when it is whole and its checksum is right.")]
pub struct GetArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// How files travel.
    #[command(flatten)]
    pub transfer: TransferArgs,
    /// Paths in the store, then where they go
    #[arg(required = true, value_name = "SRC... DEST")]
    pub paths: Vec<PathBuf>,
}

/// `dfs cat PATH...`.
#[derive(Debug, Args)]
pub struct CatArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Paths in the store
    #[arg(required = true)]
    pub paths: Vec<String>,
}

/// `dfs cmp LOCAL PATH`.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Local file
    pub local: PathBuf,
    /// Path in the store
    pub path: String,
}

/// `dfs ls [PATH]`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Everything below, not only the next level
    #[arg(short, long)]
    pub recursive: bool,
    /// Paths only
    #[arg(short, long)]
    pub names: bool,
    /// Exact bytes
    #[arg(short, long)]
    pub bytes: bool,
    /// A file or a directory
    #[arg(default_value = "/")]
    pub path: String,
}

/// `dfs stat PATH...`.
#[derive(Debug, Args)]
pub struct StatArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Paths in the store
    #[arg(required = true)]
    pub paths: Vec<String>,
}

/// `dfs rm PATH...`.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// How files travel.
    #[command(flatten)]
    pub transfer: TransferArgs,
    /// What is not there is no error
    #[arg(short, long)]
    pub force: bool,
    /// Only this version (exit 4 otherwise)
    #[arg(long, value_name = "ETAG", conflicts_with = "recursive")]
    pub if_match: Option<VersionId>,
    /// Paths in the store
    #[arg(required = true)]
    pub paths: Vec<String>,
}

/// `dfs cp SRC... DEST`.
#[derive(Debug, Args)]
#[command(after_help = "\
Both sides are in the store: use put and get for local files. A DEST that ends in a slash is a
directory; otherwise it is the very path of the one SRC (with -r, of the directory).")]
pub struct CopyArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// How files travel.
    #[command(flatten)]
    pub transfer: TransferArgs,
    /// Only where nothing is yet (exit 4 otherwise)
    #[arg(long)]
    pub if_absent: bool,
    /// Paths in the store
    #[arg(required = true, num_args = 2.., value_name = "SRC... DEST")]
    pub paths: Vec<String>,
}

/// `dfs mv SRC... DEST`.
#[derive(Debug, Args)]
#[command(after_help = "\
Both sides are in the store. A DEST that ends in a slash is a directory; otherwise it is the very
path of the one SRC. A directory (SRC with a slash at its end, or -r) moves in one transaction.")]
pub struct MoveArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// SRC is a directory
    #[arg(short, long)]
    pub recursive: bool,
    /// Only where nothing is yet (exit 4 otherwise)
    #[arg(long)]
    pub if_absent: bool,
    /// Paths in the store
    #[arg(required = true, num_args = 2.., value_name = "SRC... DEST")]
    pub paths: Vec<String>,
}

/// `dfs status`, `dfs nodes`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `dfs chunks FILE`.
#[derive(Debug, Args)]
pub struct ChunksArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Path in the store
    pub path: String,
}

/// `dfs fsck`.
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `dfs decommission DATANODE`.
#[derive(Debug, Args)]
pub struct DecommissionArgs {
    /// Which.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Wait until it is decommissioned, and tell how far that is
    #[arg(short, long = "wait-done")]
    pub wait_done: bool,
}

/// `dfs maintenance DATANODE`.
#[derive(Debug, Args)]
pub struct MaintenanceArgs {
    /// Which.
    #[command(flatten)]
    pub node: NodeArgs,
    /// How long it is away, from now on; at most 24 h
    #[arg(long = "for", value_name = "DURATION", default_value = "5m", value_parser = parse_away)]
    pub away: Duration,
    /// It is back, or waited for no longer
    #[arg(long, conflicts_with = "away")]
    pub end: bool,
}

fn parse_away(text: &str) -> Result<Duration, String> {
    let away = parse_duration(text).map_err(|error| error.to_string())?;
    if (1..=LONGEST_AWAY.as_secs()).contains(&away.as_secs()) {
        Ok(away)
    } else {
        Err("write 1s to 24h; whoever is away longer is to be decommissioned".to_owned())
    }
}

/// `dfs recommission DATANODE`.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Where the store is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Id of the datanode, its first digits (as `dfs nodes` shows them) or its HOST:PORT
    pub datanode: String,
}

impl NodeArgs {
    /// The id, when a whole one was written.
    pub fn id(&self) -> Option<DatanodeId> {
        self.datanode.parse().ok()
    }
}

/// `dfs lost DATANODE`.
#[derive(Debug, Args)]
pub struct LostArgs {
    /// Which.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Go on although it has the only replica of chunks: those files are lost then
    #[arg(long)]
    pub accept_loss: bool,
}

/// `dfs trash`.
#[derive(Debug, Args)]
pub struct TrashArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: TrashCommand,
}

/// What to do with the trash.
#[derive(Debug, Subcommand)]
pub enum TrashCommand {
    /// Show it, oldest first
    List {
        /// Where the store is.
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Bring a version back
    Restore {
        /// Where the store is.
        #[command(flatten)]
        client: ClientArgs,
        /// Where to [default: where it came from]
        #[arg(long)]
        to: Option<String>,
        /// Id, as `dfs trash list` shows it
        id: TrashId,
    },
    /// Delete a version for good
    Purge {
        /// Where the store is.
        #[command(flatten)]
        client: ClientArgs,
        /// Ids, as `dfs trash list` shows them
        #[arg(required = true)]
        ids: Vec<TrashId>,
    },
}
