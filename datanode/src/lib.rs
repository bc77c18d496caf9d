//! The datanode: chunks on its volume, replication, scrub, heartbeat.

pub mod attempts;
pub mod config;
pub mod context;

pub mod journal;
pub mod metrics;
pub mod store;
pub mod throttle;

#[cfg(test)]
mod testing;
