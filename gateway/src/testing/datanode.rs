//! Datanodes in memory that speak the chunk stream over TCP. The first hop of a chain writes to all
//! hops at once; faults are ordered per datanode and happen once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dfs_client::frame_io::{FrameReader, FrameWriter};
use dfs_client::write_stream::failure;
use dfs_protocol::checksum::crc32c;
use dfs_protocol::chunk::{DatanodeAddress, SealedChunk};
use dfs_protocol::frame::{
    self, FrameKind, HopFault, OpenChunk, PROGRESS_STEP, SealedReport, WRITE_STREAM_PROTOCOL,
};
use dfs_protocol::{ChunkId, ChunkVersion, DatanodeId};
use dfs_runtime::net::{Connection, Connector, SharedConnector, TcpConnector};
use dfs_runtime::server::{ServerLimits, ServerMetrics, serve};
use dfs_runtime::shutdown::Shutdown;
use http::StatusCode;
use http::header::{CONNECTION, UPGRADE};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{read_streams, reads};

/// What a datanode does wrong while a chunk is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Refuses to open, once.
    RefuseOpen(HopFault),
    /// Is gone once a chunk has so many bytes.
    DieAt(u64),
    /// Is gone when a seal is asked for.
    DieAtSeal,
    /// Everybody seals, and the first hop is gone before it says so.
    SealThenDie,
    /// Fails to seal, and the report says why; lives on.
    FailSeal(HopFault),
    /// Confirms nothing.
    Silent,
}

/// What a datanode does wrong with every chunk that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadFault {
    /// A flipped bit in this block.
    Flip(usize),
    /// The connection ends before this block.
    CutBefore(usize),
    /// Other bytes, with checksums that fit them.
    OtherBytes,
    /// Nothing at all is answered, and nothing breaks.
    Mute,
    /// Nothing comes from this block on, and nothing breaks.
    StallBefore(usize),
    /// As `StallBefore`, for one read.
    StallOnceBefore(usize),
}

#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) sealed: BTreeMap<ChunkId, (SealedChunk, Vec<u8>)>,
    pub(super) open: BTreeMap<ChunkId, (ChunkVersion, Vec<u8>)>,
    fault: Option<Fault>,
    pub(super) read_fault: Option<ReadFault>,
    opens: u32,
    pub(super) reads: u32,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) nodes: BTreeMap<DatanodeId, Node>,
    addresses: BTreeMap<DatanodeId, String>,
    pub(super) dead: BTreeSet<DatanodeId>,
    /// All are of a version without read streams.
    pub(super) older: bool,
}

/// All datanodes of a test.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chain(Arc<Mutex<Shared>>);

#[derive(Debug, Clone)]
pub(super) struct Hop {
    pub(super) chain: Chain,
    pub(super) id: DatanodeId,
}

#[derive(Debug)]
struct Net {
    chain: Chain,
    tcp: SharedConnector,
}

