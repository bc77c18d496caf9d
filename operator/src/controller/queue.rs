//! Which clusters wait for a pass.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus::IntGauge;

/// Clusters that something happened to and whose next pass has not begun: a second trigger makes no
/// second one. Passes that are only due at some time do not wait.
#[derive(Debug)]
pub(super) struct Queue<K> {
    waiting: Mutex<BTreeSet<K>>,
    /// Of all scopes together.
    length: IntGauge,
}

impl<K: Ord> Queue<K> {
    pub(super) fn new(length: IntGauge) -> Self {
        Self {
            waiting: Mutex::default(),
            length,
        }
    }

    /// Something happened.
    pub(super) fn entered(&self, cluster: K) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.insert(cluster) {
            self.length.inc();
        }
    }

    /// Its pass begins, or there is no such cluster.
    pub(super) fn left(&self, cluster: &K) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.remove(cluster) {
            self.length.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_waits_once_however_often_it_was_triggered() {
        let length = IntGauge::new("dfs_x", "x").unwrap();
        let (one, other) = (Queue::new(length.clone()), Queue::new(length.clone()));
        for queue in [&one, &one, &other] {
            queue.entered("a");
        }
        one.entered("b");
        assert_eq!(length.get(), 3);
        one.left(&"a");
        one.left(&"a");
        one.left(&"c");
        assert_eq!(length.get(), 2);
        one.entered("a");
        assert_eq!(length.get(), 3);
    }
}
