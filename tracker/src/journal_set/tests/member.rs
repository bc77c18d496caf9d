//! A datanode's journal in memory, behind a link of any slowness.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse as _, Response};
use dfs_protocol::backfill;
use dfs_protocol::chunk::DatanodeAddress;
use dfs_protocol::datanode::{JournalAppend, JournalBackfill, JournalGap, JournalRecord};
use dfs_protocol::routes::datanode;
use dfs_protocol::{DatanodeId, Epoch, ErrorCode, Fence, Incarnation};
use dfs_runtime::net::{Connection, Connector};
use dfs_runtime::problem::ProblemResponse;
use http::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;

/// What it holds and how it behaves.
#[derive(Debug, Default)]
pub(super) struct Journal {
    pub(super) records: Vec<JournalRecord>,
    /// What one request takes.
    pub(super) delay: Duration,
    /// A datanode of before backfills.
    pub(super) is_old: bool,
    /// From here on its journal is damaged.
    pub(super) damaged_from: Option<u64>,
    /// Sequences in the order in which they came, call by call.
    pub(super) taken: Vec<Vec<u64>>,
}

impl Journal {
    /// The payload that counts in one place: the highest epoch's.
    pub(super) fn counts(&self, sequence: u64) -> Option<&JournalRecord> {
        let there = self.records.iter().filter(|one| one.sequence == sequence);
        there.max_by_key(|one| one.fence.epoch)
    }

    fn take(&mut self, fence: Fence, records: &[(u64, &[u8])]) {
        self.taken.push(records.iter().map(|one| one.0).collect());
        for (sequence, payload) in records {
            let is_it = |one: &JournalRecord| (one.sequence, one.fence) == (*sequence, fence);
            if !self.records.iter().any(is_it) {
                self.records.push(JournalRecord {
                    fence,
                    sequence: *sequence,
                    payload: payload.to_vec(),
                });
            }
        }
        let order = |one: &JournalRecord| (one.sequence, one.fence.epoch, one.fence.incarnation);
        self.records.sort_by_key(order);
    }

    fn first_missing(&self, from: u64) -> u64 {
        let mut next = from;
        while self.counts(next).is_some() {
            next += 1;
        }
        next
    }

    fn page(&self, from: u64) -> Vec<u8> {
        let mut page = Vec::new();
        for record in self.records.iter().filter(|one| one.sequence >= from) {
            let entry = postcard::to_stdvec(record).unwrap();
            page.extend_from_slice(&u32::try_from(entry.len()).unwrap().to_le_bytes());
            page.extend_from_slice(&entry);
        }
        page
    }
}

/// The datanode; its connections end in this process.
#[derive(Debug, Clone, Default)]
pub(super) struct Member(Arc<Mutex<Journal>>);

impl Member {
    pub(super) fn at() -> DatanodeAddress {
        DatanodeAddress {
            id: DatanodeId::from_u128(1),
            address: "datanode-1:1".to_owned(),
        }
    }

    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.0.lock().unwrap()
    }
}

#[async_trait]
impl Connector for Member {
    async fn connect(&self, _address: &str) -> io::Result<Box<dyn Connection>> {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let router = Router::new().fallback(answer).with_state(self.clone());
        let service = TowerToHyperService::new(router);
        let serving =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
        tokio::spawn(async move {
            let _gone = serving.await;
        });
        Ok(Box::new(near))
    }
}

#[derive(serde::Deserialize)]
struct From {
    from: u64,
}

async fn answer(State(member): State<Member>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = to_bytes(body, usize::MAX).await.unwrap();
    let delay = member.journal().delay;
    tokio::time::sleep(delay).await;
    let mut journal = member.journal();
    let uri = &parts.uri;
    match (&parts.method, uri.path()) {
        (_, datanode::JOURNAL_BACKFILL) if journal.is_old => StatusCode::NOT_FOUND.into_response(),
        (&Method::POST, datanode::JOURNAL_BACKFILL) => {
            let Query(one) = Query::<JournalBackfill>::try_from_uri(uri).unwrap();
            let fence = fence(one.epoch, one.incarnation);
            journal.take(fence, &backfill::decode(&body).unwrap());
            StatusCode::NO_CONTENT.into_response()
        }
        (&Method::POST, datanode::JOURNAL) => {
            let Query(one) = Query::<JournalAppend>::try_from_uri(uri).unwrap();
            let fence = fence(one.epoch, one.incarnation);
            journal.take(fence, &[(one.sequence, &body[..])]);
            StatusCode::NO_CONTENT.into_response()
        }
        (&Method::GET, datanode::JOURNAL_BACKFILL) => {
            let Query(From { from }) = Query::try_from_uri(uri).unwrap();
            let first_missing = journal.first_missing(from);
            Json(JournalGap { first_missing }).into_response()
        }
        (&Method::GET, datanode::JOURNAL) => {
            let Query(From { from }) = Query::try_from_uri(uri).unwrap();
            if journal.damaged_from.is_some_and(|damaged| from >= damaged) {
                let detail = "the journal is damaged";
                return ProblemResponse::new(ErrorCode::DataUnavailable, detail).into_response();
            }
            journal.page(from).into_response()
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

pub(super) fn fence(epoch: u64, incarnation: u64) -> Fence {
    Fence {
        epoch: Epoch(epoch),
        incarnation: Incarnation(incarnation),
    }
}
