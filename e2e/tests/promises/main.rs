//! The promises of the contract, tried on whole clusters in the test's process.
#![allow(clippy::unwrap_used, clippy::panic)]
// Metrics are counted in whole steps, so they compare exactly; a scenario reads best in one piece.
#![allow(clippy::float_cmp, clippy::too_many_lines, clippy::similar_names)]

mod acked;
mod collect;
mod consistency;
mod disks;
mod factor;
mod fence;
mod hops;
mod kit;
mod loss;
mod partition;
mod plan;
mod rebuild;
mod removal;
mod room;
mod rot;
mod silent;
mod traces;
mod tracker_crash;
mod wires;
mod world;
