//! What the tracker knows, as plain data with pure operations.

pub mod below_factor;
pub mod comparison;
pub mod datanodes;
pub mod health;
pub mod hearing;
pub mod hot;
pub mod leases;
pub mod op;
pub mod pending;
pub mod refusals;
pub mod replicas;
pub mod story;
