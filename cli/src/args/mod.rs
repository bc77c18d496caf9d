//! The command line: what can be said, how it is read, what the help tells.

mod address;
mod client;
mod factor;
mod look;
mod normalise;
mod operator;
mod plan;
mod roles;
mod token;
mod trace;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use address::{Address, DEFAULT_TRACKER_PORT, ParseAddressError};
pub use client::{
    CatArgs, ChunksArgs, ClientArgs, CompareArgs, CopyArgs, DecommissionArgs, FsckArgs, GetArgs,
    ListArgs, LostArgs, MaintenanceArgs, MoveArgs, NodeArgs, OutputFormat, PutArgs, RemoveArgs,
    StatArgs, StatusArgs, TransferArgs, TrashArgs, TrashCommand,
};
pub use factor::SetrepArgs;
pub use look::{CompletionsArgs, DiskUsageArgs, EventsArgs, TopArgs, TreeArgs};
pub use normalise::normalise;
pub use operator::OperatorArgs;
pub use plan::{PlanArgs, PlanCommand, ProofArgs};
pub use roles::{
    ADMIN_PORT_OFFSET, Admission, DatanodeArgs, DatanodeStopArgs, DevArgs, GatewayArgs,
    JournalMode, ListenArgs, Listening, MetaArgs, MetaCommand, PolicyArgs, ProxyArgs, RebuildArgs,
    Role, TrackerArgs, TrackerCommand, TrackerOptions,
};
pub use token::TokenArgs;
pub use trace::{TraceArgs, UnusableTraces};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed (or: fsck found something; some of several files failed)
  2  the command line makes no sense
  3  not found
  4  a precondition does not hold, or something is in the way
  5  not available now, or broken off: the same command may succeed later
  6  the bytes are not those that were announced (checksum)

Paths in the store are plain, like docs/a.txt; a slash at the end means a directory.
ls, get, cat, stat, du and rm take patterns, quoted: 'photos/*.jpg', '**/[0-9]?.log'.
Where the store listens: --tracker or DFS_TRACKER (default http://127.0.0.1:6000).
Logs of the roles: DFS_LOG=info, dfs_tracker=debug, ...";

/// A replicated file store: the roles, and the verbs of a client.
#[derive(Debug, Parser)]
#[command(name = "dfs", version, about, after_help = EXIT_CODES, propagate_version = true)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole store on this machine, in one process
    Dev(DevArgs),
    /// Run the tracker: the catalog, placement, repair; answers the whole API
    Tracker(TrackerArgs),
    /// Run a datanode: keeps chunks on one volume
    Datanode(DatanodeArgs),
    /// Wait until a datanode may stop, before it is told to: the hook of its pod
    DatanodeStop(DatanodeStopArgs),
    /// Run a gateway: a stateless door for files
    Gateway(GatewayArgs),
    /// Run the operator: makes each DfsCluster of a Kubernetes cluster be what it says
    Operator(OperatorArgs),
    /// Write the catalog out, or read it in (the tracker must not run)
    Meta(MetaArgs),
    /// Copy local files into the store
    Put(PutArgs),
    /// Copy files out of the store
    Get(GetArgs),
    /// Write files to standard output
    Cat(CatArgs),
    /// Compare a local file with one in the store, byte by byte
    Cmp(CompareArgs),
    /// List files and directories
    Ls(ListArgs),
    /// Show directories as they nest
    Tree(TreeArgs),
    /// Show how much directories hold
    Du(DiskUsageArgs),
    /// Show what is known of a file
    Stat(StatArgs),
    /// Delete files (they go to the trash where trash is on)
    Rm(RemoveArgs),
    /// Copy files inside the store, without moving bytes
    Cp(CopyArgs),
    /// Move files or directories inside the store, without moving bytes
    Mv(MoveArgs),
    /// Set how many replicas files should have
    Setrep(SetrepArgs),
    /// Show how the store is
    Status(StatusArgs),
    /// Show the datanodes
    Nodes(StatusArgs),
    /// Show the replicas of a file's chunks
    Chunks(ChunksArgs),
    /// Watch the store live: datanodes, throughput, repair, hot files
    Top(TopArgs),
    /// Check the whole store: every finding, then one verdict
    Fsck(FsckArgs),
    /// Show what happened: datanodes, repair, rebalance
    Events(EventsArgs),
    /// Empty a datanode so that it can be taken away
    Decommission(DecommissionArgs),
    /// Take a datanode back into service
    Recommission(NodeArgs),
    /// Announce that a datanode is away for a while: nothing of it is copied meanwhile
    Maintenance(MaintenanceArgs),
    /// Say what would be without some datanodes, or with another number of them
    Plan(PlanArgs),
    /// Say whether a datanode may stop, and whether it may go for ever (exit 1 when not)
    Proof(ProofArgs),
    /// Say that a dead datanode's volume is lost for ever: what it held is copied at once
    Lost(LostArgs),
    /// Show, restore or purge deleted and replaced files
    Trash(TrashArgs),
    /// Write a shell's completion script to standard output
    Completions(CompletionsArgs),
}

/// Reads a command line, `argv[0]` included. The error is clap's: it knows its exit code and
/// whether it belongs on standard output (help, version).
pub fn parse(argv: Vec<OsString>) -> Result<Cli, clap::Error> {
    let command = Cli::command();
    let argv = normalise(&command, argv);
    Cli::from_arg_matches(&command.try_get_matches_from(argv)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, clap::Error> {
        parse(line.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_seeds_command_lines_are_understood() {
        let Command::Tracker(tracker) = read("dfs tracker").unwrap().command else {
            unreachable!()
        };
        assert_eq!(
            tracker.options.listen.resolve(Role::Tracker).api.port(),
            6000
        );
        for line in [
            "dfs datanode --port 6001 --tracker http://127.0.0.1:6000",
            "dfs datanode -port 6001 -tracker=http://127.0.0.1/:6000",
            "dfs datanode -port=6001 -tracker http://127.0.0.1:6000/",
        ] {
            let Command::Datanode(datanode) = read(line).unwrap().command else {
                unreachable!()
            };
            assert_eq!(datanode.listen.port, Some(6001), "{line}");
            assert_eq!(datanode.tracker.as_str(), "127.0.0.1:6000", "{line}");
        }
    }

    #[test]
    fn directories_and_admin_ports_follow_role_and_port() {
        let Command::Datanode(datanode) = read("dfs datanode --port 6003").unwrap().command else {
            unreachable!()
        };
        let listening = datanode.listen.resolve(Role::Datanode);
        let dir = std::path::Path::new("./dfs-data/datanode-6003");
        assert_eq!(listening.dir, dir);
        assert_eq!(listening.api.to_string(), "127.0.0.1:6003");
        assert_eq!(listening.admin.to_string(), "127.0.0.1:7003");
    }

    #[test]
    fn a_wrong_value_names_the_option_and_the_remedy() {
        let error = read("dfs tracker --repair-delay 5").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains("--repair-delay"), "{text}");
        assert!(text.contains("has no unit"), "{text}");
    }

    #[test]
    fn the_help_documents_the_exit_codes() {
        let help = Cli::command().render_help().to_string();
        for code in ["0  done", "3  not found", "6  the bytes are not"] {
            assert!(help.contains(code), "{help}");
        }
    }
}
