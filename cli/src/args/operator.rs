//! Options of `dfs operator`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;

use dfs_runtime::units::parse_duration;

/// Image of a cluster that names none: of this very version.
const DEFAULT_IMAGE: &str = concat!("docker.io/library/dfs:", env!("CARGO_PKG_VERSION"));

/// `dfs operator`.
#[derive(Debug, Clone, Args)]
pub struct OperatorArgs {
    /// Namespaces to watch, with commas between them [default: all]
    #[arg(long, env = "DFS_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Image of clusters that name none
    #[arg(long, env = "DFS_IMAGE", default_value = DEFAULT_IMAGE)]
    pub image: String,
    /// Namespace of the lease that one of several operators holds [default: the operator's own]
    #[arg(long, env = "DFS_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Names this process in the lease and in events [default: a random name]
    #[arg(long, env = "DFS_POD")]
    pub identity: Option<String>,
    /// How often a cluster in which nothing moves is looked at
    #[arg(long, env = "DFS_RESYNC", default_value = "15s", value_parser = parse_duration)]
    pub resync: Duration,
    /// Address to listen on (0.0.0.0 for every interface)
    #[arg(long, env = "DFS_LISTEN", default_value = "127.0.0.1")]
    pub listen: IpAddr,
    /// Port of /livez, /readyz and /metrics
    #[arg(long, env = "DFS_LISTEN_ADMIN_PORT", default_value_t = 7080)]
    pub admin_port: u16,
}

impl OperatorArgs {
    /// Where liveness, readiness and metrics are.
    pub fn admin(&self) -> SocketAddr {
        SocketAddr::new(self.listen, self.admin_port)
    }

    /// The namespaces to watch; none means all. An empty variable is no namespace.
    pub fn namespaces(&self) -> Vec<String> {
        let names = self.watch_namespaces.iter().map(|name| name.trim());
        names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        operator: OperatorArgs,
    }

    #[test]
    fn no_namespace_and_an_empty_one_mean_all() {
        let read = |line: &[&str]| {
            let line = Line::try_parse_from([&["dfs"], line].concat()).unwrap();
            line.operator.namespaces()
        };
        assert!(read(&[]).is_empty());
        assert!(read(&["--watch-namespaces", ""]).is_empty());
        assert_eq!(read(&["--watch-namespaces", "a, b,"]), ["a", "b"]);
    }
}
