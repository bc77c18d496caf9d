//! What the storage tests share: a model of what was acknowledged, uploads that a test feeds
//! piece by piece, and the records of a file on the datanodes' volumes.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dfs_datanode::store::layout::chunk_path;
use dfs_e2e::cluster::{CALM_HEARTS, Cluster, Options};
use dfs_e2e::http::{Http, Reply};
use dfs_e2e::net::{Direction, Once, OnceEffect};
use dfs_e2e::store::{Store, Stored};
use dfs_e2e::wait::eventually;
use dfs_protocol::chunk::SealedChunk;
use dfs_protocol::status::{FileChunks, ReplicaState};
use dfs_runtime::disk::Disk;
use futures_util::stream;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Limit of everything that repair, collection or a restart brings about.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);
/// Bytes of a chunk in most of these tests.
pub(crate) const CHUNK: u64 = 256 * 1024;
/// [`CHUNK`], to count bytes in memory.
pub(crate) const CHUNK_BYTES: usize = 256 * 1024;

/// A cluster with small chunks, and a checkpoint a second, so that collection need not wait.
pub(crate) fn options(datanodes: usize) -> Options {
    Options {
        datanodes,
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.checkpoint_interval = Duration::from_secs(1);
        },
        ..Options::default()
    }
}

/// [`options`] where nobody's death is awaited; see [`CALM_HEARTS`].
pub(crate) fn calm_options(datanodes: usize) -> Options {
    Options {
        tracker: |config| {
            config.chunk_size = CHUNK;
            config.checkpoint_interval = Duration::from_secs(1);
            config.heartbeat_interval = CALM_HEARTS;
        },
        ..options(datanodes)
    }
}

/// What was acknowledged: paths and their bytes.
#[derive(Debug, Default)]
pub(crate) struct Model(BTreeMap<String, Bytes>);

impl Model {
    /// Stores random bytes and remembers them.
    pub(crate) async fn put(&mut self, cluster: &mut Cluster, path: &str, size: usize) -> Stored {
        let bytes = Bytes::from(cluster.bytes(size));
        let stored = cluster.store().put(path, bytes.clone()).await;
        self.note(path, bytes);
        stored
    }

    /// Remembers what was acknowledged.
    pub(crate) fn note(&mut self, path: &str, bytes: Bytes) {
        self.0.insert(path.to_owned(), bytes);
    }

    /// Deletes a file and forgets it.
    pub(crate) async fn delete(&mut self, store: &Store, path: &str) {
        let _deleted = store.delete(path).await;
        self.0.remove(path);
    }

    /// The bytes of a path.
    pub(crate) fn bytes(&self, path: &str) -> Bytes {
        self.0[path].clone()
    }

    /// Every path.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Every file is there, whole, by GET, HEAD and list, and nothing else is.
    pub(crate) async fn check(&self, store: &Store) {
        for path in self.0.keys() {
            self.check_file(store, path).await;
        }
        assert_eq!(store.list("").await, self.paths());
    }

    /// One file is there and whole, by GET and HEAD.
    pub(crate) async fn check_file(&self, store: &Store, path: &str) {
        let bytes = &self.0[path];
        assert!(store.get(path).await == *bytes, "{path} has other bytes");
        let head = store.door.head(&format!("/files/{path}")).await.unwrap();
        assert_eq!(head.status, StatusCode::OK, "{path}");
        assert_eq!(head.header("content-length"), bytes.len().to_string());
    }

    /// Waits until an fsck finds nothing, and holds the store against the model (I33).
    pub(crate) async fn settle(&self, cluster: &Cluster) {
        let store = cluster.store();
        let verdict = store.wait_fsck_clean(DEADLINE).await;
        assert_eq!(verdict.files, self.0.len() as u64, "files that fsck saw");
        self.check(&store).await;
    }
}

