//! The durable catalog. `kv` is the seam to an engine, `apply` decides changes, `catalog` is the
//! handle that everybody uses, `committer` is the one task behind it that writes. `checkpoint`,
//! `rebuild` and `dump` move a whole catalog; they do no network I/O.

pub mod apply;
mod batch;
pub mod catalog;
pub mod checkpoint;
pub mod codec;
mod committer;
pub mod datanode_value;
pub mod error;
pub mod factor_value;
mod file_head;
pub mod frame;
pub mod journal;
pub mod keys;
pub mod kv;
pub mod lineage;
mod list;
pub mod lost_found;
pub mod memory;
pub mod metrics;
pub mod rebuild;
pub mod recount;
pub mod redb;
mod room;
mod shipper;
pub mod snapshot;
#[cfg(test)]
mod tests;
mod warm;

pub use catalog::{Catalog, CatalogConfig, CatalogLimits, new_trash_id};
pub use committer::CommitObserver;
pub use error::{ApplyRefusal, StoreError, SubmitError};
pub use journal::{JournalError, JournalMode, JournalSink, NullJournal};
pub use keys::Counters;
pub use kv::Engine;
pub use memory::MemoryEngine;
pub use metrics::CatalogMetrics;
pub use redb::{RedbConfig, RedbEngine};
pub use snapshot::{CatalogMeta, Snapshot};
