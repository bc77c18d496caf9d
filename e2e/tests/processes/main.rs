//! Real processes: killed with -9, paused, starved, cut off, and asked on the command line.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod command_line;
mod factor;
mod fleet;
mod formats;
mod kills;
mod limits;
mod links;
mod pauses;
mod power;
mod root;
mod stop;
mod tracker_kills;
mod writers;
