//! What the tracker's tests share: the whole visible store at once, the calls that the storage tests
//! do not need, and a deterministic history of changes.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_client::datanode::DatanodeClient;
use dfs_client::http::{HttpClient, empty, whole};
use dfs_e2e::cluster::Cluster;
use dfs_e2e::http::Reply;
use dfs_e2e::ledger::sha256_hex;
use dfs_e2e::store::{Store, patiently};
use dfs_e2e::wait::eventually;
use dfs_protocol::DatanodeId;
use dfs_protocol::chunk::{DatanodeAddress, SealedChunk};
use dfs_protocol::datanode::AdminState;
use dfs_protocol::file::TrashEntry;
use dfs_protocol::status::{DatanodeStatus, Verdict};
use http::{Method, StatusCode};
use serde::Deserialize;

use crate::kit::{DEADLINE, chunk_files, files_below, holders};

/// A file as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Digest of its bytes.
    pub(crate) sha256: String,
    /// Its version.
    pub(crate) etag: String,
    /// Its media type.
    pub(crate) content_type: String,
    /// Its user metadata, as one header.
    pub(crate) color: String,
}

/// Every file, as a client sees it.
pub(crate) async fn look(store: &Store) -> BTreeMap<String, Seen> {
    let mut all = BTreeMap::new();
    for path in store.list("").await {
        let reply = store.try_get(&path).await.unwrap().ok();
        let seen = Seen {
            sha256: sha256_hex(&reply.body),
            etag: reply.header("etag").to_owned(),
            content_type: reply.header("content-type").to_owned(),
            color: reply.header("x-dfs-meta-color").to_owned(),
        };
        all.insert(path, seen);
    }
    all
}

/// Paths and digests alone.
pub(crate) fn digests(all: &BTreeMap<String, Seen>) -> BTreeMap<String, String> {
    let pairs = all.iter();
    pairs
        .map(|(path, seen)| (path.clone(), seen.sha256.clone()))
        .collect()
}

pub(crate) async fn post(store: &Store, uri: &str) -> Reply {
    let reply = store.door.send(Method::POST, uri, &[], empty()).await;
    reply.unwrap_or_else(|error| panic!("POST {uri}: {error}"))
}

pub(crate) async fn copy(store: &Store, from: &str, to: &str) -> Reply {
    post(store, &format!("/files/{to}?copy-from={from}")).await
}

pub(crate) async fn rename(store: &Store, from: &str, to: &str) -> Reply {
    post(store, &format!("/files/{to}?move-from={from}")).await
}

/// [`post`] of what must succeed, tried again while the answer says later.
pub(crate) async fn post_ok(store: &Store, uri: &str) -> Reply {
    let post = || store.door.send(Method::POST, uri, &[], empty());
    patiently(uri, post).await.ok()
}

