//! Typed clients for the tracker's and the datanodes' APIs. Every connection comes from a
//! [`dfs_runtime::net::Connector`]; every answer is bounded in bytes and in time.

pub mod blocks;
pub mod call;
pub mod datanode;
mod driven;
pub mod error;
pub mod frame_io;
pub mod http;
mod idle;
pub mod metrics;
mod pieces;
mod read_stream;
pub mod silence;
pub mod tracker;
pub mod write_stream;

pub use error::ClientError;
pub use http::HttpClient;
pub use metrics::ClientMetrics;
pub use tracker::{HttpTracker, TrackerApi};
