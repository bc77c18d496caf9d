//! Files: upload, download, list, delete, copy, move.

use std::time::Duration;

use dfs_client::ClientError;
use dfs_client::http::{DEFAULT_TIMEOUT, RequestBody, decode, empty, read_whole, uri};
use dfs_protocol::factor::FactorChange;
use dfs_protocol::upload::TransferMode;
use dfs_protocol::{FilePath, PathPrefix, VersionId};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderValue, Method, Request, request};

use super::answers::{
    CRC64_HEADER, Download, FactorAnswer, FileHead, ListPage, PutAnswer, write_crc64,
};
use super::{Store, file_route, parameter, prefix_route};

/// Requests with a body are bounded by a watch on their progress, not by their length.
const UPLOAD_TIMEOUT: Duration = Duration::from_hours(7 * 24);
/// A commit may have to wait for copies.
const CHANGE_TIMEOUT: Duration = Duration::from_mins(2);
/// Entries asked for at once.
const PAGE: u32 = 1000;

/// What must be true of a path for a change to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileGuard {
    /// Nothing.
    #[default]
    None,
    /// Nothing lives there.
    Absent,
    /// This version lives there.
    Version(VersionId),
}

impl FileGuard {
    fn apply(self, request: request::Builder) -> request::Builder {
        match self {
            Self::None => request,
            Self::Absent => request.header(IF_NONE_MATCH, HeaderValue::from_static("*")),
            Self::Version(version) => request.header(IF_MATCH, format!("\"{version}\"")),
        }
    }
}

/// Bytes on their way.
#[derive(Debug)]
pub struct Upload {
    /// The bytes.
    pub body: RequestBody,
    /// How many, where known.
    pub length: Option<u64>,
    /// Their CRC64-NVME, where known beforehand: the server refuses other bytes.
    pub crc64nvme: Option<u64>,
    /// Media type, where given.
    pub content_type: Option<String>,
    /// What must be true of the path.
    pub guard: FileGuard,
}

impl Store {
    /// `PUT /files/PATH`.
    pub async fn put(&self, path: &FilePath, upload: Upload) -> Result<PutAnswer, ClientError> {
        let Upload {
            body,
            length,
            crc64nvme,
            content_type,
            guard,
        } = upload;
        let mut request = guard.apply(Request::put(uri(&self.address, &file_route(path))?));
        if let Some(length) = length {
            request = request.header(CONTENT_LENGTH, length);
        }
        if let Some(crc) = crc64nvme {
            request = request.header(CRC64_HEADER, write_crc64(crc));
        }
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = self.finish(request, body)?;
        let response = self
            .http
            .send(&self.address, request, UPLOAD_TIMEOUT)
            .await?;
        let bytes = read_whole(&self.address, response, DEFAULT_TIMEOUT).await?;
        decode(&self.address, &bytes)
    }

    /// `GET /files/PATH`, from `resume.0` on if the version is still `resume.1`, the whole file
    /// otherwise.
    pub async fn get(
        &self,
        path: &FilePath,
        resume: Option<(u64, &str)>,
    ) -> Result<Download, ClientError> {
        let mut request = Request::get(uri(&self.address, &file_route(path))?);
        if let Some((offset, etag)) = resume {
            request = request
                .header(RANGE, format!("bytes={offset}-"))
                .header(IF_RANGE, format!("\"{etag}\""));
        }
        let request = self.finish(request, empty())?;
        let response = self
            .http
            .send(&self.address, request, DEFAULT_TIMEOUT)
            .await?;
        Ok(Download::read(path.as_str(), response))
    }

    /// `HEAD /files/PATH`.
    pub async fn head(&self, path: &FilePath) -> Result<FileHead, ClientError> {
        let request = Request::head(uri(&self.address, &file_route(path))?);
        let request = self.finish(request, empty())?;
        let response = self
            .http
            .send(&self.address, request, DEFAULT_TIMEOUT)
            .await?;
        Ok(FileHead::read(path.as_str(), response.headers()))
    }

    /// One page of `GET /files/PREFIX?list`.
    pub async fn list(
        &self,
        prefix: &PathPrefix,
        recursive: bool,
        cursor: Option<&str>,
    ) -> Result<ListPage, ClientError> {
        let mut route = format!("{}?list&limit={PAGE}", prefix_route(prefix));
        if !recursive {
            route.push_str("&delimiter=%2F");
        }
        if let Some(cursor) = cursor {
            route.push_str("&cursor=");
            route.push_str(&parameter(cursor));
        }
        self.http.get(&self.address, &route, &[]).await
    }

    /// `DELETE /files/PATH`.
    pub async fn delete(&self, path: &FilePath, guard: FileGuard) -> Result<(), ClientError> {
        let request = guard.apply(Request::delete(uri(&self.address, &file_route(path))?));
        self.change(self.finish(request, empty())?).await
    }

    /// `POST /files/TO?copy-from=FROM` or `?move-from=`: two files, or two directories (moves
    /// only).
    pub async fn transfer(
        &self,
        mode: TransferMode,
        from: &PathPrefix,
        to: &PathPrefix,
        guard: FileGuard,
    ) -> Result<(), ClientError> {
        let verb = match mode {
            TransferMode::Copy => "copy-from",
            TransferMode::Move => "move-from",
        };
        let route = format!("{}?{verb}={}", prefix_route(to), parameter(from.as_str()));
        let request = guard.apply(Request::builder().method(Method::POST));
        let request = request.uri(uri(&self.address, &route)?);
        self.change(self.finish(request, empty())?).await
    }

    /// `POST /files/PATH?factor=N`, or `GET` with `?factor` to look only. A directory (a slash at the
    /// end) may take several requests: the answer's cursor goes on.
    pub async fn factor(
        &self,
        path: &PathPrefix,
        change: Option<FactorChange>,
        cursor: Option<&str>,
        guard: FileGuard,
    ) -> Result<FactorAnswer, ClientError> {
        let value = match change {
            None => String::new(),
            Some(FactorChange::Cluster) => "=default".to_owned(),
            Some(FactorChange::Own(factor)) => format!("={factor}"),
        };
        let mut route = format!("{}?factor{value}", prefix_route(path));
        if let Some(cursor) = cursor {
            route.push_str("&cursor=");
            route.push_str(&parameter(cursor));
        }
        if change.is_none() {
            return self.http.get(&self.address, &route, &[]).await;
        }
        let request = guard.apply(Request::builder().method(Method::POST));
        let request = self.finish(request.uri(uri(&self.address, &route)?), empty())?;
        let response = self
            .http
            .send(&self.address, request, CHANGE_TIMEOUT)
            .await?;
        let bytes = read_whole(&self.address, response, DEFAULT_TIMEOUT).await?;
        decode(&self.address, &bytes)
    }

    async fn change(&self, request: Request<RequestBody>) -> Result<(), ClientError> {
        let response = self
            .http
            .send(&self.address, request, CHANGE_TIMEOUT)
            .await?;
        read_whole(&self.address, response, DEFAULT_TIMEOUT).await?;
        Ok(())
    }

    fn finish(
        &self,
        request: request::Builder,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, ClientError> {
        request.body(body).map_err(|error| ClientError::Malformed {
            address: self.address.clone(),
            detail: error.to_string(),
        })
    }
}
