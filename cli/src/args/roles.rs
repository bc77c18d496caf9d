//! Options of the roles. Every one has an environment variable; none of them has a name of the form
//! `DFS_<SERVICE>_PORT`, because Kubernetes sets such variables itself for a Service called `dfs`.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use dfs_protocol::ClusterId;
use dfs_protocol::datanode::WriteMode;
use dfs_runtime::forwarded::TrustedProxies;

use super::address::{Address, DEFAULT_TRACKER_PORT};
use super::client::ClientArgs;
use super::token::TokenArgs;
use super::trace::TraceArgs;
use dfs_runtime::units::{parse_duration, parse_size};

/// The admin listener's port is the API's plus this.
pub const ADMIN_PORT_OFFSET: u16 = 1000;

/// Where a role listens and keeps its data, as it was said.
#[derive(Debug, Clone, Args)]
pub struct ListenArgs {
    /// Address to listen on (0.0.0.0 for every interface)
    #[arg(long, env = "DFS_LISTEN", default_value = "127.0.0.1")]
    pub listen: IpAddr,
    /// Port of the API [default: tracker 6000, datanode 6001, gateway 8080]
    #[arg(long, env = "DFS_LISTEN_PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Port of /livez, /readyz and /metrics [default: the API's port + 1000]
    #[arg(long, env = "DFS_LISTEN_ADMIN_PORT")]
    pub admin_port: Option<u16>,
    /// Where the data lives [default: ./dfs-data/ROLE-PORT]
    #[arg(long, env = "DFS_DIR")]
    pub dir: Option<PathBuf>,
}

/// Where a role listens and keeps its data, defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// The API.
    pub api: SocketAddr,
    /// Liveness, readiness, metrics. Port 0 (any) where port + 1000 is no port.
    pub admin: SocketAddr,
    /// The data.
    pub dir: PathBuf,
}

/// Who listens: decides the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Port 6000.
    Tracker,
    /// Port 6001.
    Datanode,
    /// Port 8080.
    Gateway,
}

impl Role {
    /// As in directories and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tracker => "tracker",
            Self::Datanode => "datanode",
            Self::Gateway => "gateway",
        }
    }

    /// The port of one that was given none.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Tracker => DEFAULT_TRACKER_PORT,
            Self::Datanode => 6001,
            Self::Gateway => 8080,
        }
    }
}

impl ListenArgs {
    /// Fills the defaults in.
    pub fn resolve(&self, role: Role) -> Listening {
        let port = self.port.unwrap_or(role.default_port());
        let admin = self
            .admin_port
            .unwrap_or_else(|| port.checked_add(ADMIN_PORT_OFFSET).unwrap_or(0));
        Listening {
            api: SocketAddr::new(self.listen, port),
            admin: SocketAddr::new(self.listen, admin),
            dir: default_directory(self.dir.as_ref(), role.as_str(), port),
        }
    }
}

fn default_directory(given: Option<&PathBuf>, role: &str, port: u16) -> PathBuf {
    given
        .cloned()
        .unwrap_or_else(|| PathBuf::from(format!("./dfs-data/{role}-{port}")))
}

/// `dfs tracker`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TrackerArgs {
    /// Something else than running it.
    #[command(subcommand)]
    pub command: Option<TrackerCommand>,
    /// How to run it.
    #[command(flatten)]
    pub options: TrackerOptions,
}

/// What else can be done with a tracker.
#[derive(Debug, Subcommand)]
pub enum TrackerCommand {
    /// Build the catalog anew from what the datanodes keep (checkpoint and journal)
    Rebuild(RebuildArgs),
}

/// How a tracker runs. Used by `dfs dev` too.
#[derive(Debug, Clone, Args)]
pub struct TrackerOptions {
    /// Where it listens.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// How it decides.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// The cluster token.
    #[command(flatten)]
    pub token: TokenArgs,
    /// Who lets new datanodes in: whoever reaches the port is in, or the operator admits them
    #[arg(long, env = "DFS_ADMISSION", value_enum, default_value_t = Admission::Auto)]
    pub admission: Admission,
    /// Id of the cluster whose catalog must be here. Where there is none, none is made: the tracker
    /// waits for a rebuild
    #[arg(
        long,
        env = "DFS_EXPECT_CLUSTER",
        default_value = "",
        hide_default_value = true
    )]
    pub expect_cluster: ExpectedCluster,
    /// Who stands in front.
    #[command(flatten)]
    pub proxies: ProxyArgs,
    /// Where its traces go.
    #[command(flatten)]
    pub traces: TraceArgs,
}

