//! What a client asks of a store, and what a test waits for.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use dfs_protocol::DatanodeId;
use dfs_protocol::status::{
    ChunkHealth, ClusterStatus, DatanodeStatus, FileChunks, FsckFinding, FsckLine, FsckVerdict,
};
use dfs_protocol::upload::ListEntry;
use http::StatusCode;
use serde::Deserialize;

use crate::http::{Http, Reply};
use crate::ledger::Content;
use crate::wait::eventually;

/// How long a write is tried again.
const PATIENCE: Duration = Duration::from_secs(90);

/// A store behind one door. Paths are given as they stand in the URI, after `/files/`.
#[derive(Debug, Clone)]
pub struct Store {
    /// The door.
    pub door: Http,
}

/// What a successful upload answers, as far as tests look at it.
#[derive(Debug, Clone, Deserialize)]
pub struct Stored {
    /// Bytes.
    pub size: u64,
    /// The version.
    pub etag: String,
    /// Chunks.
    pub chunks: usize,
    /// Datanodes that hold every chunk.
    pub replicas: Vec<DatanodeId>,
    /// Fewest replicas of any chunk.
    pub replica_count: u32,
    /// The factor aimed at.
    pub wanted: u32,
}

/// Whether an answer says "not now", with a hint when to come again.
pub fn says_later(reply: &Reply) -> bool {
    reply.status == StatusCode::SERVICE_UNAVAILABLE && !reply.header("retry-after").is_empty()
}

/// Asks again while the answer [`says_later`]: a busy machine may stall until so many datanodes look silent that the
/// store takes no writes for a moment. Any other answer is one.
///
/// # Panics
/// When the exchange breaks, or at the deadline.
pub async fn patiently<F>(what: &str, mut ask: impl FnMut() -> F) -> Reply
where
    F: Future<Output = io::Result<Reply>>,
{
    eventually(what, PATIENCE, || {
        let asked = ask();
        async {
            match asked.await {
                Ok(reply) if says_later(&reply) => Err(reply.text()),
                Ok(reply) => Ok(reply),
                Err(error) => panic!("{what}: {error}"),
            }
        }
    })
    .await
}

#[derive(Debug, Deserialize)]
struct Page {
    entries: Vec<ListEntry>,
    cursor: Option<String>,
}

impl Store {
    /// The store behind `host:port`.
    pub fn new(address: &(impl ToString + ?Sized)) -> Self {
        Self {
            door: Http::new(address),
        }
    }

    /// Stores a file; any answer is an answer.
    pub async fn try_put(&self, path: &str, body: impl Into<Bytes>) -> io::Result<Reply> {
        self.door.put(&format!("/files/{path}"), body).await
    }

    /// Stores a file, as [`patiently`] as a client does.
    ///
    /// # Panics
    /// When the store does not acknowledge it.
    pub async fn put(&self, path: &str, body: impl Into<Bytes>) -> Stored {
        let body = body.into();
        let what = format!("PUT {path}");
        let put = || self.try_put(path, body.clone());
        patiently(&what, put).await.ok().json()
    }

    /// Fetches a file; any answer is an answer.
    pub async fn try_get(&self, path: &str) -> io::Result<Reply> {
        self.door.get(&format!("/files/{path}")).await
    }

    /// Fetches a file's bytes.
    ///
    /// # Panics
    /// When the store does not give them.
    pub async fn get(&self, path: &str) -> Bytes {
        let reply = self.try_get(path).await;
        reply
            .unwrap_or_else(|error| panic!("GET {path}: {error}"))
            .ok()
            .body
    }

    /// Deletes a file, as [`patiently`] as a client does.
    ///
    /// # Panics
    /// When the store does not acknowledge it.
    pub async fn delete(&self, path: &str) -> Reply {
        let (what, uri) = (format!("DELETE {path}"), format!("/files/{path}"));
        let mut tries = 0;
        let ask = || {
            tries += 1;
            self.door.delete(&uri)
        };
        let reply = patiently(&what, ask).await;
        // A try whose end is unknown may have done it.
        if tries > 1 && reply.status == StatusCode::NOT_FOUND {
            return reply;
        }
        reply.ok()
    }

    /// What the path holds, for [`crate::ledger::compare`]: `None` only on a 404.
    pub async fn content(&self, path: &str) -> Result<Option<Content>, String> {
        let reply = self
            .try_get(path)
            .await
            .map_err(|error| error.to_string())?;
        match reply.status {
            StatusCode::OK => Ok(Some(Content::of(&reply.body))),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(format!("{status}: {}", reply.text())),
        }
    }

