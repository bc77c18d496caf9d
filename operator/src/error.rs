//! What can go wrong with a reconcile, by what helps: the metric label and the pace of retries
//! follow the category, never the text.

use std::time::Duration;

use dfs_runtime::label_enum;

use crate::tracker_client::TrackerError;

label_enum! {
    /// What kind of failure a reconcile ended with.
    pub enum Category: "category" {
        /// The API server says that the object has changed since it was read.
        Conflict = "conflict",
        /// The API server asks to wait.
        Throttled = "throttled",
        /// The API server refuses the request: permissions, quota, admission, schema.
        Rejected = "rejected",
        /// The API server failed or cannot be reached.
        Api = "api",
        /// The tracker failed or cannot be reached.
        Tracker = "tracker",
        /// The reconcile took too long.
        Timeout = "timeout",
        /// Something of someone else has the name that we need.
        Foreign = "foreign",
        /// A fault of ours.
        Internal = "internal",
    }
}

/// Why a reconcile ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// A call to the API server.
    #[error("{doing}: {}", describe(.source))]
    Api {
        /// What was being done, in the present tense.
        doing: String,
        /// What happened.
        source: kube::Error,
    },
    /// An object that we do not own has the name of one that we need.
    #[error("{kind} {name} exists and does not belong to this cluster; delete or rename it")]
    Foreign {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
    },
    /// A call to the tracker.
    #[error("{doing}: {source}")]
    Tracker {
        /// What was being done.
        doing: String,
        /// What happened.
        source: TrackerError,
    },
    /// It took longer than it may.
    #[error("the reconcile took longer than {} s", .0.as_secs())]
    Timeout(Duration),
    /// The object has changed since it was read: nothing that cannot be taken back is done from it.
    #[error("DfsCluster {0} has changed since it was read")]
    Outdated(String),
    /// Something that should be impossible.
    #[error("{0}")]
    Internal(String),
}

/// The API server's message without the rest of its status object.
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            format!("{} ({} {})", status.message, status.code, status.reason)
        }
        other => {
            // The innermost cause is what people can act on ("connection refused").
            let mut cause: &dyn std::error::Error = other;
            while let Some(source) = cause.source() {
                cause = source;
            }
            cause.to_string()
        }
    }
}

/// The HTTP status behind an error of the API server.
pub fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

impl ReconcileError {
    /// Wraps an error of the API server.
    pub fn api(doing: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Api { doing, source }
    }

    /// Wraps an error of the tracker.
    pub fn tracker(doing: impl Into<String>) -> impl FnOnce(TrackerError) -> Self {
        let doing = doing.into();
        move |source| Self::Tracker { doing, source }
    }

    /// What kind of failure it is.
    pub fn category(&self) -> Category {
        match self {
            Self::Api { source, .. } => match code(source) {
                Some(409) => Category::Conflict,
                Some(429) => Category::Throttled,
                Some(400..=499) => Category::Rejected,
                // The API server answers a typed-patch failure with 500: retried, but slowly.
                Some(_) | None => Category::Api,
            },
            Self::Outdated(_) => Category::Conflict,
            Self::Foreign { .. } => Category::Foreign,
            Self::Tracker { .. } => Category::Tracker,
            Self::Timeout(_) => Category::Timeout,
            Self::Internal(_) => Category::Internal,
        }
    }

    /// Whether the other objects should be tried all the same.
    pub fn is_about_one_object(&self) -> bool {
        matches!(
            self.category(),
            Category::Rejected | Category::Foreign | Category::Internal
        ) || matches!(self, Self::Api { source, .. } if code(source) == Some(500))
    }
}
