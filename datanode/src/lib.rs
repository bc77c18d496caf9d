//! The datanode: chunks on its volume, replication, scrub, heartbeat.

pub mod attempts;
pub mod bandwidth;
pub mod commands;
pub mod compaction;
pub mod config;
pub mod context;

pub mod heartbeat;
pub mod http;
pub mod journal;
pub mod metrics;
pub mod read_stream;
mod reads;
pub mod replicate;
pub mod role;
pub mod scrub;
pub mod store;
pub mod throttle;
pub mod write_stream;

pub use config::DatanodeConfig;
pub use role::{Datanode, DatanodeError, DatanodeParts, DatanodeSeams, run};

#[cfg(test)]
mod role_tests;
#[cfg(test)]
mod testing;
