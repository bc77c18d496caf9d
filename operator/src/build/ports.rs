//! Ports and paths of the roles: the one list that containers, Services and policies are made from.

/// The tracker's API.
pub const TRACKER: i32 = 6000;
/// A datanode's API.
pub const DATANODE: i32 = 6001;
/// A gateway's doors.
pub const GATEWAY: i32 = 8080;
/// What the gateways' Service listens on.
pub const GATEWAY_SERVICE: i32 = 80;
/// The admin listener of a role: its API's port plus this.
pub const ADMIN_OFFSET: i32 = 1000;
/// Name resolution.
pub const DNS: i32 = 53;

/// Name of the API's port in pods and Services.
pub const API_NAME: &str = "http";
/// Name of the admin listener's port in pods.
pub const ADMIN_NAME: &str = "admin";

/// Where the volume is.
pub const DATA: &str = "/data";
/// Where the token's Secret is: a directory, so that a new token arrives without a restart.
pub const TOKEN_DIRECTORY: &str = "/etc/dfs/token";
/// The token: the Secret's key.
pub const TOKEN_KEY: &str = "token";
