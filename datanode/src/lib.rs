//! The datanode: chunks on its volume, replication, scrub, heartbeat.

pub mod metrics;
pub mod store;

#[cfg(test)]
mod testing;