/// Who stands between the clients and a role.
#[derive(Debug, Clone, Default, Args)]
pub struct ProxyArgs {
    /// Networks of the proxies in front (CIDR), whose X-Forwarded-For tells the client's address;
    /// anyone else's is ignored
    #[arg(
        long,
        env = "DFS_TRUSTED_PROXIES",
        value_name = "CIDR,...",
        default_value = "",
        hide_default_value = true
    )]
    pub trusted_proxies: TrustedProxies,
}

/// A cluster's id, or nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExpectedCluster(pub Option<ClusterId>);

impl std::str::FromStr for ExpectedCluster {
    type Err = dfs_protocol::ParseIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let given = Some(text.trim()).filter(|text| !text.is_empty());
        Ok(Self(given.map(str::parse).transpose()?))
    }
}

/// Who lets new datanodes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Admission {
    /// Whoever reaches the port, with the token where there is one
    Auto,
    /// An administrator, one by one
    Operator,
}

/// How a tracker decides.
#[derive(Debug, Clone, Args)]
pub struct PolicyArgs {
    /// Wanted replicas of each chunk
    #[arg(long, env = "DFS_REPLICATION", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=7))]
    pub replication: u32,
    /// Fewest replicas that a write is acknowledged with [default: min(2, replication)]
    #[arg(long, env = "DFS_MIN_WRITE", value_parser = clap::value_parser!(u32).range(1..=7))]
    pub min_write: Option<u32>,
    /// How long a datanode may be silent before its chunks are copied
    #[arg(long, env = "DFS_REPAIR_DELAY", default_value = "5m", value_parser = parse_duration)]
    pub repair_delay: Duration,
    /// Time between a datanode's heartbeats
    #[arg(long, env = "DFS_HEARTBEAT_INTERVAL", default_value = "1s",
          value_parser = parse_duration)]
    pub heartbeat_interval: Duration,
    /// Percent by which the used shares of datanodes may differ before replicas move; 0 moves none
    #[arg(long, env = "DFS_REBALANCE_THRESHOLD", default_value_t = 5, value_name = "PERCENT",
          value_parser = clap::value_parser!(u32).range(0..=50))]
    pub rebalance_threshold: u32,
    /// Most bytes that begin to move in a second
    #[arg(long, env = "DFS_REBALANCE_RATE", default_value = "64MiB", value_name = "BYTES",
          value_parser = parse_rate)]
    pub rebalance_rate: u64,
    /// Most bytes a second that one datanode receives to restore or move replicas, and that it sends; 0 for no
    /// limit
    #[arg(long, env = "DFS_REPAIR_RATE", default_value = "256MiB", value_name = "BYTES",
          value_parser = parse_repair_rate)]
    pub repair_rate: u64,
    /// Most bytes a second that are copied off datanodes that are being decommissioned [default: no limit]
    #[arg(long, env = "DFS_DECOMMISSION_RATE", value_name = "BYTES", value_parser = parse_rate_of_leaving)]
    pub decommission_rate: Option<u64>,
    /// How long deleted and replaced files stay in the trash; 0 turns the trash off
    #[arg(long, env = "DFS_TRASH_RETENTION", default_value = "24h",
          value_parser = parse_duration)]
    pub trash_retention: Duration,
    /// How long a chunk that no file names is kept after its upload was last heard of
    #[arg(long, env = "DFS_ORPHAN_AGE", default_value = "1h", value_parser = parse_duration)]
    pub orphan_age: Duration,
    /// Bytes of a full chunk
    #[arg(long, env = "DFS_CHUNK_SIZE", default_value = "64MiB", value_parser = parse_chunk_size)]
    pub chunk_size: u64,
    /// Whether a change is on the datanodes' journals before it is answered
    #[arg(long, env = "DFS_JOURNAL", value_enum, default_value_t = JournalMode::Sync)]
    pub journal: JournalMode,
}

impl PolicyArgs {
    /// Fewest replicas that a write is acknowledged with.
    pub fn min_write(&self) -> u32 {
        self.min_write.unwrap_or_else(|| self.replication.min(2))
    }
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let why = "a rate of 0 moves nothing; turn rebalance off instead: --rebalance-threshold 0";
    parse_positive(text, why)
}

