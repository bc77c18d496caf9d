//! The edge that every role shares. Each module is one seam or one habit: what touches the clock,
//! the network, the disk or the process goes through here, so that a test can stand in for it.

pub mod admin;
pub mod clock;
pub mod disk;
pub mod forwarded;
pub mod metrics;
pub mod net;
pub mod problem;
pub mod process;
pub mod request;
pub mod rng;
pub mod server;
pub mod shutdown;
pub mod signals;
pub mod telemetry;
pub mod token;
pub mod trace;
pub mod units;
