//! Calls to the tracker. Doors speak to [`TrackerApi`], which is the tracker itself where both live
//! in one process and [`HttpTracker`] elsewhere.

use std::time::Duration;

use async_trait::async_trait;
use dfs_protocol::calls::{
    DatanodeRequest, FileRequest, FsckPage, FsckRequest, Nothing, PurgeRequest, RestoreRequest,
    SetAdminRequest, TrashPage, TrashRequest,
};
use dfs_protocol::datanode::{Heartbeat, HeartbeatReply, RegisterRequest, RegisterResponse};
use dfs_protocol::factor::{FactorPage, FactorRequest};
use dfs_protocol::file::FileRecord;
use dfs_protocol::repair::RepairTerms;
use dfs_protocol::routes;
use dfs_protocol::status::{ClusterStatus, DatanodeStatus, FileChunks, OkToStopRequest, Verdict};
use dfs_protocol::traffic::DatanodeTraffic;
use dfs_protocol::upload::{
    AllocateRequest, AllocateResponse, CommitRequest, CommitResponse, DeleteRequest,
    DeleteResponse, ListRequest, ListResponse, LocateRequest, LocateResponse, RenewRequest,
    RenewResponse, SuspectReplica, TransferRequest, TransferResponse,
};
use dfs_protocol::{ErrorCode, Problem};
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use hyper::body::Incoming;

use crate::error::ClientError;
use crate::http::{DEFAULT_TIMEOUT, HttpClient, decode, malformed, read_whole, uri, whole};

/// A heartbeat that takes longer than this is as good as missed.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(5);

