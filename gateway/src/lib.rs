//! The doors of the store: files over HTTP, and the upload and download streams behind them.
//!
//! [`doors`] makes two routers. `public` serves files and read-only status; `admin` is what the
//! tracker's own port serves besides. A tracker mounts both with itself as
//! [`dfs_client::TrackerApi`]; [`run`] is the gateway that stands alone.

mod config;
mod doors;
mod download;
mod error;
mod gateway;
mod headers;
mod lease;
mod metrics;
mod names;
mod patience;
mod pool;
mod run;
mod suspects;
mod upload;

#[cfg(test)]
mod testing;

pub use config::{Document, GatewayConfig};
pub use doors::{Doors, Release, doors};
pub use error::{DownloadError, UploadError};
pub use gateway::GatewayParts;
pub use metrics::{GatewayMetrics, Refusal};
pub use run::{RunError, StandAlone, run};
