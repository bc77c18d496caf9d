//! `POST /journal` appends one record, `GET /journal?from=` reads a page; `/journal/backfill` for a member that
//! lacks many.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::Response;
use dfs_protocol::backfill::{BackfillError, MAX_RECORDS, RECORD_HEAD_LEN, decode};
use dfs_protocol::checksum::crc32c;
use dfs_protocol::datanode::{JournalAppend, JournalBackfill, JournalGap};
use dfs_protocol::{Epoch, ErrorCode, Fence, Incarnation, Problem};
use dfs_runtime::problem::{ApiQuery, ProblemResponse, body_problem};
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;

use super::{Ctx, binary};
use crate::context::Context;
use crate::journal::JournalError;
use crate::journal::format::MAX_PAYLOAD;

/// Appends; answered after fsync.
pub async fn append(
    State(ctx): Ctx,
    ApiQuery(append): ApiQuery<JournalAppend>,
    body: Body,
) -> Result<StatusCode, ProblemResponse> {
    let cluster = ctx.admitted()?;
    let payload = limited(&ctx, body, MAX_PAYLOAD).await?;
    let appended = ctx
        .blocking(move |ctx| {
            let stop = ctx.store.fail_stop();
            ctx.journal
                .append(&ctx.volume, cluster, &append, &payload, stop)
        })
        .await?;
    appended.map_err(|error| refused(&ctx, ctx.journal_problem(&error)))?;
    ctx.metrics.journal_records.inc();
    Ok(StatusCode::NO_CONTENT)
}

/// Bytes of a backfill: one record may be as long as any.
const BACKFILL_BYTES: usize = MAX_PAYLOAD + MAX_RECORDS * RECORD_HEAD_LEN;

/// Appends what this datanode lacks; answered after fsync.
pub async fn backfill(
    State(ctx): Ctx,
    ApiQuery(backfill): ApiQuery<JournalBackfill>,
    body: Body,
) -> Result<StatusCode, ProblemResponse> {
    let cluster = ctx.admitted()?;
    let body = limited(&ctx, body, BACKFILL_BYTES).await?;
    let fence = Fence {
        epoch: Epoch(backfill.epoch),
        incarnation: Incarnation(backfill.incarnation),
    };
    let appended = ctx
        .blocking(move |ctx| {
            if crc32c(&body) != backfill.crc32c {
                return Err(ctx.journal_problem(&JournalError::Digest));
            }
            let records = decode(&body).map_err(backfill_problem)?;
            let stop = ctx.store.fail_stop();
            let (volume, journal) = (&ctx.volume, &ctx.journal);
            let appended = journal.append_all(volume, cluster, fence, &records, stop);
            appended.map_err(|error| ctx.journal_problem(&error))?;
            Ok(records.len() as u64)
        })
        .await?;
    let count = appended.map_err(|problem| refused(&ctx, problem))?;
    ctx.metrics.journal_records.inc_by(count);
    Ok(StatusCode::NO_CONTENT)
}

fn backfill_problem(error: BackfillError) -> Problem {
    let code = match error {
        BackfillError::TooMany => ErrorCode::TooLarge,
        BackfillError::Truncated | BackfillError::Empty | BackfillError::OutOfOrder { .. } => {
            ErrorCode::BadRequest
        }
    };
    Problem::new(code, error.to_string())
}

/// A whole body of `most` bytes at most.
async fn limited(ctx: &Context, body: Body, most: usize) -> Result<Bytes, ProblemResponse> {
    let read = Limited::new(body, most).collect().await;
    let read = read.map_err(|error| refused(ctx, body_problem(&*error)))?;
    Ok(read.to_bytes())
}

/// Counts what was over a limit.
fn refused(ctx: &Context, problem: Problem) -> ProblemResponse {
    if problem.is(ErrorCode::TooLarge) {
        ctx.metrics.journal_refused.inc();
    }
    ProblemResponse(problem)
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
