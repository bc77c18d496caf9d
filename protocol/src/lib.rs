//! What the roles of dfs say to each other: ids, wire types, routes, error codes and the frames of
//! the chunk stream. Pure data: nothing in this crate opens a socket or a file.

pub mod admission;
pub mod backfill;
pub mod calls;
pub mod checksum;
pub mod chunk;
pub mod datanode;
pub mod events;
pub mod factor;
pub mod file;
pub mod frame;
pub mod ids;
pub mod path;
pub mod plan;
pub mod problem;
pub mod repair;
pub mod routes;
pub mod status;
pub mod timestamp;
pub mod trace;
pub mod traffic;
pub mod upload;

pub use ids::{
    ChunkId, ChunkVersion, ClusterId, DatanodeId, Epoch, Fence, FileId, Incarnation, InstanceId,
    LeaseId, ParseIdError, TaskId, TrashId, UploadId, VersionId,
};
pub use path::{FilePath, InvalidName, PathPrefix};
pub use problem::{ErrorCode, Problem};
pub use trace::{SpanId, TraceContext, TraceId};
