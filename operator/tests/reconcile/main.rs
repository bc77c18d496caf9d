//! Reconciles against an API server and a tracker in memory, with crashes and faults.

mod api;
mod crashes;
mod gate;
mod losses;
mod scenarios;
mod staleness;
mod tracker;
mod world;