pub(crate) async fn put_with(
    store: &Store,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Reply {
    let uri = format!("/files/{path}");
    store
        .door
        .send(Method::PUT, &uri, headers, whole(body))
        .await
        .unwrap()
}

#[derive(Debug, Deserialize)]
struct TrashPage {
    entries: Vec<TrashEntry>,
}

pub(crate) async fn trash(store: &Store) -> Vec<TrashEntry> {
    let page: TrashPage = store
        .door
        .get("/trash?limit=1000")
        .await
        .unwrap()
        .ok()
        .json();
    page.entries
}

pub(crate) async fn purge(store: &Store, entry: &TrashEntry) {
    let _gone = store
        .door
        .delete(&format!("/trash/{}", entry.id))
        .await
        .unwrap()
        .ok();
}

pub(crate) async fn node(store: &Store, id: DatanodeId) -> Option<DatanodeStatus> {
    let nodes = store.nodes().await.unwrap();
    nodes.into_iter().find(|node| node.id == id)
}

/// The uuid of a datanode of the cluster, as it says itself.
pub(crate) async fn id_of(cluster: &Cluster, number: usize) -> DatanodeId {
    let address = cluster.datanodes[number].address.to_string();
    datanodes(cluster)
        .identity(&address)
        .await
        .unwrap()
        .datanode
}

/// A client of datanodes, from outside.
pub(crate) fn datanodes(cluster: &Cluster) -> DatanodeClient {
    DatanodeClient::new(HttpClient::new(cluster.links.connector("test")))
}

pub(crate) async fn at(cluster: &Cluster, number: usize) -> DatanodeAddress {
    DatanodeAddress {
        id: id_of(cluster, number).await,
        address: cluster.datanodes[number].address.to_string(),
    }
}

pub(crate) async fn verdict(store: &Store, id: DatanodeId) -> Verdict {
    let uri = format!("/nodes/{id}/safe-to-remove");
    store.door.get(&uri).await.unwrap().ok().json()
}

pub(crate) async fn ok_to_stop(store: &Store, ids: &[DatanodeId]) -> Verdict {
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let body = serde_json::json!({ "datanodes": ids });
    store
        .door
        .post_json("/ok-to-stop", &body)
        .await
        .unwrap()
        .ok()
        .json()
}

/// An upload, or a checkpoint, under way makes the answer no for a moment.
pub(crate) async fn wait_ok_to_stop(store: &Store, ids: &[DatanodeId]) {
    eventually("they may stop", DEADLINE, || async {
        let verdict = ok_to_stop(store, ids).await;
        verdict
            .safe
            .then_some(())
            .ok_or_else(|| format!("{verdict:?}"))
    })
    .await;
}

pub(crate) async fn wait_admin(store: &Store, id: DatanodeId, wanted: AdminState) {
    eventually("the admin state", DEADLINE, || async {
        let nodes = store.nodes().await?;
        let node = nodes.iter().find(|node| node.id == id);
        match node {
            Some(node) if node.admin == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Waits until no volume holds a record of these chunks.
pub(crate) async fn wait_gone(cluster: &Cluster, chunks: &[SealedChunk], within: Duration) {
    eventually("the chunks are collected", within, || async {
        let left: Vec<Vec<usize>> = chunks.iter().map(|c| holders(cluster, c)).collect();
        if left.iter().all(Vec::is_empty) {
            Ok(())
        } else {
            Err(format!(
                "held by {left:?}: {:?}",
                cluster.store().status().await
            ))
        }
    })
    .await;
}

/// Chunk records on a volume.
pub(crate) fn records_on(cluster: &Cluster, number: usize, dir: &str) -> usize {
    let files = files_below(&chunk_files(cluster, number).join(dir));
    let chunk = |path: &&std::path::PathBuf| path.extension().is_some_and(|e| e == "chunk");
    files.iter().filter(chunk).count()
}

/// A change of a store, chosen at random.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Put(String, Vec<u8>),
    Copy(String, String),
    Move(String, String),
    Delete(String),
    /// Restores the newest trash entry of the path, if the path is free.
    Restore(String),
    PurgeAny,
}

/// Paths and contents, as a client may expect them.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

impl Change {
    /// Any change over a few names.
    pub(crate) fn random(rng: &mut fastrand::Rng) -> Self {
        let mut name = || format!("d{}/f{}", rng.u8(..2), rng.u8(..4));
        let (a, b) = (name(), name());
        match rng.u8(..12) {
            0..=4 => {
                let sizes = [0, 17, 4000, 300_000];
                let size = sizes[rng.usize(..sizes.len())];
                let mut bytes = vec![0; size];
                rng.fill(&mut bytes);
                Self::Put(a, bytes)
            }
            5 => Self::Copy(a, b),
            6 | 7 => Self::Move(a, b),
            8 | 9 => Self::Delete(a),
            10 => Self::Restore(a),
            _ => Self::PurgeAny,
        }
    }

    /// What the store is to be after it; none when the store must refuse it. What a restore brings
    /// back is told by the trash.
    pub(crate) fn apply(&self, files: &Files, trash: &[(String, Vec<u8>)]) -> Option<Files> {
        let mut next = files.clone();
        match self {
            Self::Put(path, bytes) => {
                next.insert(path.clone(), bytes.clone());
            }
            Self::Copy(from, to) if from != to => {
                next.insert(to.clone(), files.get(from)?.clone());
            }
            Self::Move(from, to) if from != to => {
                let bytes = next.remove(from)?;
                next.insert(to.clone(), bytes);
            }
            Self::Copy(..) | Self::Move(..) => return None,
            Self::Delete(path) => {
                next.remove(path)?;
            }
            Self::Restore(path) => {
                let newest = trash.iter().rev().find(|(at, _)| at == path)?;
                if next.contains_key(path) {
                    return None;
                }
                next.insert(path.clone(), newest.1.clone());
            }
            Self::PurgeAny => {}
        }
        Some(next)
    }

    /// Asks for it.
    pub(crate) async fn ask(&self, store: &Store) -> std::io::Result<StatusCode> {
        let send = |method, uri: String| async move {
            let reply = store.door.send(method, &uri, &[], empty()).await?;
            std::io::Result::Ok(reply.status)
        };
        match self {
            Self::Put(path, bytes) => Ok(store.try_put(path, bytes.clone()).await?.status),
            Self::Copy(from, to) => {
                send(Method::POST, format!("/files/{to}?copy-from={from}")).await
            }
            Self::Move(from, to) => {
                send(Method::POST, format!("/files/{to}?move-from={from}")).await
            }
            Self::Delete(path) => send(Method::DELETE, format!("/files/{path}")).await,
            Self::Restore(path) => {
                let page = store.door.get("/trash?limit=1000").await?;
                if page.status != StatusCode::OK {
                    return Ok(page.status);
                }
                let page: TrashPage = page.json();
                let newest = page
                    .entries
                    .iter()
                    .rev()
                    .find(|e| e.file.path.to_string() == *path);
                match newest {
                    None => Ok(StatusCode::NOT_FOUND),
                    Some(entry) => send(Method::POST, format!("/trash/{}/restore", entry.id)).await,
                }
            }
            Self::PurgeAny => {
                let page = store.door.get("/trash?limit=1").await?;
                if page.status != StatusCode::OK {
                    return Ok(page.status);
                }
                let page: TrashPage = page.json();
                match page.entries.first() {
                    None => Ok(StatusCode::NOT_FOUND),
                    Some(entry) => send(Method::DELETE, format!("/trash/{}", entry.id)).await,
                }
            }
        }
    }
}
