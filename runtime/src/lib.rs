//! The edge that every role shares. Each module is one seam or one habit: what touches the clock,
//! the network, the disk or the process goes through here, so that a test can stand in for it.

pub mod clock;
pub mod disk;
pub mod net;
pub mod rng;
pub mod shutdown;
