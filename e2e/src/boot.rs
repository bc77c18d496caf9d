//! One life of a role within the test's process: a Tokio runtime of its own, so that it can be
//! killed whole and paused whole, as a process can.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use dfs_runtime::shutdown::{Shutdown, ShutdownTrigger, shutdown_pair};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{oneshot, watch};

use crate::disk::{FaultyDisk, lock};
use crate::wait::eventually;

/// How long a port of an earlier life may take to become free.
const PORT_LIMIT: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub(crate) struct Boot {
    runtime: Option<Runtime>,
    gate: Arc<Gate>,
    disk: Arc<FaultyDisk>,
    trigger: ShutdownTrigger,
    ended: watch::Receiver<Option<String>>,
}

impl Boot {
    /// Runs a role's future, which says in words how it ended.
    pub(crate) fn start<F>(
        name: &str,
        disk: Arc<FaultyDisk>,
        role: impl FnOnce(Shutdown) -> F,
    ) -> Self
    where
        F: Future<Output = String> + Send + 'static,
    {
        // One worker: a task that blocks it pauses all of the role.
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(name)
            .enable_all()
            .build()
            .expect("the test's process can have another thread");
        let (trigger, shutdown) = shutdown_pair();
        let (sender, ended) = watch::channel(None);
        let running = role(shutdown);
        runtime.spawn(async move {
            let reason = running.await;
            sender.send_replace(Some(reason));
        });
        Self {
            runtime: Some(runtime),
            gate: Arc::default(),
            disk,
            trigger,
            ended,
        }
    }

    /// Why the role ended by itself, if it has.
    pub(crate) fn ended(&self) -> Option<String> {
        self.ended.borrow().clone()
    }

    /// As SIGKILL: nothing of it runs after this, and nothing of it reaches the disk.
    pub(crate) async fn kill(mut self) {
        self.end();
        let disk = self.disk.clone();
        // Waits for the calls in flight.
        let revoked = tokio::task::spawn_blocking(move || disk.revoke()).await;
        revoked.expect("revoking a disk does not panic");
    }

    /// As SIGTERM: the role ends in its own time, within the limit. What it said at its end.
    pub(crate) async fn stop(self, limit: Duration) -> String {
        self.trigger.trigger();
        let mut ended = self.ended.clone();
        let waiting = ended.wait_for(Option::is_some);
        let reason = match tokio::time::timeout(limit, waiting).await {
            Err(elapsed) => panic!("the role did not stop within {limit:?}: {elapsed}"),
            // The sender dies unsaid only when the role's task panicked.
            Ok(Err(_)) => panic!("the role panicked"),
            Ok(Ok(reason)) => reason.clone().unwrap_or_default(),
        };
        self.kill().await;
        reason
    }

    /// As SIGSTOP, except that disk calls in flight are finished.
    pub(crate) async fn pause(&self) {
        let (sender, stands) = oneshot::channel();
        let gate = self.gate.clone();
        gate.close();
        let runtime = self
            .runtime
            .as_ref()
            .expect("a boot has a runtime until its end");
        runtime.spawn(async move {
            // A pause that nobody waits for is still a pause.
            let _told = sender.send(());
            gate.wait();
        });
        stands.await.expect("a running role can be paused");
    }

    /// As SIGCONT.
    pub(crate) fn resume(&self) {
        self.gate.open();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // Only now: a paused role must not run on before it ends.
        self.gate.open();
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        self.end();
    }
}

#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn close(&self) {
        *lock(&self.closed) = true;
    }

    fn open(&self) {
        *lock(&self.closed) = false;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let closed = lock(&self.closed);
        let waited = self.opened.wait_while(closed, |closed| *closed);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

/// Listens where an earlier life did. For use within a role's runtime.
pub(crate) async fn listen(address: SocketAddr) -> TcpListener {
    let listener = eventually("the port is free", PORT_LIMIT, || async {
        TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))
    })
    .await;
    listener
        .set_nonblocking(true)
        .expect("a socket can be nonblocking");
    listener
}
