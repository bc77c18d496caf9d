//! The `dfs` binary as a library: the command line, the client verbs, and the roles' wiring, so
//! that whole-cluster tests can use what people use.

pub mod args;
pub mod completions;
pub mod exit;
pub mod glob;
pub mod human;
pub mod kube;
pub mod output;
pub mod paths;
pub mod retry;
pub mod roles;
pub mod session;
pub mod sse;
pub mod store;
pub mod tokens;
pub mod traces;
pub mod transfer;
pub mod verbs;

#[cfg(test)]
mod testing;
