//! What the store says of itself, and administration.

use std::time::Duration;

use dfs_client::ClientError;
use dfs_client::http::{DEFAULT_TIMEOUT, empty, uri};
use dfs_protocol::admission::LostRequest;
use dfs_protocol::plan::{PlanAnswer, PlanQuestion, Proof};
use dfs_protocol::routes::tracker;
use dfs_protocol::status::{ClusterStatus, DatanodeStatus, FileChunks, OkToStopRequest, Verdict};
use dfs_protocol::traffic::HotFiles;
use dfs_protocol::{DatanodeId, FilePath, TrashId};
use http::{Method, Request};
use hyper::body::Incoming;

use super::answers::TrashList;
use super::{Store, parameter};

/// The tracker's story.
const EVENTS: &str = "/events";

impl Store {
    /// `GET /status`.
    pub async fn status(&self) -> Result<ClusterStatus, ClientError> {
        self.http.get(&self.address, tracker::STATUS, &[]).await
    }

    /// `GET /nodes`.
    pub async fn nodes(&self) -> Result<Vec<DatanodeStatus>, ClientError> {
        self.http.get(&self.address, tracker::NODES, &[]).await
    }

    /// `GET /hot`.
    pub async fn hot(&self) -> Result<HotFiles, ClientError> {
        self.http.get(&self.address, tracker::HOT, &[]).await
    }

    /// `GET /chunks?file=PATH`.
    pub async fn chunks(&self, path: &FilePath) -> Result<FileChunks, ClientError> {
        let route = format!("{}?file={}", tracker::CHUNKS, parameter(path.as_str()));
        self.http.get(&self.address, &route, &[]).await
    }

    /// `GET /fsck`: one JSON document a line, the last one is the verdict.
    pub async fn fsck(&self) -> Result<Incoming, ClientError> {
        self.stream(tracker::FSCK).await
    }

    /// `POST /nodes/ID/decommission` or `/recommission`.
    pub async fn set_node(&self, id: DatanodeId, verb: &str) -> Result<(), ClientError> {
        let route = format!("{}/{id}/{verb}", tracker::NODES);
        self.fetch(Method::POST, &route).await
    }

    /// `POST /nodes/ID/maintenance?seconds=`, or its end (`DELETE`).
    pub async fn maintain(
        &self,
        id: DatanodeId,
        away: Option<Duration>,
    ) -> Result<(), ClientError> {
        let route = tracker::MAINTENANCE.replace("{id}", &id.to_string());
        match away {
            Some(away) => {
                let route = format!("{route}?seconds={}", away.as_secs());
                self.fetch(Method::POST, &route).await
            }
            None => self.fetch(Method::DELETE, &route).await,
        }
    }

    /// `GET /nodes/ID/safe-to-remove`.
    pub async fn safe_to_remove(&self, id: DatanodeId) -> Result<Verdict, ClientError> {
        let route = format!("{}/{id}/safe-to-remove", tracker::NODES);
        self.http.get(&self.address, &route, &[]).await
    }

    /// `POST /ok-to-stop`: whether these may stop, all together.
    pub async fn ok_to_stop(&self, datanodes: &[DatanodeId]) -> Result<Verdict, ClientError> {
        let request = OkToStopRequest {
            datanodes: datanodes.to_vec(),
            one_more: false,
        };
        self.http
            .call(
                &self.address,
                tracker::OK_TO_STOP,
                &[],
                &request,
                DEFAULT_TIMEOUT,
            )
            .await
    }

    /// `GET /plan`.
    pub async fn plan(&self, question: &PlanQuestion) -> Result<PlanAnswer, ClientError> {
        let query = match question {
            PlanQuestion::Lose(names) => format!("lose={}", parameter(&names.join(","))),
            PlanQuestion::Scale(datanodes) => format!("scale={datanodes}"),
        };
        let route = format!("{}?{query}", tracker::PLAN);
        self.http.get(&self.address, &route, &[]).await
    }

    /// `GET /nodes/NAME/proof`.
    pub async fn proof(&self, name: &str) -> Result<Proof, ClientError> {
        let route = tracker::PROOF.replace("{id}", &parameter(name));
        self.http.get(&self.address, &route, &[]).await
    }

    /// `POST /nodes/ID/lost`.
    pub async fn lose(&self, id: DatanodeId, accept_loss: bool) -> Result<(), ClientError> {
        let route = format!("{}/{id}/lost", tracker::NODES);
        let request = LostRequest { accept_loss };
        let _gone: serde_json::Value = self
            .http
            .call(&self.address, &route, &[], &request, DEFAULT_TIMEOUT)
            .await?;
        Ok(())
    }

    /// One page of `GET /trash`.
    pub async fn trash(&self, cursor: Option<&str>) -> Result<TrashList, ClientError> {
        let mut route = format!("{}?limit=1000", tracker::TRASH);
        if let Some(cursor) = cursor {
            route.push_str("&cursor=");
            route.push_str(&parameter(cursor));
        }
        self.http.get(&self.address, &route, &[]).await
    }

    /// `POST /trash/ID/restore`.
    pub async fn restore(&self, id: TrashId, to: Option<&FilePath>) -> Result<(), ClientError> {
        let mut route = format!("{}/{id}/restore", tracker::TRASH);
        if let Some(to) = to {
            route.push_str("?to=");
            route.push_str(&parameter(to.as_str()));
        }
        self.fetch(Method::POST, &route).await
    }

    /// `DELETE /trash/ID`.
    pub async fn purge(&self, id: TrashId) -> Result<(), ClientError> {
        self.fetch(Method::DELETE, &format!("{}/{id}", tracker::TRASH))
            .await
    }

    /// `GET /events?format=json`: what the tracker remembers, after `since` where given.
    pub async fn events(&self, since: Option<u64>) -> Result<Vec<serde_json::Value>, ClientError> {
        let since = since.map_or_else(String::new, |id| format!("&since={id}"));
        let route = format!("{EVENTS}?format=json{since}");
        self.http.get(&self.address, &route, &[]).await
    }

    /// `GET /events`: a stream of server-sent events that has no end of its own.
    pub async fn follow_events(&self, since: Option<u64>) -> Result<Incoming, ClientError> {
        let since = since.map_or_else(String::new, |id| format!("?since={id}"));
        self.stream(&format!("{EVENTS}{since}")).await
    }

    async fn stream(&self, route: &str) -> Result<Incoming, ClientError> {
        let request = Request::get(uri(&self.address, route)?)
            .body(empty())
            .map_err(|error| ClientError::Malformed {
                address: self.address.clone(),
                detail: error.to_string(),
            })?;
        let response = self
            .http
            .send(&self.address, request, DEFAULT_TIMEOUT)
            .await?;
        Ok(response.into_body())
    }

    async fn fetch(&self, method: Method, route: &str) -> Result<(), ClientError> {
        self.http
            .fetch(method, &self.address, route, &[], DEFAULT_TIMEOUT)
            .await?;
        Ok(())
    }
}
