//! Whole chunks on their way into packs. Those that come while others are made durable are written
//! together afterwards, by one blocking thread: not one for each chunk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dfs_protocol::chunk::Replica;
use tokio::sync::oneshot;

use super::disk::ended;
use crate::store::{ChunkStore, StoreError, WholeChunk};

type Answer = oneshot::Sender<Result<Replica, StoreError>>;

/// The queue of one datanode. Its length is bounded by the places for writes.
#[derive(Debug)]
pub struct Puts {
    store: Arc<dyn ChunkStore>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<(WholeChunk, Answer)>,
    /// A thread writes, and looks here again before it ends.
    running: bool,
}

impl Puts {
    /// Writes to `store`.
    pub fn new(store: Arc<dyn ChunkStore>) -> Arc<Self> {
        Arc::new(Self {
            store,
            queue: Mutex::default(),
        })
    }

    /// Stores a whole chunk; durable on return.
    pub async fn put(self: &Arc<Self>, whole: WholeChunk) -> Result<Replica, StoreError> {
        if !self.store.packs(whole.data.len() as u64) {
            let store = Arc::clone(&self.store);
            let put = tokio::task::spawn_blocking(move || put_alone(store.as_ref(), &whole));
            return put.await.unwrap_or_else(|_| Err(ended()));
        }
        let (answer, on_answer) = oneshot::channel();
        if self.enqueue(whole, answer) {
            let puts = Arc::clone(self);
            tokio::task::spawn_blocking(move || puts.run());
        }
        on_answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Whether a thread must be started for it.
    fn enqueue(&self, whole: WholeChunk, answer: Answer) -> bool {
        let mut queue = self.lock();
        queue.waiting.push((whole, answer));
        !std::mem::replace(&mut queue.running, true)
    }

    /// Writes until nothing waits.
    fn run(&self) {
        let mut running = Running {
            puts: self,
            ended: false,
        };
        loop {
            let taken = {
                let mut queue = self.lock();
                if queue.waiting.is_empty() {
                    queue.running = false;
                    running.ended = true;
                    return;
                }
                std::mem::take(&mut queue.waiting)
            };
            let (chunks, answers): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
            let stored = self.store.put_packed(chunks);
            for (answer, stored) in answers.into_iter().zip(stored) {
                let _unheard = answer.send(stored);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that writes. Should it die, those who wait are told so, and the next starts another.
struct Running<'a> {
    puts: &'a Puts,
    ended: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let mut queue = self.puts.lock();
            queue.running = false;
            queue.waiting.clear();
        }
    }
}

/// A chunk with a file of its own. Blocks.
fn put_alone(store: &dyn ChunkStore, whole: &WholeChunk) -> Result<Replica, StoreError> {
    let mut staged = store.begin(&whole.new)?;
    staged.append(0, &whole.data, whole.crc32c)?;
    staged.seal(&whole.sealed())
}
