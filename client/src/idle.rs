//! Connections that wait for their next use, by peer: so many for each, and none for long.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

/// Kept for each peer that is read from.
pub(crate) const IDLE_READS: usize = 128;
/// Write streams kept for each datanode.
pub(crate) const IDLE_WRITES: usize = 64;
/// A connection without use is closed after so long, at the latest after twice as long; datanodes wait longer.
pub(crate) const IDLE_TIME: Duration = Duration::from_secs(30);

/// Idle connections `T` by peer `K`. Cloning shares them.
#[derive(Debug)]
pub(crate) struct IdleConnections<K, T> {
    kept: Arc<Mutex<Kept<K, T>>>,
    /// For each peer.
    limit: usize,
}

#[derive(Debug)]
struct Kept<K, T> {
    /// Those used last at the end.
    peers: HashMap<K, Vec<(Instant, T)>>,
    /// Somebody closes those that nobody uses.
    is_swept: bool,
}

impl<K, T> Clone for IdleConnections<K, T> {
    fn clone(&self) -> Self {
        Self {
            kept: Arc::clone(&self.kept),
            limit: self.limit,
        }
    }
}

impl<K: Eq + Hash + Send + 'static, T: Send + 'static> IdleConnections<K, T> {
    /// At most `limit` of them for each peer.
    pub(crate) fn new(limit: usize) -> Self {
        let kept = Kept {
            peers: HashMap::new(),
            is_swept: false,
        };
        Self {
            kept: Arc::new(Mutex::new(kept)),
            limit,
        }
    }

    /// The one used last. Its peer may have closed it meanwhile.
    pub(crate) fn take<Q: Eq + Hash + ?Sized>(&self, peer: &Q) -> Option<T>
    where
        K: Borrow<Q>,
    {
        let mut idle = lock(&self.kept);
        let kept = idle.peers.get_mut(peer)?;
        let (since, connection) = kept.pop()?;
        if since.elapsed() < IDLE_TIME {
            return Some(connection);
        }
        // The others are idle for longer.
        kept.clear();
        None
    }

    /// Keeps one; false where there are enough, and it is closed.
    pub(crate) fn keep<Q: Eq + Hash + ToOwned<Owned = K> + ?Sized>(
        &self,
        peer: &Q,
        connection: T,
    ) -> bool
    where
        K: Borrow<Q>,
    {
        let mut idle = lock(&self.kept);
        if !idle.is_swept {
            idle.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.kept)));
        }
        let kept = match idle.peers.get_mut(peer) {
            Some(kept) => kept,
            None => idle.peers.entry(peer.to_owned()).or_default(),
        };
        let has_room = kept.len() < self.limit;
        if has_room {
            kept.push((Instant::now(), connection));
        }
        has_room
    }

    /// Closes all of a peer's.
    pub(crate) fn forget<Q: Eq + Hash + ?Sized>(&self, peer: &Q)
    where
        K: Borrow<Q>,
    {
        let gone = lock(&self.kept).peers.remove(peer);
        drop(gone);
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        lock(&self.kept).peers.values().map(Vec::len).sum()
    }
}

fn lock<K, T>(kept: &Mutex<Kept<K, T>>) -> MutexGuard<'_, Kept<K, T>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes connections that nobody used for a while, until there are none.
async fn sweep<K: Eq + Hash, T>(idle: Weak<Mutex<Kept<K, T>>>) {
    loop {
        tokio::time::sleep(IDLE_TIME).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut idle = lock(&idle);
        for kept in idle.peers.values_mut() {
            kept.retain(|(since, _)| since.elapsed() < IDLE_TIME);
        }
        idle.peers.retain(|_, kept| !kept.is_empty());
        if idle.peers.is_empty() {
            idle.is_swept = false;
            return;
        }
    }
}
