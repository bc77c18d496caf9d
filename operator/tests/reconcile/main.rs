//! Reconciles against an API server and a tracker in memory, with crashes and faults.
#![allow(clippy::unwrap_used, clippy::panic)]
// A module is a file of this one test binary; a scenario reads best in one piece.
#![allow(
    unreachable_pub,
    clippy::too_many_lines,
    clippy::similar_names,
    clippy::large_futures
)]

mod api;
mod crashes;
mod evictions;
mod gate;
mod growth;
mod losses;
mod nodes;
mod removal;
mod roll;
mod scenarios;
mod staleness;
mod stop;
mod tracker;
mod world;