    /// All paths under a prefix, in the order of the listing.
    ///
    /// # Panics
    /// When the store does not answer.
    pub async fn list(&self, prefix: &str) -> Vec<String> {
        let mut paths = Vec::new();
        let mut cursor = String::new();
        loop {
            let uri = format!("/files?list&prefix={prefix}{cursor}");
            let reply = self.door.get(&uri).await;
            let reply = reply.unwrap_or_else(|error| panic!("GET {uri}: {error}"));
            let page: Page = reply.ok().json();
            for entry in page.entries {
                match entry {
                    ListEntry::File { path, .. } => paths.push(path.to_string()),
                    other @ ListEntry::Directory { .. } => {
                        panic!("not a file, and no delimiter was asked for: {other:?}")
                    }
                }
            }
            match page.cursor {
                None => return paths,
                Some(next) => cursor = format!("&cursor={next}"),
            }
        }
    }

    /// `GET /status`.
    pub async fn status(&self) -> Result<ClusterStatus, String> {
        self.read("/status").await
    }

    /// `GET /nodes`.
    pub async fn nodes(&self) -> Result<Vec<DatanodeStatus>, String> {
        self.read("/nodes").await
    }

    /// `GET /chunks?file=`.
    pub async fn chunks(&self, path: &str) -> Result<FileChunks, String> {
        self.read(&format!("/chunks?file={path}")).await
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let reply = self
            .door
            .get(path)
            .await
            .map_err(|error| error.to_string())?;
        if reply.status != StatusCode::OK {
            return Err(format!("{}: {}", reply.status, reply.text()));
        }
        serde_json::from_slice(&reply.body).map_err(|error| format!("{error}: {}", reply.text()))
    }

    /// `GET /fsck`: findings and verdict.
    pub async fn fsck(&self) -> Result<(Vec<FsckFinding>, FsckVerdict), String> {
        let reply = self
            .door
            .get("/fsck")
            .await
            .map_err(|error| error.to_string())?;
        if reply.status != StatusCode::OK {
            return Err(format!("{}: {}", reply.status, reply.text()));
        }
        let text = reply.text();
        let mut findings = Vec::new();
        let mut verdict = None;
        for line in text.lines() {
            match serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))? {
                FsckLine::Finding(finding) => findings.push(finding),
                FsckLine::Verdict(last) => verdict = Some(last),
            }
        }
        let verdict = verdict.ok_or_else(|| format!("no verdict: {text}"))?;
        Ok((findings, verdict))
    }

    /// Waits until the status is as wanted.
    ///
    /// # Panics
    /// At the deadline, with the last status.
    pub async fn wait_status(
        &self,
        what: &str,
        deadline: Duration,
        wanted: impl Fn(&ClusterStatus) -> bool,
    ) -> ClusterStatus {
        eventually(what, deadline, || async {
            let status = self.status().await?;
            if wanted(&status) {
                Ok(status)
            } else {
                Err(format!("{status:#?}"))
            }
        })
        .await
    }

    /// Waits until so many datanodes take chunks, safe mode is over and writes are taken.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn wait_ready(&self, datanodes: u64, deadline: Duration) -> ClusterStatus {
        let what = format!("{datanodes} datanodes take chunks");
        self.wait_status(&what, deadline, |status| {
            status.datanodes.placeable >= datanodes
                && status.safe_mode.is_none()
                && status.writes_refused.is_none()
        })
        .await
    }

    /// Waits until the store says that it is healthy: no datanode is silent, no chunk lacks replicas. Copies that
    /// became needless, and what is left too many, may be under way still.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn wait_healthy(&self, deadline: Duration) -> ClusterStatus {
        self.wait_status("the store is healthy", deadline, |status| status.healthy)
            .await
    }

    /// Waits until no chunk lacks, or has too many, replicas and no copy is under way; datanodes may be silent for ever.
    ///
    /// # Panics
    /// At the deadline.
    pub async fn wait_repaired(&self, deadline: Duration) -> ClusterStatus {
        self.wait_status("every chunk has its replicas", deadline, is_repaired)
            .await
    }

    /// Waits until an fsck of the whole store finds nothing (I33).
    ///
    /// # Panics
    /// At the deadline, with the findings.
    pub async fn wait_fsck_clean(&self, deadline: Duration) -> FsckVerdict {
        eventually("fsck is clean", deadline, || async {
            let (findings, verdict) = self.fsck().await?;
            if verdict.clean && findings.is_empty() {
                return Ok(verdict);
            }
            Err(format!("{}: {findings:#?}", verdict.summary))
        })
        .await
    }
}

/// No chunk lacks, or has too many, replicas, and no copy is under way.
pub(crate) fn is_repaired(status: &ClusterStatus) -> bool {
    let mut chunks = status.chunks.iter();
    let whole = chunks.all(|(health, count)| *health == ChunkHealth::Healthy || *count == 0);
    // A replica may be reported before the answer to the order that made it.
    whole && status.safe_mode.is_none() && status.repair.active == 0
}
