//! What the tests of dfs's promises are made of: disks that lose and fail, links that break, real
//! processes that are killed, and a client's own ledger of what was acknowledged.
//!
//! This crate is only ever part of tests.
// A step of a test that fails must end the test, with the reason at hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::missing_panics_doc)]

pub mod bench;
mod boot;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod http;
pub mod ledger;
pub mod net;
pub mod process;
pub mod prometheus;
pub mod proxy;
mod relay;
mod roles;
pub mod store;
pub mod wait;
