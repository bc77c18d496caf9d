//! The promises of the contract, tried on whole clusters in the test's process.
#![allow(clippy::unwrap_used, clippy::panic)]

mod acked;
mod hops;
mod kit;
mod loss;
mod rot;
