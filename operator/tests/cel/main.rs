//! The resource's rules as a real API server applies them. Needs a Kubernetes cluster: `make e2e` sets
//! DFS_KUBE_TESTS and passes KUBECONFIG on; without it every test here says that it did nothing.
//!
//! The CustomResourceDefinition is cluster-wide and is left installed: others may use it by now. All
//! else happens in a namespace of its own, and no operator acts on it: what is stored is paused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests: what fails here fails the test, with its seed on the screen"
)]

mod bad;
mod cluster;
mod rows;