/// Replicas of a chunk that are current and reachable.
pub(crate) fn valid_replicas(file: &FileChunks) -> Vec<usize> {
    let valid = |chunk: &dfs_protocol::status::ChunkDetail| {
        let states = chunk.replicas.iter().map(|replica| replica.state);
        states.filter(|state| *state == ReplicaState::Valid).count()
    };
    file.chunks.iter().map(valid).collect()
}

/// [`valid_replicas`], and those on datanodes that look silent for a moment: one that was removed is neither.
pub(crate) fn known_replicas(file: &FileChunks) -> Vec<usize> {
    let known = |chunk: &dfs_protocol::status::ChunkDetail| {
        let states = chunk.replicas.iter().map(|replica| replica.state);
        let known =
            |state: &ReplicaState| matches!(state, ReplicaState::Valid | ReplicaState::Unreachable);
        states.filter(known).count()
    };
    file.chunks.iter().map(known).collect()
}

/// Waits until each chunk of a file has so many [`valid_replicas`]: a datanode that looks silent for a moment is none.
pub(crate) async fn wait_valid(store: &Store, path: &str, wanted: usize) {
    let what = format!("{path} has {wanted} replicas");
    eventually(&what, DEADLINE, || async {
        let counts = valid_replicas(&store.chunks(path).await?);
        let all = counts.iter().all(|count| *count == wanted);
        all.then_some(()).ok_or_else(|| format!("{counts:?}"))
    })
    .await;
}

/// The chunks of a file, in order.
pub(crate) async fn chunks_of(store: &Store, path: &str) -> Vec<SealedChunk> {
    let file = store.chunks(path).await.unwrap();
    file.chunks.iter().map(|chunk| chunk.chunk).collect()
}

/// A cluster in which every chunk has a file of its own, for [`record`] and what is made of it.
pub(crate) fn with_files(mut options: Options) -> Options {
    options.chunk_files = true;
    options
}

/// The record of a chunk on a datanode's volume.
pub(crate) fn record(cluster: &Cluster, datanode: usize, chunk: &SealedChunk) -> PathBuf {
    let volume = chunk_files(cluster, datanode);
    chunk_path(volume, chunk.id, chunk.version)
}

/// The volume of a datanode, to look for files of chunks: where they are in packs nobody would find one.
pub(crate) fn chunk_files(cluster: &Cluster, datanode: usize) -> &Path {
    assert!(cluster.options.chunk_files, "small chunks are in packs");
    &cluster.datanodes[datanode].dir
}

/// The datanodes that hold a chunk.
pub(crate) fn holders(cluster: &Cluster, chunk: &SealedChunk) -> Vec<usize> {
    let all = 0..cluster.datanodes.len();
    all.filter(|number| record(cluster, *number, chunk).exists())
        .collect()
}

