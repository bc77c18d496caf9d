//! The operator: makes each `DfsCluster` be what it says.
//!
//! A reconcile is a pipeline of named steps. [`observe`] reads the API server and the tracker,
//! [`validate`] refuses what makes no sense, [`decide`] and the builder are pure, [`apply`] and
//! [`status`] write. Everything that is needed to go on after a crash is in the API server or in the
//! tracker; what the process remembers makes it quieter, never different.

pub mod apply;
pub mod build;
pub mod controller;
pub mod crd;
pub mod ctx;
pub mod decide;
pub mod error;
pub mod events;
pub mod lease;
pub mod metrics;
pub mod names;
pub mod observe;
mod reconcile;
mod run;
mod secret;
pub mod status;
pub mod tracker_client;
pub mod validate;

pub use reconcile::{Outcome, reconcile};
pub use run::{OperatorConfig, OperatorError, OperatorParts, connect, run};
