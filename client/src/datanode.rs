//! Calls to datanodes other than chunk streams.

use std::time::Duration;

use dfs_protocol::backfill;
use dfs_protocol::chunk::{ChunkKind, ChunkOrigin, DatanodeAddress, Replica};
use dfs_protocol::datanode::{
    ChunkState, CopyRequest, CopyResponse, Identity, JournalAppend, JournalBackfill, JournalGap,
    JournalRecord,
};
use dfs_protocol::routes::{DATANODE_HEADER, datanode};
use dfs_protocol::{ChunkId, DatanodeId, Fence};
use http::{Method, Request};

use crate::error::ClientError;
use crate::http::{DEFAULT_TIMEOUT, HttpClient, malformed, uri, whole};

/// A copy of a large chunk over a busy disk takes its time.
const COPY_TIMEOUT: Duration = Duration::from_mins(2);
/// A journal append waits for one fsync.
const JOURNAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Typed calls to datanodes. Cloning shares the connection pool.
#[derive(Debug, Clone)]
pub struct DatanodeClient {
    http: HttpClient,
}

impl DatanodeClient {
    /// Calls over `http`.
    pub fn new(http: HttpClient) -> Self {
        Self { http }
    }

    /// The pool underneath.
    pub fn http(&self) -> &HttpClient {
        &self.http
    }

    /// Who listens at `host:port`.
    pub async fn identity(&self, address: &str) -> Result<Identity, ClientError> {
        self.http.identity(address).await
    }

    /// What a datanode holds of a chunk.
    pub async fn chunk_state(
        &self,
        to: &DatanodeAddress,
        chunk: ChunkId,
    ) -> Result<ChunkState, ClientError> {
        let path = datanode::CHUNK.replace("{id}", &chunk.to_string());
        self.http.get(&to.address, &path, &[meant_for(to.id)]).await
    }

    /// Lets a datanode fetch a replica; returns when it is durable there.
    pub async fn copy(
        &self,
        to: &DatanodeAddress,
        request: &CopyRequest,
    ) -> Result<CopyResponse, ClientError> {
        self.http
            .call(
                &to.address,
                datanode::COPY,
                &[meant_for(to.id)],
                request,
                COPY_TIMEOUT,
            )
            .await
    }

    /// Appends one journal record; returns when it is durable there.
    pub async fn journal_append(
        &self,
        to: &DatanodeAddress,
        record: &JournalRecord,
    ) -> Result<(), ClientError> {
        let append = JournalAppend {
            epoch: record.fence.epoch.0,
            incarnation: record.fence.incarnation.0,
            sequence: record.sequence,
            crc32c: dfs_protocol::checksum::crc32c(&record.payload),
        };
        let path = format!(
            "{}?epoch={}&incarnation={}&sequence={}&crc32c={}",
            datanode::JOURNAL,
            append.epoch,
            append.incarnation,
            append.sequence,
            append.crc32c
        );
        self.append_to_journal(to, &path, record.payload.clone())
            .await
    }

    /// Appends records that a datanode lacks, in order, all under `fence`, with one fsync.
    pub async fn journal_backfill(
        &self,
        to: &DatanodeAddress,
        fence: Fence,
        records: &[JournalRecord],
    ) -> Result<(), ClientError> {
        let body = backfill::encode(records);
        let query = JournalBackfill {
            epoch: fence.epoch.0,
            incarnation: fence.incarnation.0,
            crc32c: dfs_protocol::checksum::crc32c(&body),
        };
        let path = format!(
            "{}?epoch={}&incarnation={}&crc32c={}",
            datanode::JOURNAL_BACKFILL,
            query.epoch,
            query.incarnation,
            query.crc32c
        );
        self.append_to_journal(to, &path, body).await
    }

    async fn append_to_journal(
        &self,
        to: &DatanodeAddress,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(), ClientError> {
        let (name, value) = meant_for(to.id);
        let request = Request::post(uri(&to.address, path)?)
            .header(name, value)
            .body(whole(body))
            .map_err(|error| malformed(&to.address, &error))?;
        let sent = self.http.send(&to.address, request, JOURNAL_TIMEOUT);
        sent.await.map(drop)
    }

    /// Where a datanode's journal ends or has a hole, from a sequence on.
    pub async fn journal_gap(
        &self,
        to: &DatanodeAddress,
        from: u64,
    ) -> Result<JournalGap, ClientError> {
        let path = format!("{}?from={from}", datanode::JOURNAL_BACKFILL);
        self.http.get(&to.address, &path, &[meant_for(to.id)]).await
    }

    /// One page of a datanode's journal records with `sequence >= from`, oldest first, as the raw
    /// postcard framing of [`JournalRecord`]. An empty page is the end.
    ///
    /// Errors: `data-unavailable` where damage took records; [`Self::journal_page_past_damage`] goes on.
    pub async fn journal_page(
        &self,
        to: &DatanodeAddress,
        from: u64,
    ) -> Result<bytes::Bytes, ClientError> {
        let path = format!("{}?from={from}", datanode::JOURNAL);
        self.fetch_journal(to, &path).await
    }

    /// As [`Self::journal_page`], but all that can be read: the caller looks for gaps itself.
    pub async fn journal_page_past_damage(
        &self,
        to: &DatanodeAddress,
        from: u64,
    ) -> Result<bytes::Bytes, ClientError> {
        let path = format!("{}?from={from}&past_damage=true", datanode::JOURNAL);
        self.fetch_journal(to, &path).await
    }

    async fn fetch_journal(
        &self,
        to: &DatanodeAddress,
        path: &str,
    ) -> Result<bytes::Bytes, ClientError> {
        self.http
            .fetch(
                Method::GET,
                &to.address,
                path,
                &[meant_for(to.id)],
                DEFAULT_TIMEOUT,
            )
            .await
    }

    /// The raw postcard list of ([`Replica`], [`ChunkOrigin`]) of one kind.
    pub async fn inventory(
        &self,
        to: &DatanodeAddress,
        kind: ChunkKind,
    ) -> Result<bytes::Bytes, ClientError> {
        let kind = match kind {
            ChunkKind::Data => "data",
            ChunkKind::Checkpoint => "checkpoint",
        };
        let path = format!("{}?kind={kind}", datanode::INVENTORY);
        self.http
            .fetch(
                Method::GET,
                &to.address,
                &path,
                &[meant_for(to.id)],
                COPY_TIMEOUT,
            )
            .await
    }
}

/// One entry of [`DatanodeClient::inventory`].
pub type InventoryEntry = (Replica, ChunkOrigin);

fn meant_for(id: DatanodeId) -> (&'static str, String) {
    (DATANODE_HEADER, id.to_string())
}
