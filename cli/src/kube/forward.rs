//! The port-forward: `kubectl port-forward` as a child, and connections through it. A child that
//! ended is started anew, once for each connection that is asked for.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex as Plain, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dfs_runtime::net::{Connection, Connector};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::kubectl::{Kubectl, Trouble};
use crate::exit::Failure;

/// How long kubectl may take until it forwards.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes kept of what it says on standard error.
const KEPT: usize = 4096;
/// Longest line that is read of it.
const LONGEST_LINE: u64 = 4096;
/// How it begins to say that it forwards; the address and port of our end follow.
const FORWARDS: &str = "Forwarding from ";

/// A way to one Service.
#[derive(Debug)]
pub(super) struct Forward {
    kubectl: Kubectl,
    service: String,
    port: u16,
    running: Mutex<Option<Running>>,
}

/// A child that forwards.
#[derive(Debug)]
struct Running {
    child: Child,
    local: SocketAddr,
    stderr: Stderr,
    /// Reads what the child writes: a full pipe, or a closed one, would end it.
    reader: JoinHandle<()>,
}

/// The last words of a child.
#[derive(Debug)]
struct Stderr {
    text: Arc<Plain<String>>,
    reader: JoinHandle<()>,
}

impl Forward {
    /// Begins to forward.
    pub(super) async fn begin(
        kubectl: Kubectl,
        service: String,
        port: u16,
    ) -> Result<Self, Failure> {
        let forward = Self {
            kubectl,
            service,
            port,
            running: Mutex::new(None),
        };
        let running = forward.start().await.map_err(|trouble| {
            let what = format!("forward a port to service {}", forward.service);
            trouble.failure(&what)
        })?;
        *forward.running.lock().await = Some(running);
        Ok(forward)
    }

    /// Ends the child and waits for its end.
    pub(super) async fn stop(&self) {
        if let Some(running) = self.running.lock().await.take() {
            running.stop().await;
        }
    }

    async fn start(&self) -> Result<Running, Trouble> {
        let service = format!("service/{}", self.service);
        let ports = format!(":{}", self.port);
        let arguments = ["port-forward", &service, &ports, "--address=127.0.0.1"];
        let mut command = self.kubectl.command(&arguments);
        let mut child = command.spawn().map_err(|error| Trouble::start(&error))?;
        let lost = || Trouble::Other("kubectl has no output".to_owned());
        let stderr = Stderr::read(child.stderr.take().ok_or_else(lost)?);
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(lost)?);
        match tokio::time::timeout(PATIENCE, first_address(&mut stdout)).await {
            Err(_) => Err(Trouble::TimedOut),
            Ok(Some(local)) => Ok(Running {
                child,
                local,
                stderr,
                reader: tokio::spawn(drain(stdout)),
            }),
            Ok(None) => {
                // It ends, or said what we do not know: then it is not waited for.
                let _killed = child.kill().await;
                Err(Trouble::read(&stderr.end().await))
            }
        }
    }

    async fn dial(&self) -> io::Result<TcpStream> {
        let mut running = self.running.lock().await;
        if let Some(forwarding) = running.as_mut() {
            let alive = matches!(forwarding.child.try_wait(), Ok(None));
            if alive && let Ok(stream) = TcpStream::connect(forwarding.local).await {
                return Ok(stream);
            }
        }
        if let Some(broken) = running.take() {
            broken.stop().await;
        }
        let fresh = self.start().await.map_err(|trouble| {
            let next = "see `kubectl get dfs,pods`";
            io::Error::other(format!("the port-forward ended: {}; {next}", trouble.why()))
        })?;
        let local = fresh.local;
        *running = Some(fresh);
        TcpStream::connect(local).await
    }
}

#[async_trait]
impl Connector for Forward {
    /// Whatever the address: there is one service behind this.
    async fn connect(&self, _address: &str) -> io::Result<Box<dyn Connection>> {
        let stream = self.dial().await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

impl Running {
    async fn stop(mut self) {
        // Fails only on a child that ended by itself.
        let _ended = self.child.kill().await;
        self.reader.abort();
        self.stderr.reader.abort();
    }
}

impl Stderr {
    fn read(mut stderr: impl AsyncRead + Send + Unpin + 'static) -> Self {
        let text = Arc::<Plain<String>>::default();
        let kept = text.clone();
        let reader = tokio::spawn(async move {
            let mut piece = [0; 1024];
            while let Ok(length @ 1..) = stderr.read(&mut piece).await {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_str(&String::from_utf8_lossy(&piece[..length]));
                let excess = kept.len().saturating_sub(KEPT);
                let cut = kept.ceil_char_boundary(excess);
                kept.drain(..cut);
            }
        });
        Self { text, reader }
    }

    /// What the child said, when it has ended.
    async fn end(self) -> String {
        let _read = tokio::time::timeout(Duration::from_secs(1), self.reader).await;
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }
}

/// Reads until the child says where it forwards from; nothing if it ends first.
async fn first_address(stdout: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Option<SocketAddr> {
    loop {
        let mut line = String::new();
        let read = stdout.take(LONGEST_LINE).read_line(&mut line).await;
        if matches!(read, Ok(0) | Err(_)) {
            return None;
        }
        if let Some(address) = address_in(&line) {
            return Some(address);
        }
    }
}

/// `Forwarding from 127.0.0.1:43210 -> 6000`.
fn address_in(line: &str) -> Option<SocketAddr> {
    let (address, _) = line.strip_prefix(FORWARDS)?.split_once(" -> ")?;
    address.parse().ok()
}

async fn drain(mut stdout: impl AsyncRead + Unpin) {
    let mut scrap = [0; 1024];
    while let Ok(1..) = stdout.read(&mut scrap).await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_with_the_port_is_read_and_others_are_not() {
        let address = address_in("Forwarding from 127.0.0.1:43210 -> 8080\n").unwrap();
        assert_eq!(address.to_string(), "127.0.0.1:43210");
        let address = address_in("Forwarding from [::1]:43210 -> 8080\n").unwrap();
        assert_eq!(address.port(), 43210);
        for line in [
            "",
            "Handling connection for 43210",
            "Forwarding from x -> y",
            "Forwarding from 127.0.0.1:1",
        ] {
            assert_eq!(address_in(line), None, "{line}");
        }
    }
}
