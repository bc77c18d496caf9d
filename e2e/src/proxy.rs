//! A TCP proxy on loopback, for the links between real processes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::net::{Direction, LinkFault, Links, Once, OnceEffect};
use crate::relay::{Broken, relay, reset};

const CLIENT: &str = "client";

/// Listens on a port of its own and carries each connection to one target. Ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    links: Links,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts in front of `target` (`host:port`), which need not be there yet.
    pub async fn start(target: &str) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let links = Links::new();
        let accepting = tokio::spawn(accept(listener, links.clone(), target.to_owned()));
        Ok(Self {
            address,
            links,
            accepting,
        })
    }

    /// Where to connect instead of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Hurts all connections, and the ones to come, instead of the faults before.
    pub fn set(&self, fault: LinkFault) {
        self.links.set_all(fault);
    }

    /// Hurts one connection once, after so many bytes.
    pub fn once(&self, direction: Direction, bytes: u64, effect: OnceEffect) -> Arc<Once> {
        self.links.once("*", "*", direction, bytes, effect)
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        self.links.heal();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.links.inject("*", "*", LinkFault::cut());
    }
}

async fn accept(listener: TcpListener, links: Links, target: String) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(serve(near, links.clone(), target.clone()));
    }
}

async fn serve(near: TcpStream, links: Links, target: String) {
    let mut view = links.view(CLIENT, &target);
    let Ok(far) = view.connect(&target, Duration::from_secs(5)).await else {
        // The client learns it as a reset.
        let _reset = near.set_zero_linger();
        return;
    };
    let (mut near_read, mut near_write) = near.into_split();
    let (mut far_read, mut far_write) = far.into_split();
    let near = (&mut near_read, &mut near_write);
    if let Err(Broken) = relay(near, (&mut far_read, &mut far_write), view).await {
        for (read, write) in [(near_read, near_write), (far_read, far_write)] {
            reset(read, write);
        }
    }
}
