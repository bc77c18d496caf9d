//! Extractors whose refusals are problems.

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use dfs_protocol::problem::{ErrorCode, Problem};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::{ProblemResponse, body_problem};

/// Bytes of a JSON body that [`ApiJson`] reads unless told otherwise.
pub const DEFAULT_JSON_LIMIT: usize = 1024 * 1024;

/// A JSON body of at most `LIMIT` bytes. `T` should deny unknown fields; nesting deeper than 128
/// is refused by the parser. The content type must say JSON: a web page cannot send that across
/// origins without asking first, so forms on other sites cannot reach these routes.
#[derive(Debug, Clone, Copy)]
pub struct ApiJson<T, const LIMIT: usize = DEFAULT_JSON_LIMIT>(pub T);

impl<T, S, const LIMIT: usize> FromRequest<S> for ApiJson<T, LIMIT>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ProblemResponse;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Self::Rejection> {
        let (parts, body) = request.into_parts();
        if !says_json(&parts) {
            return Err(
                Problem::new(ErrorCode::InvalidJson, "the content type is not JSON")
                    .next("send `Content-Type: application/json`")
                    .into(),
            );
        }
        let bytes = read(&parts, body, LIMIT).await?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| ProblemResponse::new(ErrorCode::InvalidJson, error.to_string()))
    }
}

fn says_json(parts: &Parts) -> bool {
    let value = parts.headers.get(CONTENT_TYPE);
    let media = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = media.split(';').next().unwrap_or("").trim();
    media.eq_ignore_ascii_case("application/json") || media.to_ascii_lowercase().ends_with("+json")
}

/// The whole body, refused before it is read when its announced length is over the limit.
async fn read(parts: &Parts, body: Body, limit: usize) -> Result<bytes::Bytes, ProblemResponse> {
    let too_large = || {
        Problem::new(
            ErrorCode::TooLarge,
            format!("the body may hold {limit} bytes at most"),
        )
    };
    let announced = parts.headers.get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large().into());
    }
    let collected = Limited::new(body, limit).collect().await;
    let collected = collected.map_err(|error| {
        if error.is::<LengthLimitError>() {
            too_large()
        } else {
            body_problem(&*error)
        }
    })?;
    Ok(collected.to_bytes())
}

/// Query parameters; a problem of code `invalid-parameter` when they do not fit.
#[derive(Debug, Clone, Copy)]
pub struct ApiQuery<T>(pub T);

impl<T, S> FromRequestParts<S> for ApiQuery<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query
            .map(|Query(value)| Self(value))
            .map_err(|error| ProblemResponse::new(ErrorCode::InvalidParameter, error.body_text()))
    }
}

/// Path parameters; a problem of code `invalid-parameter` when they do not fit.
#[derive(Debug, Clone, Copy)]
pub struct ApiPath<T>(pub T);

impl<T, S> FromRequestParts<S> for ApiPath<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(value)| Self(value))
            .map_err(|error| ProblemResponse::new(ErrorCode::InvalidParameter, error.body_text()))
    }
}