fn parse_rate_of_leaving(text: &str) -> Result<u64, String> {
    let why = "with a rate of 0 no datanode is ever emptied; leave it out for no limit";
    parse_positive(text, why)
}

fn parse_repair_rate(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 1024 * 1024;
    match parse_size(text) {
        Ok(bytes) if bytes == 0 || bytes >= LEAST => Ok(bytes),
        Ok(_) => Err("at less than 1MiB a second copies break off; 0 means no limit".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A size that is not 0; `why_not_0` says why and what to do instead.
fn parse_positive(text: &str, why_not_0: &str) -> Result<u64, String> {
    match parse_size(text) {
        Ok(0) => Err(why_not_0.to_owned()),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

fn parse_chunk_size(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).map_err(|error| error.to_string())?;
    let (block, most) = (
        dfs_protocol::chunk::BLOCK_SIZE_U64,
        dfs_protocol::chunk::MAX_CHUNK_SIZE,
    );
    if bytes < block || bytes > most || !bytes.is_multiple_of(block) {
        return Err(format!(
            "`{text}` is no chunk size; write a multiple of 64KiB from 64KiB to 1GiB"
        ));
    }
    Ok(bytes)
}

/// When the journal is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JournalMode {
    /// Before a change is answered
    Sync,
    /// Up to a second later
    Async,
}

/// `dfs tracker rebuild`.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// Where the new catalog goes: must not hold one
    #[arg(long, env = "DFS_DIR")]
    pub dir: PathBuf,
    /// Address of a datanode; give all that exist
    #[arg(long = "datanode", env = "DFS_DATANODES", required = true, num_args = 1..,
          value_delimiter = ',')]
    pub datanodes: Vec<Address>,
    /// Wanted replicas of files that are found without a name
    #[arg(long, env = "DFS_REPLICATION", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=7))]
    pub replication: u32,
    /// Go on over missing journal records; what they changed is lost
    #[arg(long)]
    pub allow_gap: bool,
    /// The cluster token.
    #[command(flatten)]
    pub token: TokenArgs,
}

/// `dfs meta`.
#[derive(Debug, Args)]
pub struct MetaArgs {
    /// Which way.
    #[command(subcommand)]
    pub command: MetaCommand,
}

/// Which way the catalog goes.
#[derive(Debug, Subcommand)]
pub enum MetaCommand {
    /// Write the catalog to standard output
    Dump {
        /// The tracker's directory
        #[arg(long, env = "DFS_DIR", default_value = "./dfs-data/tracker-6000")]
        dir: PathBuf,
    },
    /// Read a catalog from standard input into an empty directory
    Load {
        /// The tracker's directory
        #[arg(long, env = "DFS_DIR", default_value = "./dfs-data/tracker-6000")]
        dir: PathBuf,
    },
}

/// `dfs datanode`.
#[derive(Debug, Clone, Args)]
pub struct DatanodeArgs {
    /// Where it listens.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// The tracker
    #[arg(long, env = "DFS_TRACKER", default_value = "http://127.0.0.1:6000")]
    pub tracker: Address,
    /// Failure domain: replicas are spread over zones
    #[arg(long, env = "DFS_ZONE")]
    pub zone: Option<String>,
    /// Kubernetes node (or machine): replicas are spread over these first
    #[arg(long, env = "DFS_HOST")]
    pub host: Option<String>,
    /// Kubernetes pod that it runs in: tells the administrator who asks to be let in
    #[arg(long, env = "DFS_POD")]
    pub pod: Option<String>,
    /// HOST:PORT that peers reach it by [default: what it listens on]
    #[arg(long, env = "DFS_ADVERTISE")]
    pub advertise: Option<Address>,
    /// Room on the volume that chunks never take [default: a twentieth of the volume]
    #[arg(long, env = "DFS_RESERVE", value_parser = parse_size)]
    pub reserve: Option<u64>,
    /// Bytes per second that the scrub may read
    #[arg(long, env = "DFS_SCRUB_RATE", value_parser = parse_size)]
    pub scrub_rate: Option<u64>,
    /// Chunks up to this size, at most 16MiB, share files; 0 = each has its own [default: 1MiB]
    #[arg(long, env = "DFS_PACK_LIMIT", value_parser = parse_size)]
    pub pack_limit: Option<u64>,
    /// How larger chunks are written: auto = the first of the others that the volume takes
    #[arg(long, env = "DFS_WRITE_MODE", value_enum, default_value_t = WriteModeArg::Auto)]
    pub write_mode: WriteModeArg,
    /// The cluster token.
    #[command(flatten)]
    pub token: TokenArgs,
    /// Where its traces go.
    #[command(flatten)]
    pub traces: TraceArgs,
}

