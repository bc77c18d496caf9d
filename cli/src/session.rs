//! One command's way to the store: requests with retries, failures with words.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dfs_client::{ClientError, HttpClient};
use dfs_runtime::net::SharedConnector;
use dfs_runtime::token::Tokens;

use crate::args::ClientArgs;
use crate::exit::Failure;
use crate::output::Output;
use crate::retry::RetryPolicy;
use crate::store::Store;

/// Pauses from this length on are announced.
const ANNOUNCED_PAUSE: Duration = Duration::from_secs(1);

/// What a verb works with.
#[derive(Debug)]
pub struct Session {
    /// The store.
    pub store: Store,
    /// Where results go.
    pub out: Output,
    retry: RetryPolicy,
    /// Whether a store that nobody heard of yet is worth another try.
    waits: bool,
    /// Whether the store answered anything yet.
    reached: AtomicBool,
}

/// A store that was found without the command line.
#[derive(Clone)]
pub struct Door {
    /// `host:port`, as the connector takes it.
    pub address: String,
    /// The cluster token, where one is needed.
    pub tokens: Tokens,
}

/// What comes after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterError {
    /// The pause is over: try again.
    TryAgain,
    /// Trying again is of no use, or was tried often enough.
    GiveUp,
}

impl Session {
    /// The session of a command that was given these options.
    pub fn new(client: &ClientArgs, connector: SharedConnector, out: Output) -> Self {
        Self::with_retry(client, connector, out, RetryPolicy::new(client.retries))
    }

    /// As [`Self::new`], with another policy.
    pub fn with_retry(
        client: &ClientArgs,
        connector: SharedConnector,
        out: Output,
        retry: RetryPolicy,
    ) -> Self {
        Self {
            store: Store::new(HttpClient::new(connector), client.tracker.as_str()),
            out: out.with_format(client.output),
            retry,
            waits: client.wait,
            reached: AtomicBool::new(false),
        }
    }

    /// Shows the store the cluster token.
    #[must_use]
    pub fn with_tokens(self, tokens: Tokens) -> Self {
        Self {
            store: self.store.with_tokens(tokens),
            ..self
        }
    }

    /// The same, with the store behind this door.
    #[must_use]
    pub fn at(mut self, door: Door) -> Self {
        let Door { address, tokens } = door;
        self.store = self.store.at(address, tokens);
        self
    }

    /// Makes a request, again and again while that may help. `what` is what was tried, for people.
    pub async fn call<T, F: Future<Output = Result<T, ClientError>>>(
        &self,
        what: &str,
        request: impl Fn() -> F,
    ) -> Result<T, Failure> {
        let mut retries = 0;
        loop {
            match request().await {
                Ok(answer) => {
                    self.reached();
                    return Ok(answer);
                }
                Err(error) => {
                    if self.pause(what, &error, retries).await == AfterError::GiveUp {
                        return Err(Failure::request(what, &error));
                    }
                    retries += 1;
                }
            }
        }
    }

    /// The store answered: from now on a broken connection is worth another try.
    pub fn reached(&self) {
        self.reached.store(true, Ordering::Relaxed);
    }

    /// Waits before a request is made again, if it should be. `done` counts the retries so far.
    pub async fn pause(&self, what: &str, error: &ClientError, done: u32) -> AfterError {
        let Some(pause) = self.retry.pause(error, done, &mut fastrand::Rng::new()) else {
            return AfterError::GiveUp;
        };
        let answered = matches!(error, ClientError::Refused(_));
        // Whoever mistyped an address should not wait for it.
        if !answered
            && !self.waits
            && !self.reached.load(Ordering::Relaxed)
            && !self.store.is_reachable().await
        {
            return AfterError::GiveUp;
        }
        if pause >= ANNOUNCED_PAUSE {
            let seconds = pause.as_secs_f64();
            self.out
                .note(&format!("{what}: {error}; trying again in {seconds:.0} s"));
        }
        tokio::time::sleep(pause).await;
        AfterError::TryAgain
    }
}

#[cfg(test)]
mod tests {
    use dfs_runtime::net::TcpConnector;

    use super::*;
    use crate::args::{Command, parse};
    use crate::testing::Captured;

    #[tokio::test]
    async fn a_store_that_was_never_heard_is_given_up_at_once_unless_it_is_waited_for() {
        // Nobody listens on a port that was just given back.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        for (option, wanted) in [
            (&[][..], AfterError::GiveUp),
            (&["--wait"], AfterError::TryAgain),
        ] {
            let url = format!("http://{address}");
            let words = [&["dfs", "nodes", "--tracker", &url], option].concat();
            let line = words.into_iter().map(std::ffi::OsString::from).collect();
            let Command::Nodes(args) = parse(line).unwrap().command else {
                unreachable!()
            };
            let retry = RetryPolicy {
                first_pause: Duration::from_millis(1),
                ..RetryPolicy::new(3)
            };
            let out = Captured::default().output();
            let session = Session::with_retry(&args.client, TcpConnector::shared(), out, retry);
            let error = session.store.nodes().await.unwrap_err();
            assert_eq!(
                session.pause("nodes", &error, 0).await,
                wanted,
                "{option:?}"
            );
            // However long it waits, it ends.
            let last = session.pause("nodes", &error, 3).await;
            assert_eq!(last, AfterError::GiveUp);
        }
    }
}
