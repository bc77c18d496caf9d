//! The datanode's port. Every request may say whom it is for and under which fence; the gate
//! checks both before a handler runs.

mod framed;
pub mod journal;
pub mod range;
pub mod read;
pub mod upload;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use dfs_protocol::chunk::ChunkKind;
use dfs_protocol::datanode::{ChunkState, CopyRequest, CopyResponse, Identity};
use dfs_protocol::frame::{READ_STREAM_PROTOCOL, WRITE_STREAM_PROTOCOL};
use dfs_protocol::routes::{
    DATANODE_HEADER, FENCE_HEADER, TAKES_TRACE_HEADER, TAKES_WHOLE_HEADER, datanode,
};
use dfs_protocol::{ChunkId, DatanodeId, ErrorCode, Fence, Problem};
use dfs_runtime::problem::{ApiJson, ApiPath, ApiQuery, ProblemResponse};
use dfs_runtime::request::Routes;
use dfs_runtime::server::RawStream;
use dfs_runtime::token::Guard;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde::Deserialize;

use crate::context::Context;
use crate::replicate::{Pace, copy};
use crate::{read_stream, write_stream};

/// What handlers share.
pub type Ctx = State<Arc<Context>>;

/// The routes of one datanode, without the request layer. Where the cluster has a token, every one of
/// them needs it, and it is looked at before anything else: an order's fence is acted upon.
pub fn router(ctx: Arc<Context>) -> Routes {
    let guard = Guard::new(ctx.config.tokens.clone(), |_, _| false);
    let gate = from_fn_with_state(Arc::clone(&ctx), gate);
    Routes::mount(routes(), ctx).map(|router| guard.wrap(router.layer(gate)))
}

/// Every path and its methods: a table, so that a test can go over it.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<Context>>)> {
    vec![
        (datanode::IDENTITY, get(identity)),
        (datanode::UPLOAD_CHUNK, post(upload::upload)),
        (datanode::DOWNLOAD_CHUNK, get(read::download)),
        (datanode::WRITE_STREAM, get(upgrade_to_writes)),
        (datanode::READ_STREAM, get(upgrade_to_reads)),
        (datanode::COPY, post(copy_chunk)),
        (datanode::CHUNK, get(chunk_state)),
        (datanode::INVENTORY, get(inventory)),
        (datanode::JOURNAL, post(journal::append).get(journal::page)),
        (
            datanode::JOURNAL_BACKFILL,
            post(journal::backfill).get(journal::gap),
        ),
    ]
}

/// Every path of a datanode's port.
pub fn paths() -> Vec<&'static str> {
    routes().into_iter().map(|(path, _)| path).collect()
}

/// Refuses what is meant for another datanode (I21) and what a deposed tracker orders (I8, I20).
async fn gate(State(ctx): Ctx, request: Request, next: Next) -> Response {
    match admit(&ctx, request.headers()).await {
        Ok(()) => next.run(request).await,
        Err(problem) => ProblemResponse(problem).into_response(),
    }
}

async fn admit(ctx: &Arc<Context>, headers: &HeaderMap) -> Result<(), Problem> {
    if let Some(value) = headers.get(DATANODE_HEADER) {
        let meant: Option<DatanodeId> = value.to_str().ok().and_then(|text| text.parse().ok());
        ctx.is_meant(meant)?;
    }
    if let Some(value) = headers.get(FENCE_HEADER) {
        let fence: Option<Fence> = value.to_str().ok().and_then(|text| text.parse().ok());
        let fence = fence.ok_or_else(|| {
            let detail = format!("`{FENCE_HEADER}` is not EPOCH-INCARNATION");
            Problem::new(ErrorCode::BadRequest, detail)
        })?;
        ctx.accept(fence).await?;
    }
    Ok(())
}

async fn identity(State(ctx): Ctx) -> Json<Identity> {
    let record = ctx.volume.record();
    Json(Identity {
        cluster: record.cluster,
        datanode: record.datanode,
        instance: ctx.instance,
        fence: record.fence,
        tracker: ctx.config.tracker.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

async fn chunk_state(State(ctx): Ctx, ApiPath(id): ApiPath<ChunkId>) -> Json<ChunkState> {
    Json(ChunkState {
        sealed: ctx.store.index().versions(id).pop(),
        open: ctx.attempts.state(id),
    })
}

async fn copy_chunk(
    State(ctx): Ctx,
    ApiJson(request): ApiJson<CopyRequest>,
) -> Result<Json<CopyResponse>, ProblemResponse> {
    let CopyRequest {
        fence,
        chunk,
        sources,
    } = request;
    ctx.accept(fence).await?;
    let replica = copy(&ctx, &chunk, &sources, Pace::Urgent)
        .await
        .map_err(|error| error.problem)?;
    ctx.store.index().hurry();
    Ok(Json(CopyResponse { replica }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InventoryQuery {
    kind: ChunkKind,
}

async fn inventory(
    State(ctx): Ctx,
    ApiQuery(query): ApiQuery<InventoryQuery>,
) -> Result<Response, ProblemResponse> {
    let listed = ctx
        .blocking(move |ctx| ctx.store.origins(query.kind))
        .await?;
    let origins = listed.map_err(Problem::from)?;
    let encoded = postcard::to_stdvec(&origins)
        .map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
    Ok(binary(encoded))
}

/// Turns the connection into a chunk write stream.
async fn upgrade_to_writes(State(ctx): Ctx, request: Request) -> Result<Response, ProblemResponse> {
    let serve = |ctx, stream| write_stream::serve(ctx, TokioIo::new(stream));
    ctx.store.fail_stop().check().map_err(Problem::from)?;
    let mut response = upgrade(&ctx, request, WRITE_STREAM_PROTOCOL, serve)?;
    for takes in [TAKES_TRACE_HEADER, TAKES_WHOLE_HEADER] {
        let name = HeaderName::from_static(takes);
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static("1"));
    }
    Ok(response)
}

/// Turns the connection into one on which chunks are read.
async fn upgrade_to_reads(State(ctx): Ctx, request: Request) -> Result<Response, ProblemResponse> {
    let serve = |ctx, stream| async {
        if let Ok(stream) = RawStream::of(stream) {
            read_stream::serve(ctx, stream).await;
        } else {
            tracing::warn!("a read stream came over no connection of this server's");
        }
    };
    Ok(upgrade(&ctx, request, READ_STREAM_PROTOCOL, serve)?)
}

/// Agrees to speak `protocol`, which `serve` does once the answer has left.
fn upgrade<F>(
    ctx: &Arc<Context>,
    mut request: Request,
    protocol: &'static str,
    serve: impl FnOnce(Arc<Context>, Upgraded) -> F + Send + 'static,
) -> Result<Response, Problem>
where
    F: Future<Output = ()> + Send,
{
    let wanted = request.headers().get(UPGRADE);
    if wanted.is_none_or(|value| value != protocol) {
        let detail = format!("the request does not upgrade to {protocol}");
        return Err(Problem::new(ErrorCode::BadRequest, detail));
    }
    let upgrading = hyper::upgrade::on(&mut request);
    let serving = Arc::clone(ctx);
    ctx.spawn(async move {
        match upgrading.await {
            Ok(stream) => Box::pin(serve(serving, stream)).await,
            Err(error) => tracing::debug!(%error, protocol, "a stream did not begin"),
        }
    });
    let headers = [
        (UPGRADE, HeaderValue::from_static(protocol)),
        (CONNECTION, HeaderValue::from_static("upgrade")),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

/// An answer of bytes that only our own roles read.
pub fn binary(bytes: Vec<u8>) -> Response {
    ([(CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}
