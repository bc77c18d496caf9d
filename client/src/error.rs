//! What can go wrong with a call, by what the caller can do about it.

use dfs_protocol::{ErrorCode, Problem};

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The peer answered, and said no: its problem says why and what next.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// No connection: the call was not sent.
    #[error("cannot reach {address}: {detail}")]
    NotConnected {
        /// `host:port`.
        address: String,
        /// What happened.
        detail: String,
    },
    /// The connection broke before the answer: whether the call took effect is unknown.
    #[error("cannot reach {address}: {detail}")]
    Unreachable {
        /// `host:port`.
        address: String,
        /// What happened.
        detail: String,
    },
    /// The peer did not answer in time: whether the call took effect is unknown.
    #[error("{address} did not answer within {seconds} s")]
    TimedOut {
        /// `host:port`.
        address: String,
        /// The limit.
        seconds: u64,
    },
    /// The answer had begun when the connection broke: the peer lives, and the rest is to be had elsewhere.
    #[error("{address} broke its answer off: {detail}")]
    BrokenOff {
        /// `host:port`.
        address: String,
        /// What happened.
        detail: String,
    },
    /// The answer is not one that this protocol knows.
    #[error("{address} gave an answer that cannot be understood: {detail}")]
    Malformed {
        /// `host:port`.
        address: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl ClientError {
    /// The peer's problem, if it answered with one of this code.
    pub fn is(&self, code: ErrorCode) -> bool {
        matches!(self, Self::Refused(problem) if problem.is(code))
    }

    /// Whether nothing came back: the peer was not reached, or did not answer.
    pub fn is_unheard(&self) -> bool {
        match self {
            Self::NotConnected { .. } | Self::Unreachable { .. } | Self::TimedOut { .. } => true,
            Self::Refused(_) | Self::BrokenOff { .. } | Self::Malformed { .. } => false,
        }
    }

    /// Whether the same call may succeed on another try.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.code().is_some_and(ErrorCode::is_transient),
            Self::NotConnected { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::BrokenOff { .. } => true,
            Self::Malformed { .. } => false,
        }
    }

    /// As a problem for this role's own client.
    pub fn into_problem(self) -> Problem {
        match self {
            Self::Refused(problem) => *problem,
            error @ (Self::NotConnected { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. }
            | Self::BrokenOff { .. }) => Problem::new(ErrorCode::Unavailable, error.to_string())
                .next("try again; if it persists, check that the peer runs"),
            error @ Self::Malformed { .. } => Problem::new(ErrorCode::Internal, error.to_string())
                .next("check that all roles run compatible versions"),
        }
    }
}

impl From<Problem> for ClientError {
    fn from(problem: Problem) -> Self {
        Self::Refused(Box::new(problem))
    }
}
