//! What the tracker knows, as plain data with pure operations.

pub mod op;