#[async_trait]
impl Connector for Net {
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Connection>> {
        let dead = {
            let shared = self.chain.lock();
            let of = |id: &DatanodeId| shared.addresses.get(id).is_some_and(|a| a == address);
            shared.dead.iter().any(of)
        };
        if dead {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        self.tcp.connect(address).await
    }
}

/// The id of the datanode with this index.
pub(crate) fn id(index: usize) -> DatanodeId {
    DatanodeId::from_u128(index as u128 + 1)
}

impl Chain {
    pub(crate) async fn start(datanodes: usize, shutdown: Shutdown) -> Self {
        let chain = Self::default();
        for index in 0..datanodes {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            chain.lock().nodes.insert(id(index), Node::default());
            chain.lock().addresses.insert(id(index), address);
            let hop = Hop {
                chain: chain.clone(),
                id: id(index),
            };
            let router = Router::new()
                .route("/chunks/write-stream", get(upgrade))
                .route("/read-stream", get(read_streams::upgrade))
                .route("/download-chunk", get(reads::download))
                .route("/chunks/copy", post(reads::copy))
                .route("/chunks/{id}", get(reads::state))
                .with_state(hop);
            let metrics = ServerMetrics::register(&prometheus::Registry::new(), "fake").unwrap();
            let limits = ServerLimits::default();
            tokio::spawn(serve(listener, router, limits, metrics, shutdown.clone()));
        }
        chain
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Shared> {
        self.0.lock().unwrap()
    }

    pub(crate) fn connector(&self) -> SharedConnector {
        Arc::new(Net {
            chain: self.clone(),
            tcp: TcpConnector::shared(),
        })
    }

    /// Live datanodes, lowest id first.
    pub(crate) fn live(&self) -> Vec<DatanodeAddress> {
        let shared = self.lock();
        let live = shared
            .addresses
            .iter()
            .filter(|(id, _)| !shared.dead.contains(id));
        live.map(|(id, address)| DatanodeAddress {
            id: *id,
            address: address.clone(),
        })
        .collect()
    }

    pub(crate) fn order(&self, index: usize, fault: Fault) {
        self.lock().nodes.get_mut(&id(index)).unwrap().fault = Some(fault);
    }

    pub(crate) fn order_read(&self, index: usize, fault: Option<ReadFault>) {
        self.lock().nodes.get_mut(&id(index)).unwrap().read_fault = fault;
    }

    /// From here on all datanodes are of an earlier version, which frames every block.
    pub(crate) fn without_read_streams(&self) {
        self.lock().older = true;
    }

    pub(crate) fn kill(&self, index: usize) {
        self.lock().dead.insert(id(index));
    }

    pub(crate) fn revive(&self, index: usize) {
        self.lock().dead.remove(&id(index));
    }

    pub(crate) fn opens(&self, index: usize) -> u32 {
        self.lock().nodes[&id(index)].opens
    }

    pub(crate) fn reads(&self, index: usize) -> u32 {
        self.lock().nodes[&id(index)].reads
    }

    /// Who holds a chunk in exactly this version.
    pub(crate) fn holders(&self, chunk: &SealedChunk) -> Vec<DatanodeAddress> {
        let holds = |address: &DatanodeAddress| self.sealed(address.id, chunk.id) == Some(*chunk);
        self.live().into_iter().filter(holds).collect()
    }

    fn sealed(&self, node: DatanodeId, chunk: ChunkId) -> Option<SealedChunk> {
        let shared = self.lock();
        shared.nodes[&node]
            .sealed
            .get(&chunk)
            .map(|(sealed, _)| *sealed)
    }

    /// The bytes of a sealed replica.
    pub(crate) fn bytes(&self, node: DatanodeId, chunk: ChunkId) -> Option<Vec<u8>> {
        let shared = self.lock();
        shared.nodes[&node]
            .sealed
            .get(&chunk)
            .map(|(_, bytes)| bytes.clone())
    }
}

async fn upgrade(State(hop): State<Hop>, mut request: Request) -> Response {
    if hop.chain.lock().dead.contains(&hop.id) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let upgrading = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrading.await {
            let (read, write) = tokio::io::split(TokioIo::new(upgraded));
            let mut line = Line {
                hop,
                reader: FrameReader::new(read),
                writer: FrameWriter::new(write),
            };
            while line.chunk().await.is_some() {}
        }
    });
    let headers = [(CONNECTION, "upgrade"), (UPGRADE, WRITE_STREAM_PROTOCOL)];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// One connection of a writer.
struct Line<R, W> {
    hop: Hop,
    reader: FrameReader<R>,
    writer: FrameWriter<W>,
}

impl<R, W> Line<R, W>
where
    R: tokio::io::AsyncRead + Unpin,
    W: tokio::io::AsyncWrite + Unpin,
{
    /// Takes one chunk; `None` when the connection is to be dropped.
    async fn chunk(&mut self) -> Option<()> {
        let frame = self.reader.next().await.ok()??;
        assert_eq!(frame.header.kind, FrameKind::Open);
        let open: OpenChunk = frame::parse(&frame.payload).unwrap();
        assert_eq!(open.datanode, self.hop.id);
        // It does not say that it takes one: an older datanode would not know the field.
        assert_eq!(open.trace, None);
        let mut hops = vec![self.hop.id];
        hops.extend(open.downstream.iter().map(|next| next.id));
        for hop in &hops {
            if let Err(cause) = self.open(*hop, &open) {
                return self.failed(*hop, cause).await;
            }
        }
        let opened = frame::signal(FrameKind::Opened, 0);
        self.writer.raw(&opened).await.ok()?;
        let mut length = open.resume.map_or(0, |resume| resume.length);
        let mut confirmed = length;
        loop {
            let frame = self.reader.next().await.ok()??;
            match frame.header.kind {
                FrameKind::Block => {
                    assert_eq!(frame.header.offset, length, "blocks in order");
                    length += frame.payload.len() as u64;
                    self.append(&hops, open.chunk, &frame.payload);
                    if let Some(dead) =
                        self.dies(&hops, |f| matches!(f, Fault::DieAt(n) if n <= length))
                    {
                        return self.gone(dead).await;
                    }
                    if length - confirmed >= PROGRESS_STEP && !self.has(&hops, Fault::Silent) {
                        confirmed = length;
                        let progress = frame::signal(FrameKind::Progress, length);
                        self.writer.raw(&progress).await.ok()?;
                    }
                }
                FrameKind::Seal => {
                    let chunk = frame::parse(&frame.payload).unwrap();
                    return self.seal(hops, chunk).await;
                }
                FrameKind::Abort => {
                    for hop in &hops {
                        let mut shared = self.hop.chain.lock();
                        shared.nodes.get_mut(hop).unwrap().open.remove(&open.chunk);
                    }
                    return Some(());
                }
                kind => panic!("{kind:?} from a writer"),
            }
        }
    }

    fn open(&self, hop: DatanodeId, open: &OpenChunk) -> Result<(), HopFault> {
        let mut shared = self.hop.chain.lock();
        if shared.dead.contains(&hop) {
            return Err(HopFault::Unreachable);
        }
        let node = shared.nodes.get_mut(&hop).unwrap();
        if let Some(Fault::RefuseOpen(cause)) = node.fault {
            node.fault = None;
            return Err(cause);
        }
        node.opens += 1;
        if node.sealed.contains_key(&open.chunk) {
            return Err(HopFault::AlreadySealed);
        }
        let bytes = match open.resume {
            None => Vec::new(),
            Some(resume) => {
                let held = node.open.get(&open.chunk);
                let held = held.filter(|(version, bytes)| {
                    (resume.version..open.version).contains(version)
                        && bytes.len() as u64 >= resume.length
                });
                let (_, bytes) = held.ok_or(HopFault::CannotResume)?;
                bytes[..usize::try_from(resume.length).unwrap()].to_vec()
            }
        };
        node.open.insert(open.chunk, (open.version, bytes));
        Ok(())
    }

    fn append(&self, hops: &[DatanodeId], chunk: ChunkId, data: &[u8]) {
        let mut shared = self.hop.chain.lock();
        for hop in hops {
            let node = shared.nodes.get_mut(hop).unwrap();
            node.open.get_mut(&chunk).unwrap().1.extend_from_slice(data);
        }
    }

    fn has(&self, hops: &[DatanodeId], fault: Fault) -> bool {
        let shared = self.hop.chain.lock();
        hops.iter()
            .any(|hop| shared.nodes[hop].fault == Some(fault))
    }

    /// The first hop whose fault is due; it is dead from now on.
    fn dies(&self, hops: &[DatanodeId], due: impl Fn(Fault) -> bool) -> Option<DatanodeId> {
        let mut shared = self.hop.chain.lock();
        let dead = *hops
            .iter()
            .find(|hop| shared.nodes[hop].fault.is_some_and(&due))?;
        shared.nodes.get_mut(&dead).unwrap().fault = None;
        shared.dead.insert(dead);
        Some(dead)
    }

    async fn gone(&mut self, dead: DatanodeId) -> Option<()> {
        if dead == self.hop.id {
            return None;
        }
        self.failed(dead, HopFault::Unreachable).await
    }

    async fn failed(&mut self, hop: DatanodeId, cause: HopFault) -> Option<()> {
        let failed = failure(hop, cause, &"as ordered");
        let frame = frame::control(FrameKind::Failed, &failed).unwrap();
        self.writer.raw(&frame).await.ok()
    }

    async fn seal(&mut self, hops: Vec<DatanodeId>, chunk: SealedChunk) -> Option<()> {
        if let Some(dead) = self.dies(&hops, |fault| fault == Fault::DieAtSeal) {
            return self.gone(dead).await;
        }
        let mut replicas = Vec::new();
        let mut failed = Vec::new();
        for hop in &hops {
            let mut shared = self.hop.chain.lock();
            let node = shared.nodes.get_mut(hop).unwrap();
            if let Some(Fault::FailSeal(cause)) = node.fault {
                node.fault = None;
                failed.push(failure(*hop, cause, &"as ordered"));
                continue;
            }
            let (version, bytes) = node.open.remove(&chunk.id).unwrap();
            assert_eq!(version, chunk.version);
            assert_eq!(bytes.len() as u64, chunk.length);
            assert_eq!(crc32c(&bytes), chunk.crc32c);
            node.sealed.insert(chunk.id, (chunk, bytes));
            replicas.push(*hop);
        }
        if self
            .dies(&hops, |fault| fault == Fault::SealThenDie)
            .is_some()
        {
            return None;
        }
        let report = SealedReport {
            chunk,
            replicas,
            failed,
        };
        let frame = frame::control(FrameKind::Sealed, &report).unwrap();
        self.writer.raw(&frame).await.ok()
    }
}
