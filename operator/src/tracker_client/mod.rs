//! The tracker as the operator sees it: a trait, so that tests bring their own, and one
//! implementation over HTTP. Whatever cannot be read is an error, and an error means "hold".

mod wire;

use std::fmt;

use async_trait::async_trait;
use dfs_client::http::{DEFAULT_TIMEOUT, decode, read_whole, uri, whole};
use dfs_client::{ClientError, HttpClient};
use dfs_protocol::DatanodeId;
use dfs_protocol::problem::PROBLEM_TYPE_PREFIX;
use dfs_protocol::status::OkToStopRequest;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

pub use wire::{
    Admission, Bytes, Catalog, CatalogState, Counts, DatanodeEntry, Refusal, Repair, Spread,
    TrackerStatus, Verdict, VolumeStats,
};

/// How long one call may take: a tracker that is slower than this is not readable.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster token; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The first line of a token file: the one that is sent.
    pub fn first_of(file: &str) -> Option<Self> {
        let mut lines = file.lines().map(str::trim);
        lines
            .find(|line| !line.is_empty())
            .map(|line| Self(line.to_owned()))
    }

    /// The text, for the header.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Where a cluster's tracker listens, and what opens its door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    /// The cluster's token.
    pub token: Token,
}

/// A call that failed, by what the operator can do about it.
#[derive(Debug, thiserror::Error)]
pub enum TrackerError {
    /// No answer: wait.
    #[error("the tracker cannot be read: {0}")]
    Unreadable(String),
    /// The catalog is lost or being rebuilt: `GET /catalog` says more.
    #[error("the tracker has no catalog: {0}")]
    NoCatalog(String),
    /// The token is not the tracker's.
    #[error("the tracker does not know this cluster's token: {0}")]
    Unauthorized(String),
    /// The tracker says no: the state has changed since it was read.
    #[error("the tracker refuses: {0}")]
    Refused(String),
}

impl From<ClientError> for TrackerError {
    fn from(error: ClientError) -> Self {
        let ClientError::Refused(problem) = &error else {
            return Self::Unreadable(error.to_string());
        };
        let label = problem.kind.strip_prefix(PROBLEM_TYPE_PREFIX);
        match (label, problem.status) {
            (Some("catalog-lost"), _) => Self::NoCatalog(problem.detail.clone()),
            (_, 401 | 403) => Self::Unauthorized(problem.detail.clone()),
            (_, 400..=499) => Self::Refused(problem.to_string()),
            _ => Self::Unreadable(error.to_string()),
        }
    }
}

/// What the operator asks and tells a tracker.
#[async_trait]
pub trait Tracker: fmt::Debug + Send + Sync + 'static {
    /// How the store is.
    async fn status(&self, at: &Endpoint) -> Result<TrackerStatus, TrackerError>;
    /// Its datanodes, pending ones included.
    async fn nodes(&self, at: &Endpoint) -> Result<Vec<DatanodeEntry>, TrackerError>;
    /// Refused registrations.
    async fn refusals(&self, at: &Endpoint) -> Result<Vec<Refusal>, TrackerError>;
    /// State of the catalog.
    async fn catalog(&self, at: &Endpoint) -> Result<Catalog, TrackerError>;
    /// Whether every chunk has its full factor without this datanode.
    async fn safe_to_remove(&self, at: &Endpoint, id: DatanodeId) -> Result<Verdict, TrackerError>;
    /// Whether these datanodes may stop for a while, all together, and with `one_more` any further one besides.
    async fn ok_to_stop(
        &self,
        at: &Endpoint,
        ids: &[DatanodeId],
        one_more: bool,
    ) -> Result<Verdict, TrackerError>;
    /// Announces that a datanode will be away for at most that long: nothing is copied meanwhile.
    async fn maintain(
        &self,
        at: &Endpoint,
        id: DatanodeId,
        at_most: Duration,
    ) -> Result<(), TrackerError>;
    /// Says that a datanode is back from where it was announced to be, or, when it is not heard, that it is waited for no
    /// longer.
    async fn end_maintenance(&self, at: &Endpoint, id: DatanodeId) -> Result<(), TrackerError>;
    /// Begins to empty a datanode.
    async fn decommission(&self, at: &Endpoint, id: DatanodeId) -> Result<(), TrackerError>;
    /// Takes that back.
    async fn recommission(&self, at: &Endpoint, id: DatanodeId) -> Result<(), TrackerError>;
    /// Deregisters an emptied datanode for ever; the tracker asks itself once more whether it may.
    async fn deregister(&self, at: &Endpoint, id: DatanodeId) -> Result<(), TrackerError>;
    /// Admits a pending datanode, or changes where an admitted one is.
    async fn admit(
        &self,
        at: &Endpoint,
        id: DatanodeId,
        admission: &Admission,
    ) -> Result<(), TrackerError>;
    /// Tells a pending datanode no.
    async fn refuse(&self, at: &Endpoint, id: DatanodeId, reason: &str)
    -> Result<(), TrackerError>;
    /// Declares a dead datanode lost for ever; never accepts the loss of a chunk.
    async fn lost(&self, at: &Endpoint, id: DatanodeId) -> Result<(), TrackerError>;
    /// Starts to rebuild a lost catalog from these datanodes; never accepts a gap.
    async fn rebuild(&self, at: &Endpoint, datanodes: &[String]) -> Result<(), TrackerError>;
}

