//! Asking kubectl, and what its refusals mean for the person.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::KubeArgs;
use crate::exit::{Exit, Failure};

/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// kubectl with the options that choose the cluster.
#[derive(Debug, Clone)]
pub(super) struct Kubectl {
    program: OsString,
    options: Vec<OsString>,
}

/// Why kubectl did not do it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It cannot be started.
    NoKubectl(String),
    /// It does not end.
    TimedOut,
    /// Whoever asks may not.
    Forbidden(String),
    /// Nobody is logged in.
    LoggedOut(String),
    /// What is asked for is not there.
    NotFound(String),
    /// The API server does not know the resource.
    NoResource(String),
    /// No API server, or no kubeconfig that leads to one.
    Unreachable(String),
    /// Anything else, in its own words.
    Other(String),
}

impl Kubectl {
    pub(super) fn new(kube: &KubeArgs) -> Self {
        let given = [
            ("--namespace", &kube.namespace),
            ("--context", &kube.context),
            ("--kubeconfig", &kube.kubeconfig),
        ];
        let options = given
            .into_iter()
            .filter_map(|(option, value)| Some(format!("{option}={}", value.as_ref()?).into()))
            .collect();
        Self {
            program: kube.kubectl.clone(),
            options,
        }
    }

    /// A call that is killed when it is dropped.
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Makes a call and gives what it wrote.
    pub(super) async fn read(&self, arguments: &[&str]) -> Result<String, Trouble> {
        let call = self.command(arguments).output();
        let output = match tokio::time::timeout(PATIENCE, call).await {
            Err(_) => return Err(Trouble::TimedOut),
            Ok(Err(error)) => return Err(Trouble::start(&error)),
            Ok(Ok(output)) => output,
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Trouble::read(&String::from_utf8_lossy(&output.stderr)))
    }
}

impl Trouble {
    pub(super) fn start(error: &io::Error) -> Self {
        let text = match error.kind() {
            io::ErrorKind::NotFound => "kubectl is not on the PATH".to_owned(),
            _ => format!("kubectl cannot be started: {error}"),
        };
        Self::NoKubectl(text)
    }

    /// Reads what kubectl said before it gave up.
    pub(super) fn read(stderr: &str) -> Self {
        let lines: Vec<_> = stderr
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        // What it says last is what it died of; notes and warnings come before.
        let said = lines.last().map_or("kubectl said nothing", |line| line);
        let said = said.strip_prefix("error: ").unwrap_or(said).to_owned();
        let has = |text: &str| said.contains(text);
        if has("(Forbidden)") || has("is forbidden") {
            Self::Forbidden(said)
        } else if has("(Unauthorized)") || has("must be logged in") {
            Self::LoggedOut(said)
        } else if has("(NotFound)") {
            Self::NotFound(said)
        } else if has("doesn't have a resource type")
            || has("could not find the requested resource")
        {
            Self::NoResource(said)
        } else if [
            "Unable to connect",
            "was refused",
            "context was not found",
            "no configuration has been provided",
            "does not exist",
            "i/o timeout",
            "no such host",
        ]
        .into_iter()
        .any(has)
        {
            Self::Unreachable(said)
        } else {
            Self::Other(said)
        }
    }

    /// Why, in one sentence.
    pub(super) fn why(&self) -> String {
        match self {
            Self::TimedOut => format!("kubectl did not end within {} s", PATIENCE.as_secs()),
            Self::NoKubectl(said)
            | Self::Forbidden(said)
            | Self::LoggedOut(said)
            | Self::NotFound(said)
            | Self::NoResource(said)
            | Self::Unreachable(said)
            | Self::Other(said) => said.clone(),
        }
    }

    pub(super) fn failure(&self, what: &str) -> Failure {
        let (exit, next) = match self {
            Self::NoKubectl(_) => (Exit::Failed, "install kubectl, or name it with DFS_KUBECTL"),
            Self::TimedOut => (
                Exit::Unavailable,
                "see whether `kubectl cluster-info` answers",
            ),
            Self::Forbidden(_) => (
                Exit::Failed,
                "ask for a Role that may get dfsclusters, services, pods and the cluster's token \
                 Secret, and create pods/portforward, in its namespace",
            ),
            Self::LoggedOut(_) => (
                Exit::Failed,
                "log in: `kubectl auth whoami` tells who you are",
            ),
            Self::NotFound(_) => (
                Exit::NotFound,
                "see `kubectl get dfs --all-namespaces`, then give -n and --cluster",
            ),
            Self::NoResource(_) => (
                Exit::Failed,
                "install the operator (charts/dfs-operator), or choose another --context",
            ),
            Self::Unreachable(_) => (
                Exit::Unavailable,
                "check KUBECONFIG and --context: does `kubectl cluster-info` answer?",
            ),
            Self::Other(_) => (
                Exit::Failed,
                "see `kubectl get dfs,pods`: is the cluster Ready?",
            ),
        };
        Failure::new(exit, what, self.why()).next(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_kubectl_are_told_apart_and_say_what_next() {
        for (stderr, exit, next) in [
            (
                "Error from server (Forbidden): secrets \"a-token\" is forbidden: User \"u\" cannot get",
                Exit::Failed,
                "pods/portforward",
            ),
            (
                "error: You must be logged in to the server (Unauthorized)",
                Exit::Failed,
                "log in",
            ),
            (
                "Error from server (NotFound): services \"x-gateway\" not found",
                Exit::NotFound,
                "--cluster",
            ),
            (
                "error: the server doesn't have a resource type \"dfsclusters\"",
                Exit::Failed,
                "install the operator",
            ),
            (
                "E1 memcache.go: retrying\nThe connection to the server localhost:8080 was refused - did you specify the right host or port?",
                Exit::Unavailable,
                "cluster-info",
            ),
            (
                "error: context \"nowhere\" does not exist",
                Exit::Unavailable,
                "--context",
            ),
            (
                "error: unable to forward port because pod is not running. Current status=Pending",
                Exit::Failed,
                "is the cluster Ready",
            ),
            ("", Exit::Failed, "Ready"),
        ] {
            let failure = Trouble::read(stderr).failure("do it");
            assert_eq!(failure.exit, exit, "{stderr}");
            assert!(failure.next.unwrap().contains(next), "{stderr}");
            assert!(!failure.why.is_empty() && !failure.why.starts_with("error: "));
        }
    }
}
