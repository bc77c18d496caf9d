//! Errors as clients see them: problem details (RFC 9457), with a closed set of codes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Prefix of every problem's `type`.
pub const PROBLEM_TYPE_PREFIX: &str = "urn:dfs:problem:";
/// Media type of a problem.
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $status:literal, $label:literal, $title:literal;)*) => {
        /// What kind of error. The label is the last part of the problem's `type` and the metric
        /// label; the title is the same for every occurrence.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// HTTP status.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status,)* }
            }

            /// Stable name, kebab-case.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// Short sentence.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    /// The request makes no sense.
    BadRequest = 400, "bad-request", "The request is malformed";
    /// The name is refused.
    InvalidName = 400, "invalid-name", "The name is not allowed";
    /// The name is too long.
    KeyTooLong = 400, "key-too-long", "The name is too long";
    /// A digest header cannot be read.
    InvalidDigest = 400, "invalid-digest", "A digest header is malformed";
    /// The bytes are not those that the digest announced.
    BadDigest = 400, "bad-digest", "The body does not match its digest";
    /// The body ended early.
    IncompleteBody = 400, "incomplete-body", "The body ended before its announced length";
    /// The form cannot be read.
    InvalidForm = 400, "invalid-form", "The multipart form is malformed";
    /// The JSON cannot be read.
    InvalidJson = 400, "invalid-json", "The JSON body is malformed";
    /// The cursor is not one that this server gave out.
    InvalidCursor = 400, "invalid-cursor", "The cursor is not valid";
    /// A parameter is out of its range.
    InvalidParameter = 400, "invalid-parameter", "A parameter is not valid";
    /// No cluster token, or none that is accepted.
    Unauthorized = 401, "unauthorized", "The request needs the cluster token";
    /// The administrator said no.
    Refused = 403, "refused", "The datanode was refused";
    /// Nothing by that name.
    NotFound = 404, "not-found", "Not found";
    /// The route knows other methods.
    MethodNotAllowed = 405, "method-not-allowed", "The method is not allowed here";
    /// The client was too slow.
    RequestTimeout = 408, "request-timeout", "The request was too slow";
    /// Something in the way: file against directory, or a change in flight.
    Conflict = 409, "conflict", "The change conflicts with what is there";
    /// A stale replica, version or upload.
    Stale = 409, "stale", "The request speaks of something that was superseded";
    /// The fence is older than the acting tracker's.
    Fenced = 409, "fenced", "The order comes from a deposed tracker";
    /// The uuid, cluster or instance does not match.
    WrongCluster = 409, "wrong-cluster", "The datanode belongs to another cluster";
    /// A body of unknown length.
    LengthRequired = 411, "length-required", "The request needs a length";
    /// `If-Match`, `If-None-Match`.
    PreconditionFailed = 412, "precondition-failed", "The precondition does not hold";
    /// Over a limit.
    TooLarge = 413, "too-large", "The body is too large";
    /// The URI is over its limit.
    UriTooLong = 414, "uri-too-long", "The URI is too long";
    /// No byte of the file is in the range.
    RangeNotSatisfiable = 416, "range-not-satisfiable", "The range is outside the file";
    /// The request reached another datanode than it was meant for.
    WrongDatanode = 421, "wrong-datanode", "The request reached the wrong datanode";
    /// Too many at once.
    TooManyRequests = 429, "too-many-requests", "Too many requests at once";
    /// Headers over a limit.
    HeadersTooLarge = 431, "headers-too-large", "The request header is too large";
    /// A fault of ours.
    Internal = 500, "internal", "The server failed";
    /// Not now.
    Unavailable = 503, "unavailable", "The service is not available now";
    /// The tracker's volume holds no catalog although there was one.
    CatalogLost = 503, "catalog-lost", "The catalog is lost and waits to be rebuilt";
    /// The tracker still gathers reports.
    SafeMode = 503, "safe-mode", "The tracker is still gathering chunk reports";
    /// Too few datanodes for a write.
    TooFewDatanodes = 503, "too-few-datanodes", "Too few datanodes take writes";
    /// No replica can be read.
    DataUnavailable = 503, "data-unavailable", "No replica of the data can be read now";
    /// No room.
    InsufficientStorage = 507, "insufficient-storage", "The store is full";
}

impl ErrorCode {
    /// Reads a stable name.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|code| code.as_str() == label)
    }

    /// Whether the same request may succeed later.
    pub const fn is_transient(self) -> bool {
        matches!(self.status(), 408 | 429 | 503)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One error, as `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// [`PROBLEM_TYPE_PREFIX`] and the code's label.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code's title.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Seconds after which a retry makes sense; also sent as `Retry-After`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u32>,
    /// The request's id, filled in at the edge.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// Its trace, filled in at the edge: what the logs of every role have.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trace_id: String,
}

impl Problem {
    /// A problem with its code's title and status.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{PROBLEM_TYPE_PREFIX}{code}"),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            next: None,
            retry_after: if code.status() == 503 { Some(1) } else { None },
            request_id: String::new(),
            trace_id: String::new(),
        }
    }

    /// Says what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Says when a retry makes sense.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The code, when it is one of ours.
    pub fn code(&self) -> Option<ErrorCode> {
        self.kind
            .strip_prefix(PROBLEM_TYPE_PREFIX)
            .and_then(ErrorCode::from_label)
    }

    /// Whether this is a problem of that code.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code() == Some(code)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)?;
        if let Some(next) = &self.next {
            write!(f, " ({next})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

impl From<crate::path::InvalidName> for Problem {
    fn from(error: crate::path::InvalidName) -> Self {
        use crate::path::InvalidName;
        let code = match error {
            InvalidName::TooLong { .. } | InvalidName::SegmentTooLong { .. } => {
                ErrorCode::KeyTooLong
            }
            InvalidName::Empty
            | InvalidName::EmptySegment
            | InvalidName::DotSegment { .. }
            | InvalidName::ControlCharacter { .. }
            | InvalidName::NotUtf8 => ErrorCode::InvalidName,
        };
        Self::new(code, error.to_string()).next(
            "use a path of UTF-8 segments without `.`, `..`, empty segments or control characters",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_its_label() {
        for code in ErrorCode::ALL {
            assert_eq!(Problem::new(*code, "x").code(), Some(*code));
        }
    }
}
