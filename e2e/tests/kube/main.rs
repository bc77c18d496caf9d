//! The whole product on a real Kubernetes cluster: charts, operator, store, doors, and what happens when
//! pods, volumes and nodes go away. `make e2e` runs it against any KUBECONFIG whose nodes have the image;
//! without `DFS_KUBE_TESTS` every scenario says that it was skipped. See `docs/kubernetes-tests.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod bad;
mod balance;
mod change;
mod door;
mod doors;
mod drain;
mod first;
mod gone;
mod grow;
mod idle;
mod image;
mod load;
mod loss;
mod measure;
mod roll;
mod sight;
mod stop;
mod store;
mod strangers;
mod tools;
mod verdict;
mod world;
