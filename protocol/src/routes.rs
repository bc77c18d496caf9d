//! Paths and headers that more than one role must spell alike.

/// Carries the uuid of the datanode that a request is meant for; any other answers 421.
pub const DATANODE_HEADER: &str = "x-dfs-datanode";
/// Carries a request's id between a client and a door: the client's own word for it, or its trace's id.
pub const REQUEST_ID_HEADER: &str = "x-request-id";
/// Carries a request's trace ([`crate::TraceContext`]) from the first door to the last hop.
pub const TRACEPARENT_HEADER: &str = "traceparent";
/// On the answer that begins a chunk write stream: the datanode understands
/// [`crate::frame::OpenChunk::trace`]. One that does not say so would refuse a chunk for it.
pub const TAKES_TRACE_HEADER: &str = "x-dfs-takes-trace";
/// On the same answer: the datanode understands [`crate::frame::FrameKind::Whole`]. One that does not
/// say so would close the stream for it.
pub const TAKES_WHOLE_HEADER: &str = "x-dfs-takes-whole";
/// Carries the acting tracker's fence on orders to datanodes.
pub const FENCE_HEADER: &str = "x-dfs-fence";
/// Carries what a datanode moved ([`crate::traffic::DatanodeTraffic`] as JSON) on its heartbeats.
pub const TRAFFIC_HEADER: &str = "x-dfs-traffic";
/// Carries the terms of repair ([`crate::repair::RepairTerms`] as JSON) on the answers to heartbeats and reports.
pub const REPAIR_HEADER: &str = "x-dfs-repair";
/// On the read of a chunk for repair: which queue for the bandwidth ([`crate::repair::RepairLane`]) it stands in.
pub const REPAIR_LANE_HEADER: &str = "x-dfs-repair-lane";
/// Carries where a chunk belongs ([`crate::chunk::ChunkOrigin`] as JSON) on the answer to a read.
pub const CHUNK_ORIGIN_HEADER: &str = "x-dfs-chunk-origin";

/// Start of the routes that only other roles call.
pub const INTERNAL_PREFIX: &str = "/internal/";
/// Start of the routes of the status page's own files.
pub const PAGE_PREFIX: &str = "/page/";

/// Whether a route of a tracker's or datanode's API port is for everybody, also where the cluster has
/// a token: files and read-only status. Everything that is not named here needs the token.
pub fn is_public(method: &str, path: &str) -> bool {
    match path {
        "/" | "/openapi.json" | tracker::STATUS => matches!(method, "GET" | "HEAD"),
        "/upload" | "/files" | "/uploads" => true,
        _ => {
            let files = ["/download/", "/files/", "/uploads/"];
            let page = path.starts_with(PAGE_PREFIX) && matches!(method, "GET" | "HEAD");
            page || files.iter().any(|prefix| path.starts_with(prefix))
        }
    }
}

/// Admin listener and public doors.
pub mod admin {
    /// The process runs.
    pub const LIVEZ: &str = "/livez";
    /// The process serves.
    pub const READYZ: &str = "/readyz";
    /// Prometheus text format.
    pub const METRICS: &str = "/metrics";
}

/// The tracker's own port.
pub mod tracker {
    /// A datanode announces itself (POST, JSON), or a person announces one (GET `?port=`).
    pub const REGISTER: &str = "/register";
    /// POST, JSON.
    pub const HEARTBEAT: &str = "/internal/heartbeat";
    /// POST, postcard.
    pub const CHUNK_REPORT: &str = "/internal/chunk-report";
    /// Prefix of the calls that gateways make (`client::tracker`).
    pub const CALL_PREFIX: &str = "/internal/call/";
    /// Health sentence and numbers.
    pub const STATUS: &str = "/status";
    /// Datanodes.
    pub const NODES: &str = "/nodes";
    /// Replicas of a file's chunks.
    pub const CHUNKS: &str = "/chunks";
    /// Streams findings as NDJSON, ends in one verdict.
    pub const FSCK: &str = "/fsck";
    /// Deleted and replaced versions.
    pub const TRASH: &str = "/trash";
    /// Lets a pending datanode in, or says where an admitted one is now (POST).
    pub const ADMIT: &str = "/nodes/{id}/admit";
    /// Says no to a pending datanode (POST).
    pub const REFUSE: &str = "/nodes/{id}/refuse";
    /// Announces that a datanode is away until a time (POST `?until=`), or back (DELETE).
    pub const MAINTENANCE: &str = "/nodes/{id}/maintenance";
    /// Acknowledges that a dead datanode's volume is gone for ever (POST).
    pub const LOST: &str = "/nodes/{id}/lost";
    /// Registrations that were refused lately.
    pub const REFUSALS: &str = "/refusals";
    /// Whether there is a catalog.
    pub const CATALOG: &str = "/catalog";
    /// Builds a lost catalog anew (POST).
    pub const CATALOG_REBUILD: &str = "/catalog/rebuild";
    /// What happened, as server-sent events or one JSON array.
    pub const EVENTS: &str = "/events";
    /// Which files were read and written most lately.
    pub const HOT: &str = "/hot";
    /// What would be without some datanodes (`?lose=`), or with so many (`?scale=`).
    pub const PLAN: &str = "/plan";
    /// May this datanode stop, may it go for ever: both verdicts, with files.
    pub const PROOF: &str = "/nodes/{id}/proof";
    /// May these datanodes stop now?
    pub const OK_TO_STOP: &str = "/ok-to-stop";
}

/// The datanodes' ports.
pub mod datanode {
    /// Who is there.
    pub const IDENTITY: &str = "/identity";
    /// Stores one replica from a plain body (POST, query `id`, `version`).
    pub const UPLOAD_CHUNK: &str = "/upload-chunk";
    /// Returns one replica (GET, query `id`, `version`; Range; block frames on request).
    pub const DOWNLOAD_CHUNK: &str = "/download-chunk";
    /// Turns the connection into a chunk write stream (GET with `Upgrade`).
    pub const WRITE_STREAM: &str = "/chunks/write-stream";
    /// Turns the connection into one on which chunks are read (GET with `Upgrade`), for readers that verify.
    pub const READ_STREAM: &str = "/read-stream";
    /// Fetches a replica from a peer (POST).
    pub const COPY: &str = "/chunks/copy";
    /// What is held of one chunk (GET `/chunks/{id}`).
    pub const CHUNK: &str = "/chunks/{id}";
    /// Replicas by kind (GET, query `kind`), postcard: for rebuild.
    pub const INVENTORY: &str = "/inventory";
    /// Appends (POST), reads (GET `?from=`).
    pub const JOURNAL: &str = "/journal";
    /// Appends what a member lacks (POST), says where that begins (GET `?from=`).
    pub const JOURNAL_BACKFILL: &str = "/journal/backfill";
}
