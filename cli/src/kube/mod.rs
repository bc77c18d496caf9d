//! `kubectl dfs`: the client verbs against a cluster that the operator runs, through a port-forward
//! of its own. The same binary under the name `kubectl-dfs`; kubectl finds it on the PATH.

mod forward;
mod kubectl;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, CommandFactory as _, FromArgMatches as _};
use dfs_runtime::token::Tokens;

use crate::args::{Cli, Command, normalise};
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::session::Door;
use crate::verbs::{self, Environment};
use forward::Forward;
use kubectl::{Kubectl, Trouble};

/// The resource, with its group: another `dfsclusters` is not ours.
const RESOURCE: &str = "dfsclusters.dfs.io";
/// Key of the token in its Secret.
const TOKEN_KEY: &str = "token";

/// Which of its names the binary was called by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CalledAs {
    /// `dfs`, or any other name.
    Dfs,
    /// `kubectl-dfs`: by kubectl, as a plugin.
    Plugin,
    /// `kubectl_complete-dfs`: by kubectl, for words that complete.
    Completion,
}

impl CalledAs {
    /// Decides by `argv[0]`.
    pub fn of(argv0: Option<&OsString>) -> Self {
        match argv0.and_then(|name| Path::new(name).file_name()?.to_str()) {
            Some("kubectl-dfs") => Self::Plugin,
            Some("kubectl_complete-dfs") => Self::Completion,
            _ => Self::Dfs,
        }
    }
}

/// Which cluster. `-n` is the namespace behind every verb too, as everywhere in kubectl: what `ls`
/// calls so elsewhere has only its long name here.
#[derive(Debug, Clone, Default, Args)]
pub struct KubeArgs {
    /// Namespace of the DfsCluster [default: the context's]
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// The kubeconfig [default: KUBECONFIG, or ~/.kube/config]
    #[arg(long, global = true)]
    pub kubeconfig: Option<String>,
    /// The DfsCluster [default: the only one in the namespace]
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// The kubectl that is used
    #[arg(
        long,
        global = true,
        env = "DFS_KUBECTL",
        default_value = "kubectl",
        hide = true
    )]
    pub kubectl: OsString,
}

/// The plugin's command line: the client verbs, and which cluster.
pub fn command() -> clap::Command {
    let dfs = Cli::command();
    let mut command = clap::Command::new("kubectl-dfs")
        .bin_name("kubectl dfs")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Use a DfsCluster: the verbs of dfs, through a port-forward made by itself")
        .after_help("The cluster's gateway serves files; its tracker serves status, nodes, top, chunks,\nfsck, trash, events, plan, proof, decommission and maintenance, with the token of the Secret NAME-token.\nExit codes and patterns are those of dfs; see `dfs --help`.")
        .disable_help_subcommand(true)
        .propagate_version(true)
        .subcommand_required(true)
        .arg_required_else_help(true);
    command = KubeArgs::augment_args(command);
    for verb in dfs
        .get_subcommands()
        .filter(|verb| is_client_verb(verb.get_name()))
    {
        command = command.subcommand(plugged(verb.clone()));
    }
    command
}

fn is_client_verb(name: &str) -> bool {
    !matches!(
        name,
        "dev"
            | "tracker"
            | "datanode"
            | "datanode-stop"
            | "gateway"
            | "meta"
            | "operator"
            | "completions"
    )
}

/// A verb as the plugin has it: where the store is needs no option.
fn plugged(verb: clap::Command) -> clap::Command {
    let verb = verb.mut_args(|argument| match argument.get_id().as_str() {
        "tracker" => argument.hide(true).env(None::<&str>),
        "names" => argument.short(None),
        _ => argument,
    });
    verb.mut_subcommands(plugged)
}

/// Reads the plugin's command line, `argv[0]` included.
pub fn parse(argv: Vec<OsString>) -> Result<(KubeArgs, Command), clap::Error> {
    let command = command();
    let matches = command
        .clone()
        .try_get_matches_from(normalise(&command, argv))?;
    let kube = KubeArgs::from_arg_matches(&matches)?;
    Ok((kube, Command::from_arg_matches(&matches)?))
}

/// Runs a verb against the cluster. The child that forwards has ended when this returns; when the
/// future is dropped it is killed.
pub async fn run(kube: &KubeArgs, command: Command, out: Output) -> Exit {
    let kubectl = Kubectl::new(kube);
    match open(&kubectl, kube, &command).await {
        Ok((forward, door)) => {
            let environment = Environment {
                connector: forward.clone(),
                out,
                stdin: Box::new(std::io::stdin()),
                door: Some(door),
            };
            let exit = verbs::run(command, environment).await;
            forward.stop().await;
            exit
        }
        Err(failure) => {
            out.failure(&failure);
            failure.exit
        }
    }
}

