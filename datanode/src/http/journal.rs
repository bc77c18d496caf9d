//! `POST /journal` appends one record, `GET /journal?from=` reads a page; `/journal/backfill` for a member that
//! lacks many.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use dfs_protocol::checksum::crc32c;
use dfs_protocol::datanode::{JournalAppend, JournalBackfill, JournalGap, decode_backfill};
use dfs_protocol::{Epoch, ErrorCode, Fence, Incarnation, Problem};
use dfs_runtime::problem::{ApiQuery, ProblemResponse, body_problem};
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use super::{Ctx, binary};
use crate::journal::format::MAX_PAYLOAD;

/// Appends; answered after fsync.
pub async fn append(
    State(ctx): Ctx,
    ApiQuery(append): ApiQuery<JournalAppend>,
    body: Body,
) -> Result<StatusCode, ProblemResponse> {
    let cluster = ctx.admitted()?;
    let body = Limited::new(body, MAX_PAYLOAD).collect().await;
    let payload = body.map_err(|error| body_problem(&*error))?.to_bytes();
    let appended = ctx
        .blocking(move |ctx| {
            let stop = ctx.store.fail_stop();
            ctx.journal
                .append(&ctx.volume, cluster, &append, &payload, stop)
        })
        .await?;
    appended.map_err(|error| ctx.journal_problem(&error))?;
    ctx.metrics.journal_records.inc();
    Ok(StatusCode::NO_CONTENT)
}

/// Bytes of a backfill beyond its longest payload.
const BACKFILL_SLACK: usize = 8 * 1024 * 1024;

/// Appends what this datanode lacks; answered after fsync.
pub async fn backfill(
    State(ctx): Ctx,
    ApiQuery(backfill): ApiQuery<JournalBackfill>,
    body: Body,
) -> Result<StatusCode, ProblemResponse> {
    let cluster = ctx.admitted()?;
    let body = Limited::new(body, MAX_PAYLOAD + BACKFILL_SLACK)
        .collect()
        .await;
    let body = body.map_err(|error| body_problem(&*error))?.to_bytes();
    let malformed = |detail: &str| ProblemResponse(Problem::new(ErrorCode::BadRequest, detail));
    if crc32c(&body) != backfill.crc32c {
        return Err(malformed("the records do not match their checksum"));
    }
    let fence = Fence {
        epoch: Epoch(backfill.epoch),
        incarnation: Incarnation(backfill.incarnation),
    };
    let appended = ctx
        .blocking(move |ctx| {
            let records = decode_backfill(&body)?;
            let stop = ctx.store.fail_stop();
            let (volume, count) = (&ctx.volume, records.len());
            let appended = ctx
                .journal
                .append_all(volume, cluster, fence, &records, stop);
            Some(appended.map(|()| count as u64))
        })
        .await?;
    let appended = appended.ok_or_else(|| malformed("the body is no sequence of records"))?;
    let count = appended.map_err(|error| ctx.journal_problem(&error))?;
    ctx.metrics.journal_records.inc_by(count);
    Ok(StatusCode::NO_CONTENT)
}

/// Where the search for a hole begins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GapQuery {
    from: u64,
}

/// Where the journal ends or has a hole.
pub async fn gap(
    State(ctx): Ctx,
    ApiQuery(query): ApiQuery<GapQuery>,
) -> Result<Json<JournalGap>, ProblemResponse> {
    let first_missing = ctx
        .blocking(move |ctx| ctx.journal.first_missing(query.from))
        .await?;
    Ok(Json(JournalGap { first_missing }))
}

/// Where a page begins.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    from: u64,
    /// Go on over what damage took, as a rebuild does that reads other journals too.
    #[serde(default)]
    past_damage: bool,
}

/// Records from a sequence on: each a postcard value after its length as u32 little-endian.
pub async fn page(
    State(ctx): Ctx,
    ApiQuery(query): ApiQuery<PageQuery>,
) -> Result<Response, ProblemResponse> {
    let page = ctx
        .blocking(move |ctx| ctx.journal.page(query.from, query.past_damage))
        .await?;
    let records = page.map_err(|error| ctx.journal_problem(&error))?;
    let mut bytes = Vec::new();
    for record in &records {
        let encoded = postcard::to_stdvec(record)
            .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
        let length = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&encoded);
    }
    Ok(binary(bytes))
}
