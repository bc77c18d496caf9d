//! How a scenario reaches a store: through the ingress where there is one, else by a port-forward that
//! is set up again whenever its pod goes away.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use dfs_e2e::http::Http;
use dfs_e2e::process::free_ports;
use dfs_e2e::store::Store;

use crate::tools::until;
use crate::world::{DEADLINE, World};

/// How long a client waits for an answer: what was under way through a gateway that lost its power gets none, and a
/// scenario goes on well before its own deadline.
const EXCHANGE: Duration = Duration::from_mins(2);

/// See the module's words.
pub(crate) struct Door {
    /// The store behind it.
    pub(crate) store: Store,
    _forward: Option<Forward>,
}

impl Door {
    /// The door of the store `name`, whose Service is `service`. Waits until it answers.
    pub(crate) async fn open(world: &World, name: &str, service: &str) -> Self {
        let (http, forward) = if let Some(address) = &world.ingress {
            (Http::through(address, &world.host(name)), None)
        } else {
            let port = free_ports(1)[0];
            let service = format!("service/{service}");
            let forward = Forward::start(&world.namespace, &service, port, "80");
            (Http::new(&format!("127.0.0.1:{port}")), Some(forward))
        };
        Self::wait(http, forward).await
    }

    /// A door that somebody else made. Waits until it answers.
    pub(crate) async fn at(http: Http) -> Self {
        Self::wait(http, None).await
    }

    async fn wait(mut http: Http, forward: Option<Forward>) -> Self {
        http.limit = EXCHANGE;
        let door = Self {
            store: Store { door: http },
            _forward: forward,
        };
        until("the door answers", DEADLINE, || async {
            door.store.status().await.map(drop)
        })
        .await;
        door
    }

    /// `http://HOST:PORT` for curl, and the header that it has to send.
    pub(crate) fn curl(&self) -> (String, String) {
        let Http {
            address,
            host,
            token: _,
            limit: _,
        } = &self.store.door;
        (format!("http://{address}"), format!("Host: {host}"))
    }
}

/// `kubectl port-forward`, started again when it ends.
pub(crate) struct Forward {
    stop: Arc<AtomicBool>,
    child: Arc<Mutex<Option<Child>>>,
    keeper: Option<JoinHandle<()>>,
}

impl Forward {
    /// Forwards `port` of this machine to port `remote` of a pod or Service (`service/NAME`).
    pub(crate) fn start(namespace: &str, target: &str, port: u16, remote: &str) -> Self {
        let (stop, child) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let args = [
            "port-forward".to_owned(),
            format!("--namespace={namespace}"),
            target.to_owned(),
            format!("{port}:{remote}"),
        ];
        let (stopping, slot) = (stop.clone(), child.clone());
        let keeper = std::thread::spawn(move || {
            while !stopping.load(Ordering::SeqCst) {
                keep_running(&args, &slot);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        Self {
            stop,
            child,
            keeper: Some(keeper),
        }
    }
}

/// Starts it when it does not run.
fn keep_running(args: &[String], slot: &Mutex<Option<Child>>) {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    let running = slot
        .as_mut()
        .is_some_and(|child| matches!(child.try_wait(), Ok(None)));
    if !running {
        let mut command = Command::new("kubectl");
        command.args(args).stdin(Stdio::null());
        // A pod that is not there yet is no news: the door waits.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        *slot = command.spawn().ok();
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(keeper) = self.keeper.take() {
            // It cannot panic; and if it did, the child is still to be ended.
            let _ended = keeper.join();
        }
        let mut slot = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = slot.take() {
            // It may have ended by itself.
            let _killed = child.kill();
            let _ended = child.wait();
        }
    }
}