/// Finds the cluster, its token where the verb needs it, and begins to forward.
async fn open(
    kubectl: &Kubectl,
    kube: &KubeArgs,
    command: &Command,
) -> Result<(Arc<Forward>, Door), Failure> {
    let cluster = match &kube.cluster {
        Some(name) => name.clone(),
        None => choose(&clusters(kubectl).await?, kube.namespace.as_deref())?,
    };
    let target = Target::of(command);
    let tokens = if target == Target::Tracker {
        tokens(kubectl, &cluster).await?
    } else {
        Tokens::none()
    };
    let (service, port) = target.service(&cluster);
    let door = Door {
        address: format!("{service}:{port}"),
        tokens,
    };
    let forward = Forward::begin(kubectl.clone(), service, port).await?;
    Ok((Arc::new(forward), door))
}

/// Who answers a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Files: everybody's door.
    Gateway,
    /// `status`: on the tracker, for everybody.
    Status,
    /// Administration: on the tracker, for whoever has the token.
    Tracker,
}

impl Target {
    fn of(command: &Command) -> Self {
        match command {
            Command::Put(_)
            | Command::Get(_)
            | Command::Cat(_)
            | Command::Cmp(_)
            | Command::Ls(_)
            | Command::Tree(_)
            | Command::Du(_)
            | Command::Stat(_)
            | Command::Rm(_)
            | Command::Cp(_)
            | Command::Mv(_)
            | Command::Setrep(_) => Self::Gateway,
            Command::Status(_) => Self::Status,
            Command::Nodes(_)
            | Command::Top(_)
            | Command::Chunks(_)
            | Command::Fsck(_)
            | Command::Events(_)
            | Command::Decommission(_)
            | Command::Recommission(_)
            | Command::Maintenance(_)
            | Command::Plan(_)
            | Command::Proof(_)
            | Command::Lost(_)
            | Command::Trash(_)
            // Never parsed here; verbs refuse them.
            | Command::Completions(_)
            | Command::Dev(_)
            | Command::Tracker(_)
            | Command::Datanode(_)
            | Command::DatanodeStop(_)
            | Command::Gateway(_)
            | Command::Operator(_)
            | Command::Meta(_) => Self::Tracker,
        }
    }

    /// The Service and its port, as the operator makes them.
    fn service(self, cluster: &str) -> (String, u16) {
        match self {
            Self::Gateway => (format!("{cluster}-gateway"), 80),
            Self::Status | Self::Tracker => (format!("{cluster}-tracker"), 6000),
        }
    }
}

async fn clusters(kubectl: &Kubectl) -> Result<Vec<String>, Failure> {
    let template = "jsonpath={range .items[*]}{.metadata.name}{\"\\n\"}{end}";
    let answer = kubectl.read(&["get", RESOURCE, "-o", template]).await;
    let names = answer.map_err(|trouble| trouble.failure("look for a DfsCluster"))?;
    Ok(names.lines().map(str::to_owned).collect())
}

/// The only one; otherwise says which there are.
fn choose(names: &[String], namespace: Option<&str>) -> Result<String, Failure> {
    let what = "look for a DfsCluster";
    let place = namespace.map_or_else(
        || "the context's namespace".to_owned(),
        |namespace| format!("namespace {namespace}"),
    );
    match names {
        [only] => Ok(only.clone()),
        [] => Err(
            Failure::new(Exit::NotFound, what, format!("there is none in {place}"))
                .next("see `kubectl get dfs --all-namespaces`, then name its namespace with -n"),
        ),
        several => Err(Failure::new(
            Exit::Usage,
            what,
            format!(
                "there are {} in {place}: {}",
                several.len(),
                several.join(", ")
            ),
        )
        .next("name one with --cluster")),
    }
}

/// What the Secret's key holds. A cluster without the Secret has no token.
async fn tokens(kubectl: &Kubectl, cluster: &str) -> Result<Tokens, Failure> {
    let secret = format!("{cluster}-token");
    let what = format!("read the token from Secret {secret}");
    let template = format!("jsonpath={{.data.{TOKEN_KEY}}}");
    let encoded = match kubectl
        .read(&["get", "secret", &secret, "-o", &template])
        .await
    {
        Ok(encoded) => encoded,
        Err(Trouble::NotFound(_)) => return Ok(Tokens::none()),
        Err(trouble) => return Err(trouble.failure(&what)),
    };
    read_tokens(&encoded).ok_or_else(|| {
        let why = format!("its key `{TOKEN_KEY}` holds no token");
        Failure::new(Exit::Failed, what, why)
            .next(format!("see `kubectl describe secret {secret}`"))
    })
}

fn read_tokens(encoded: &str) -> Option<Tokens> {
    let bytes = STANDARD.decode(encoded.trim()).ok()?;
    Tokens::fixed(&String::from_utf8(bytes).ok()?).ok()
}
