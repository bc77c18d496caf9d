//! Telling a datanode that is silent from one that is slow.
//!
//! A peer that lost its power or its network resets nothing: what was sent to it is neither taken nor
//! refused, and a connection alone cannot tell that from a busy disk. Whoever waits for a datanode
//! therefore asks it, beside the call that it waits for, who it is: a process that lives answers at once
//! whatever its disk does, and keeps the long limits; one that does not is given up within seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dfs_protocol::chunk::DatanodeAddress;
use prometheus::IntCounter;
use tokio::time::Instant;

use crate::error::ClientError;
use crate::http::HttpClient;

/// Datanodes whose last sign of life is remembered.
const MOST_REMEMBERED: usize = 4096;

/// When a datanode counts as silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SilencePolicy {
    /// How long it is waited for before it is asked, and between two questions that it answers.
    pub interval: Duration,
    /// How long an answer may take.
    pub answer: Duration,
    /// Between a question that was not answered and the next.
    pub again: Duration,
    /// Questions in a row without an answer that make it silent.
    pub misses: u32,
}

impl Default for SilencePolicy {
    /// Silent after about four seconds: no sooner than the tracker takes it for suspect.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            answer: Duration::from_millis(1250),
            again: Duration::from_millis(250),
            misses: 2,
        }
    }
}

/// Asks datanodes that are waited for. Cloning shares what was heard: many that wait for one datanode
/// cost about one question in each interval.
#[derive(Debug, Clone)]
pub struct SilenceWatch {
    http: HttpClient,
    policy: SilencePolicy,
    /// Waits that ended because the datanode was silent.
    silent: IntCounter,
    heard: Arc<Mutex<HashMap<DatanodeAddress, Instant>>>,
}

impl SilenceWatch {
    /// Asks over `http`; `silent` counts the waits that were given up.
    pub fn new(http: HttpClient, silent: IntCounter) -> Self {
        Self {
            http,
            policy: SilencePolicy::default(),
            silent,
            heard: Arc::default(),
        }
    }

    /// Ends when the datanode is silent; to be raced against what is waited for.
    pub async fn silence(&self, at: &DatanodeAddress) {
        let mut misses = 0;
        let mut pause = self.policy.interval;
        loop {
            tokio::time::sleep(pause).await;
            if self.was_heard_lately(at) || self.answers(at).await {
                misses = 0;
                pause = self.policy.interval;
                continue;
            }
            misses += 1;
            pause = self.policy.again;
            if misses >= self.policy.misses {
                self.silent.inc();
                tracing::warn!(datanode = %at.id, address = at.address, "a datanode is silent");
                return;
            }
        }
    }

    /// The call's own end, or an error as soon as the datanode that it goes to is silent.
    pub async fn unless_silent<T>(
        &self,
        at: &DatanodeAddress,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        tokio::select! {
            outcome = call => outcome,
            () = self.silence(at) => Err(ClientError::Unreachable {
                address: at.address.clone(),
                detail: "it is silent".to_owned(),
            }),
        }
    }

    /// Whatever it says shows that it lives, unless it is another datanode at the same address.
    async fn answers(&self, at: &DatanodeAddress) -> bool {
        let asked = tokio::time::timeout(self.policy.answer, self.http.identity(&at.address)).await;
        let lives = match asked {
            Ok(Ok(identity)) => identity.datanode == at.id,
            Ok(Err(error)) => !error.is_unheard(),
            Err(_) => false,
        };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if !lives {
            heard.remove(at);
        } else if heard.len() < MOST_REMEMBERED || heard.contains_key(at) {
            heard.insert(at.clone(), Instant::now());
        } else {
            heard.clear();
        }
        lives
    }

    fn was_heard_lately(&self, at: &DatanodeAddress) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let last = heard.get(at);
        last.is_some_and(|last| last.elapsed() < self.policy.interval)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use dfs_protocol::DatanodeId;
    use dfs_runtime::net::{Connection, Connector};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Answers so many requests with a refusal, then takes connections and says nothing.
    #[derive(Debug)]
    struct Peer {
        answers: Arc<AtomicU32>,
    }

    #[async_trait]
    impl Connector for Peer {
        async fn connect(&self, _address: &str) -> io::Result<Box<dyn Connection>> {
            let (near, mut far) = tokio::io::duplex(4096);
            let answers = self.answers.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                while far.read(&mut request).await.is_ok_and(|read| read > 0) {
                    let left = answers.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                        left.checked_sub(1)
                    });
                    if left.is_ok() {
                        let refusal = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
                        let _gone = far.write_all(refusal).await;
                    }
                }
            });
            Ok(Box::new(near))
        }
    }

    fn watch(answers: u32) -> (SilenceWatch, Arc<AtomicU32>) {
        let answers = Arc::new(AtomicU32::new(answers));
        let peer = Peer {
            answers: answers.clone(),
        };
        let silent = IntCounter::new("silent", "silent").unwrap();
        let watch = SilenceWatch::new(HttpClient::new(Arc::new(peer)), silent);
        (watch, answers)
    }

    fn somebody() -> DatanodeAddress {
        DatanodeAddress {
            id: DatanodeId::from_u128(1),
            address: "peer:1".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_answers_anything_is_waited_for_and_one_that_goes_silent_is_not() {
        let (watch, answers) = watch(100);
        let at = somebody();
        let begun = Instant::now();
        let waited = tokio::time::timeout(Duration::from_hours(1), watch.silence(&at));
        waited.await.unwrap();
        // Virtual time: a hundred answers, each as far apart as the policy says.
        assert_eq!(answers.load(Ordering::SeqCst), 0);
        assert!(begun.elapsed() >= watch.policy.interval * 100);
        assert_eq!(watch.silent.get(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_wait_for_one_datanode_ask_it_about_once_in_an_interval() {
        let (watch, answers) = watch(1_000_000);
        let at = somebody();
        let waiting = futures_util::future::join_all((0..100).map(|wait| {
            let (watch, at) = (watch.clone(), at.clone());
            async move {
                tokio::time::sleep(Duration::from_millis(wait * 10)).await;
                watch.silence(&at).await;
            }
        }));
        let _ended = tokio::time::timeout(Duration::from_secs(100), waiting).await;
        let asked = 1_000_000 - answers.load(Ordering::SeqCst);
        assert!((50..=400).contains(&asked), "{asked}");
        assert_eq!(watch.silent.get(), 0);
    }
}