/// The tracker over HTTP.
#[derive(Debug, Clone)]
pub struct HttpTrackerClient {
    http: HttpClient,
}

impl HttpTrackerClient {
    /// A client over a pool of connections.
    pub const fn new(http: HttpClient) -> Self {
        Self { http }
    }

    async fn get<T: DeserializeOwned>(&self, at: &Endpoint, path: &str) -> Result<T, TrackerError> {
        let bearer = bearer(at);
        let headers = [("authorization", bearer)];
        let bytes = self
            .http
            .fetch(Method::GET, &at.address, path, &headers, CALL_TIMEOUT)
            .await?;
        Ok(decode(&at.address, &bytes)?)
    }

    /// A call without a body, whose answer is read to its end and forgotten.
    async fn tell(&self, method: Method, at: &Endpoint, path: &str) -> Result<(), TrackerError> {
        let headers = [("authorization", bearer(at))];
        let address = &at.address;
        self.http
            .fetch(method, address, path, &headers, CALL_TIMEOUT)
            .await?;
        Ok(())
    }

    /// POSTs JSON; whatever a successful answer holds is read to its end.
    async fn post(
        &self,
        at: &Endpoint,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<bytes::Bytes, TrackerError> {
        let malformed = |detail: String| TrackerError::Unreadable(detail);
        let json = serde_json::to_vec(body).map_err(|error| malformed(error.to_string()))?;
        let request = Request::post(uri(&at.address, path)?)
            .header(CONTENT_TYPE, "application/json")
            .header(AUTHORIZATION, bearer(at))
            .body(whole(json))
            .map_err(|error| malformed(error.to_string()))?;
        let response = self.http.send(&at.address, request, CALL_TIMEOUT).await?;
        Ok(read_whole(&at.address, response, DEFAULT_TIMEOUT).await?)
    }
}

fn bearer(at: &Endpoint) -> String {
    format!("Bearer {}", at.token.expose())
}

#[async_trait]
impl Tracker for HttpTrackerClient {
    async fn status(&self, at: &Endpoint) -> Result<TrackerStatus, TrackerError> {
        self.get(at, "/status").await
    }

    async fn nodes(&self, at: &Endpoint) -> Result<Vec<DatanodeEntry>, TrackerError> {
        self.get(at, "/nodes").await
    }

    async fn refusals(&self, at: &Endpoint) -> Result<Vec<Refusal>, TrackerError> {
        self.get(at, "/refusals").await
    }

    async fn catalog(&self, at: &Endpoint) -> Result<Catalog, TrackerError> {
        self.get(at, "/catalog").await
    }

    async fn safe_to_remove(&self, at: &Endpoint, id: DatanodeId) -> Result<Verdict, TrackerError> {
        self.get(at, &format!("/nodes/{id}/safe-to-remove")).await
    }

    async fn ok_to_stop(
        &self,
        at: &Endpoint,
        ids: &[DatanodeId],
        one_more: bool,
    ) -> Result<Verdict, TrackerError> {
        let body = OkToStopRequest {
            datanodes: ids.to_vec(),
            one_more,
        };
        let answer = self.post(at, "/ok-to-stop", &body).await?;
        Ok(decode(&at.address, &answer)?)
    }

    async fn maintain(
        &self,
        at: &Endpoint,
        id: DatanodeId,
        at_most: Duration,
    ) -> Result<(), TrackerError> {
        let seconds = at_most.as_secs();
        self.tell(
            Method::POST,
            at,
            &format!("/nodes/{id}/maintenance?seconds={seconds}"),
        )
        .await
    }

    async fn end_maintenance(&self, at: &Endpoint, id: DatanodeId) -> Result<(), TrackerError> {
        self.tell(Method::DELETE, at, &format!("/nodes/{id}/maintenance"))
            .await
    }

    async fn decommission(&self, at: &Endpoint, id: DatanodeId) -> Result<(), TrackerError> {
        self.tell(Method::POST, at, &format!("/nodes/{id}/decommission"))
            .await
    }

    async fn recommission(&self, at: &Endpoint, id: DatanodeId) -> Result<(), TrackerError> {
        self.tell(Method::POST, at, &format!("/nodes/{id}/recommission"))
            .await
    }

    async fn deregister(&self, at: &Endpoint, id: DatanodeId) -> Result<(), TrackerError> {
        self.tell(Method::DELETE, at, &format!("/nodes/{id}")).await
    }

    async fn admit(
        &self,
        at: &Endpoint,
        id: DatanodeId,
        admission: &Admission,
    ) -> Result<(), TrackerError> {
        let path = format!("/nodes/{id}/admit");
        self.post(at, &path, admission).await.map(drop)
    }

    async fn refuse(
        &self,
        at: &Endpoint,
        id: DatanodeId,
        reason: &str,
    ) -> Result<(), TrackerError> {
        let body = wire::RefuseBody { reason };
        let path = format!("/nodes/{id}/refuse");
        self.post(at, &path, &body).await.map(drop)
    }

    async fn lost(&self, at: &Endpoint, id: DatanodeId) -> Result<(), TrackerError> {
        let body = wire::LostBody { accept_loss: false };
        let path = format!("/nodes/{id}/lost");
        self.post(at, &path, &body).await.map(drop)
    }

    async fn rebuild(&self, at: &Endpoint, datanodes: &[String]) -> Result<(), TrackerError> {
        let body = wire::RebuildBody {
            datanodes,
            allow_gap: false,
        };
        self.post(at, "/catalog/rebuild", &body).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
