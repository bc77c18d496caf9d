//! Hot files and traffic: what goes through the store, for people who look.

use std::sync::{MutexGuard, PoisonError};

use dfs_protocol::file::FileRecord;
use dfs_protocol::traffic::{DatanodeTraffic, HotFiles};
use dfs_protocol::{DatanodeId, FilePath};

use super::{Tracker, millis};
use crate::model::hot::{Access, HotSketch};

impl Tracker {
    /// Notes that a file is about to be read: its reader asked where its bytes are.
    pub(super) fn note_read(&self, file: &FileRecord) {
        self.note_access(&file.path, Access::Read, file.size);
    }

    /// Notes that a file was written.
    pub(super) fn note_write(&self, file: &FileRecord) {
        self.note_access(&file.path, Access::Write, file.size);
    }

    fn note_access(&self, path: &FilePath, access: Access, size: u64) {
        let now = self.clock.monotonic();
        let mut sketch = self.sketch();
        if sketch.note(path, access, size, now) {
            self.metrics.hot.evicted.inc();
        }
        let files = i64::try_from(sketch.len()).unwrap_or(i64::MAX);
        self.metrics.hot.files.set(files);
    }

    /// Which files were read and written most lately.
    pub fn hot_files(&self) -> HotFiles {
        let now = self.clock.monotonic();
        let sketch = self.sketch();
        let (reads, writes) = sketch.totals();
        HotFiles {
            fence: self.fence(),
            at_ms: millis(now),
            reads,
            writes,
            half_life_seconds: sketch.half_life().as_secs(),
            limit: sketch.limit() as u64,
            files: sketch.hottest(now),
        }
    }

    /// Notes what a datanode moved, as its heartbeat told.
    pub fn note_traffic(&self, id: DatanodeId, traffic: DatanodeTraffic) {
        self.state().datanodes.set_traffic(id, traffic);
    }

    fn sketch(&self) -> MutexGuard<'_, HotSketch> {
        self.hot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