/// How large chunks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WriteModeArg {
    /// Whatever the volume can do best.
    Auto,
    /// Through the page cache, which lets go of them at once (Linux 6.14).
    Dontcache,
    /// Past the page cache (O_DIRECT).
    Direct,
    /// Through the page cache.
    Buffered,
}

impl WriteModeArg {
    /// None for the best.
    pub fn wanted(self) -> Option<WriteMode> {
        match self {
            Self::Auto => None,
            Self::Dontcache => Some(WriteMode::Dontcache),
            Self::Direct => Some(WriteMode::Direct),
            Self::Buffered => Some(WriteMode::Buffered),
        }
    }
}

/// `dfs datanode-stop`.
#[derive(Debug, Clone, Args)]
pub struct DatanodeStopArgs {
    /// Where the tracker is.
    #[command(flatten)]
    pub client: ClientArgs,
    /// The datanode that is about to stop
    #[arg(long, env = "DFS_DATANODE", default_value = "http://127.0.0.1:6001")]
    pub datanode: Address,
    /// How long it may be waited for
    #[arg(long, env = "DFS_STOP_LIMIT", default_value = "1m", value_parser = parse_duration)]
    pub limit: Duration,
}

/// `dfs gateway`.
#[derive(Debug, Clone, Args)]
pub struct GatewayArgs {
    /// Where it listens.
    #[command(flatten)]
    pub listen: ListenArgs,
    /// The tracker
    #[arg(long, env = "DFS_TRACKER", default_value = "http://127.0.0.1:6000")]
    pub tracker: Address,
    /// How long a request waits for a tracker that is restarting
    #[arg(long, env = "DFS_TRACKER_PATIENCE", default_value = "30s",
          value_parser = parse_duration)]
    pub tracker_patience: Duration,
    /// The cluster token.
    #[command(flatten)]
    pub token: TokenArgs,
    /// Who stands in front.
    #[command(flatten)]
    pub proxies: ProxyArgs,
    /// Where its traces go.
    #[command(flatten)]
    pub traces: TraceArgs,
}

/// `dfs dev`.
#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Address to listen on
    #[arg(long, env = "DFS_LISTEN", default_value = "127.0.0.1")]
    pub listen: IpAddr,
    /// The one port of the whole store
    #[arg(long, env = "DFS_LISTEN_PORT", default_value_t = 6000)]
    pub port: u16,
    /// Where everything lives, kept between runs [default: ./dfs-data/dev-PORT]
    #[arg(long, env = "DFS_DIR")]
    pub dir: Option<PathBuf>,
    /// How many datanodes
    #[arg(long, env = "DFS_DATANODES", default_value_t = 3,
          value_parser = clap::value_parser!(u32).range(1..=32))]
    pub datanodes: u32,
    /// How the tracker decides.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// The cluster token.
    #[command(flatten)]
    pub token: TokenArgs,
}

impl DevArgs {
    /// `./dfs-data/dev-PORT` unless given.
    pub fn directory(&self) -> PathBuf {
        default_directory(self.dir.as_ref(), "dev", self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rebalance_rate_is_not_zero() {
        assert_eq!(parse_rate("10MiB"), Ok(10 << 20));
        assert!(
            parse_rate("0")
                .unwrap_err()
                .contains("--rebalance-threshold 0")
        );
        assert!(parse_rate("fast").is_err());
    }

    #[test]
    fn a_repair_rate_is_none_or_enough_to_keep_copies_alive() {
        assert_eq!(parse_repair_rate("0"), Ok(0));
        assert_eq!(parse_repair_rate("1MiB"), Ok(1 << 20));
        for bad in ["1023KiB", "1", "fast"] {
            assert!(parse_repair_rate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_chunk_size_is_a_multiple_of_a_block_within_limits() {
        assert_eq!(parse_chunk_size("64MiB"), Ok(64 << 20));
        for bad in ["0", "65537", "2GiB", "1KiB", "x"] {
            assert!(parse_chunk_size(bad).is_err(), "{bad}");
        }
    }
}