macro_rules! tracker_calls {
    ($($(#[$doc:meta])* $name:ident($request:ty) -> $response:ty;)*) => {
        /// What doors ask of the tracker. Repeating a call whose answer was lost is harmless.
        #[async_trait]
        pub trait TrackerApi: std::fmt::Debug + Send + Sync + 'static {
            $($(#[$doc])* async fn $name(&self, request: $request) -> Result<$response, ClientError>;)*
        }

        #[async_trait]
        impl TrackerApi for HttpTracker {
            $(async fn $name(&self, request: $request) -> Result<$response, ClientError> {
                self.call(stringify!($name), &request).await
            })*
        }

        /// Answers a call that arrived as JSON under [`routes::tracker::CALL_PREFIX`].
        ///
        /// Errors: the API's own problems; `invalid-json`; `not-found` for a name that is no call.
        pub async fn dispatch(
            api: &dyn TrackerApi,
            name: &str,
            body: &[u8],
        ) -> Result<Vec<u8>, Problem> {
            match name {
                $(stringify!($name) => {
                    let request: $request = serde_json::from_slice(body)
                        .map_err(|error| Problem::new(ErrorCode::InvalidJson, error.to_string()))?;
                    let response = api.$name(request).await.map_err(ClientError::into_problem)?;
                    serde_json::to_vec(&response)
                        .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))
                })*
                _ => Err(Problem::new(ErrorCode::NotFound, format!("there is no call `{name}`"))
                    .next("check that gateway and tracker run compatible versions")),
            }
        }
    };
}

tracker_calls! {
    /// Room for new chunks. Errors: `safe-mode`, `too-few-datanodes`, `insufficient-storage`,
    /// `unavailable` (no majority of datanodes heard).
    allocate(AllocateRequest) -> AllocateResponse;
    /// Keeps unnamed chunks from being collected.
    renew(RenewRequest) -> RenewResponse;
    /// Makes an upload visible. Errors: `precondition-failed`, `conflict`, `stale`.
    commit(CommitRequest) -> CommitResponse;
    /// A file and where its chunks are. Errors: `not-found`.
    locate(LocateRequest) -> LocateResponse;
    /// One page of names.
    list(ListRequest) -> ListResponse;
    /// Deletes a file. Errors: `not-found`, `precondition-failed`.
    delete(DeleteRequest) -> DeleteResponse;
    /// Copies or moves. Errors: `not-found`, `conflict`, `precondition-failed`.
    transfer(TransferRequest) -> TransferResponse;
    /// Sets the replication factor of a page of files, or looks how far it is reached. Errors:
    /// `not-found`, `precondition-failed`, `invalid-parameter`.
    factor(FactorRequest) -> FactorPage;
    /// A reader found a replica wanting: the tracker lets it be verified.
    suspect(SuspectReplica) -> Nothing;
    /// How the store is.
    status(Nothing) -> ClusterStatus;
    /// Its datanodes.
    datanodes(Nothing) -> Vec<DatanodeStatus>;
    /// The replicas of a file. Errors: `not-found`.
    chunks(FileRequest) -> FileChunks;
    /// The next lines of an fsck.
    fsck(FsckRequest) -> FsckPage;
    /// One page of the trash.
    trash(TrashRequest) -> TrashPage;
    /// Brings a version back. Errors: `not-found`, `conflict`.
    restore(RestoreRequest) -> FileRecord;
    /// Deletes a version in the trash for good. Errors: `not-found`.
    purge(PurgeRequest) -> Nothing;
    /// Changes an admin state. Errors: `not-found`, `conflict`.
    set_admin(SetAdminRequest) -> DatanodeStatus;
    /// May this datanode go for ever?
    safe_to_remove(DatanodeRequest) -> Verdict;
    /// May these datanodes stop for a while, all together?
    ok_to_stop(OkToStopRequest) -> Verdict;
    /// Ends the hold that a partition put on repair: the silent datanodes are really gone.
    acknowledge_partition(Nothing) -> Nothing;
}

/// The tracker over HTTP. Cloning shares the connection pool.
#[derive(Debug, Clone)]
pub struct HttpTracker {
    http: HttpClient,
    address: String,
}

impl HttpTracker {
    /// The tracker at `host:port`.
    pub fn new(http: HttpClient, address: impl Into<String>) -> Self {
        Self {
            http,
            address: address.into(),
        }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A datanode announces itself. Errors: `wrong-cluster`, `conflict` (uuid in use elsewhere).
    pub async fn register(
        &self,
        request: &RegisterRequest,
    ) -> Result<RegisterResponse, ClientError> {
        let path = routes::tracker::REGISTER;
        self.http
            .call(&self.address, path, &[], request, HEARTBEAT_TIMEOUT)
            .await
    }

    /// A datanode is alive, and tells what it moved where it counts that. Errors: `not-found`
    /// (register first), `wrong-cluster`, `conflict`.
    pub async fn heartbeat(
        &self,
        request: &Heartbeat,
        traffic: Option<&DatanodeTraffic>,
    ) -> Result<(HeartbeatReply, Option<RepairTerms>), ClientError> {
        let path = routes::tracker::HEARTBEAT;
        let traffic = traffic.map(serde_json::to_string).transpose();
        let traffic = traffic.map_err(|error| malformed(&self.address, &error))?;
        let headers: Vec<_> = traffic
            .map(|json| (routes::TRAFFIC_HEADER, json))
            .into_iter()
            .collect();
        let response = self
            .http
            .post(&self.address, path, &headers, request, HEARTBEAT_TIMEOUT)
            .await?;
        self.reply(response, HEARTBEAT_TIMEOUT).await
    }

    /// A datanode's full chunk set, encoded with postcard by the caller
    /// ([`dfs_protocol::datanode::ChunkReport`]'s wire form).
    pub async fn chunk_report(
        &self,
        encoded: Vec<u8>,
    ) -> Result<(HeartbeatReply, Option<RepairTerms>), ClientError> {
        let request = Request::post(uri(&self.address, routes::tracker::CHUNK_REPORT)?)
            .header(CONTENT_TYPE, "application/octet-stream")
            .body(whole(encoded))
            .map_err(|error| malformed(&self.address, &error))?;
        let response = self
            .http
            .send(&self.address, request, DEFAULT_TIMEOUT)
            .await?;
        self.reply(response, DEFAULT_TIMEOUT).await
    }

    /// An answer with the terms of repair; a tracker of an earlier version says none.
    async fn reply(
        &self,
        response: Response<Incoming>,
        timeout: Duration,
    ) -> Result<(HeartbeatReply, Option<RepairTerms>), ClientError> {
        let terms = response.headers().get(routes::REPAIR_HEADER);
        let terms = terms.and_then(|json| serde_json::from_slice(json.as_bytes()).ok());
        let body = read_whole(&self.address, response, timeout).await?;
        Ok((decode(&self.address, &body)?, terms))
    }

    async fn call<Req: serde::Serialize, Resp: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        request: &Req,
    ) -> Result<Resp, ClientError> {
        let path = format!("{}{name}", routes::tracker::CALL_PREFIX);
        self.http
            .call(&self.address, &path, &[], request, DEFAULT_TIMEOUT)
            .await
    }
}