/// Flips a bit of a file at rest.
pub(crate) fn flip(path: &Path, offset: u64) {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

/// Every file below a directory.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Files in a directory of a datanode's volume as the datanode sees it: the real directory may lag
/// behind, by what was not synced.
pub(crate) fn listed(cluster: &Cluster, datanode: usize, dir: &str) -> Vec<String> {
    // What is to be packed is not staged.
    assert!(dir != "staging" || cluster.options.chunk_files);
    let role = &cluster.datanodes[datanode];
    let entries = role.disk().list(&role.dir.join(dir)).unwrap();
    entries.into_iter().map(|entry| entry.name).collect()
}

/// Starts a datanode, and waits until the tracker has heard what it holds now.
pub(crate) async fn start_heard(cluster: &mut Cluster, datanode: usize) {
    cluster.start_datanode(datanode).await;
    let role = &cluster.datanodes[datanode];
    eventually("the datanode is heard again", DEADLINE, || async {
        assert_eq!(role.ended(), None);
        // The first tells that there is news, and the report of it comes before the next.
        let heartbeats = role.metric("dfs_datanode_heartbeats_total");
        (heartbeats >= 3.0)
            .then_some(())
            .ok_or(heartbeats.to_string())
    })
    .await;
}

/// An upload whose body a test feeds.
#[derive(Debug)]
pub(crate) struct Upload {
    body: mpsc::Sender<io::Result<Bytes>>,
    answer: JoinHandle<io::Result<Reply>>,
}

impl Upload {
    /// Begins it. `length` announces the body; without it the body is chunked.
    pub(crate) fn begin(store: &Store, path: &str, length: Option<usize>) -> Self {
        // Room for one piece: what was fed was taken, except for what the sockets hold.
        let (body, pieces) = mpsc::channel::<io::Result<Bytes>>(1);
        let frames = stream::unfold(pieces, |mut pieces| async {
            let piece = pieces.recv().await?;
            Some((piece.map(Frame::data), pieces))
        });
        let request_body = StreamBody::new(frames).boxed();
        let door: Http = store.door.clone();
        let path = format!("/files/{path}");
        let answer = tokio::spawn(async move {
            let length = length.map(|length| length.to_string());
            let headers: Vec<(&str, &str)> = length
                .iter()
                .map(|length| ("content-length", length.as_str()))
                .collect();
            door.send(Method::PUT, &path, &headers, request_body).await
        });
        Self { body, answer }
    }

    /// Sends bytes; false when the store takes no more.
    pub(crate) async fn feed(&self, bytes: &[u8]) -> bool {
        for piece in bytes.chunks(64 * 1024) {
            let piece = Bytes::copy_from_slice(piece);
            if self.body.send(Ok(piece)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Ends the body; the answer.
    pub(crate) async fn finish(self) -> io::Result<Reply> {
        drop(self.body);
        self.answer.await.unwrap()
    }

    /// Breaks the connection amid the body.
    pub(crate) async fn cut(self) {
        let broken = Err(io::ErrorKind::ConnectionReset.into());
        let _gone = self.body.send(broken).await;
        let answer = self.answer.await.unwrap();
        assert!(
            !answer.is_ok_and(|reply| reply.status.is_success()),
            "half a body was acknowledged"
        );
    }
}

/// Tells through which datanodes, in order, the bytes of an upload go from now on.
#[derive(Debug)]
pub(crate) struct ChainWatch {
    first: Vec<Arc<Once>>,
    next: Vec<Vec<Arc<Once>>>,
}

impl ChainWatch {
    /// Watches from now on. A link counts once `bytes` went over it.
    pub(crate) fn begin(cluster: &Cluster, bytes: u64) -> Self {
        let name = |number: usize| cluster.datanodes[number].name.as_str();
        let tell = |from: &str, to: &str| {
            let links = &cluster.links;
            links.once(from, to, Direction::Forth, bytes, OnceEffect::Tell)
        };
        let all = 0..cluster.datanodes.len();
        let first = all.clone().map(|to| tell("tracker", name(to))).collect();
        let next = all
            .clone()
            .map(|from| all.clone().map(|to| tell(name(from), name(to))).collect())
            .collect();
        Self { first, next }
    }

    /// The chain so far.
    pub(crate) fn chain(&self) -> Vec<usize> {
        let done = |links: &[Arc<Once>]| links.iter().position(|link| link.is_done());
        let mut chain: Vec<usize> = done(&self.first).into_iter().collect();
        while let Some(next) = chain.last().and_then(|last| done(&self.next[*last])) {
            if chain.contains(&next) {
                break;
            }
            chain.push(next);
        }
        chain
    }

    /// Waits until the bytes reached so many datanodes.
    pub(crate) async fn wait(&self, hops: usize) -> Vec<usize> {
        eventually("the chain is open", DEADLINE, || async {
            let chain = self.chain();
            if chain.len() >= hops {
                Ok(chain)
            } else {
                Err(format!("{chain:?}"))
            }
        })
        .await
    }
}
