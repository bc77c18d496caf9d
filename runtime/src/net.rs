//! The network as an argument: every connection that a role opens comes from its [`Connector`], so
//! that a test can cut, delay or corrupt the links between roles.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A byte stream between two roles.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for T {}

/// Opens connections.
#[async_trait]
pub trait Connector: Debug + Send + Sync + 'static {
    /// Connects to `host:port`.
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>>;
}

/// A connector that a role's clients share.
pub type SharedConnector = Arc<dyn Connector>;

/// TCP without Nagle's delay: small frames would otherwise wait for the peer's delayed ACK.
#[derive(Debug)]
pub struct TcpConnector {
    /// How long a peer may take to accept.
    pub timeout: Duration,
}

impl TcpConnector {
    /// A connector that gives a peer five seconds to accept.
    pub fn shared() -> SharedConnector {
        Arc::new(Self {
            timeout: Duration::from_secs(5),
        })
    }

    /// A connector for the links within a cluster: a peer whose machine is gone is not waited for. Long
    /// enough for a lost first packet to be sent again, which happens after a second.
    pub fn within_cluster() -> SharedConnector {
        Arc::new(Self {
            timeout: Duration::from_secs(2),
        })
    }
}

#[async_trait]
impl Connector for TcpConnector {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let stream = tokio::time::timeout(self.timeout, TcpStream::connect(address))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "connecting timed out"))??;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
