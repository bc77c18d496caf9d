//! How a command ends: codes that scripts can use, and the words that go with them.

use dfs_client::ClientError;
use dfs_protocol::{ErrorCode, Problem};

/// Exit codes, documented in `--help` and in the documentation of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done.
    Done,
    /// Failed, or an fsck that was not clean, or several files that failed for several reasons.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// Nothing by that name.
    NotFound,
    /// A precondition does not hold, or something is in the way.
    Conflict,
    /// Not now: the same command may succeed later.
    Unavailable,
    /// The bytes are not those that were announced.
    Integrity,
    /// Ended by a person.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Unavailable => 5,
            Self::Integrity => 6,
            // What shells report for SIGINT.
            Self::Interrupted => 130,
        }
    }

    /// The code of a command that did several things: one reason stays itself, several are
    /// [`Exit::Failed`].
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Done, other) => other,
            (this, Self::Done) => this,
            (this, other) if this == other => this,
            _ => Self::Failed,
        }
    }
}

/// A command, or one file of many, that failed: what, why, and what next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Failure {
    /// How the command ends for it.
    pub exit: Exit,
    /// What was tried: `put docs/a.txt`.
    pub what: String,
    /// Why it failed, one sentence.
    pub why: String,
    /// What to do next.
    pub next: Option<String>,
    /// The server's name for the request, for its logs.
    pub request_id: Option<String>,
}

impl Failure {
    /// A failure without advice.
    pub fn new(exit: Exit, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            why: why.into(),
            next: None,
            request_id: None,
        }
    }

    /// Says what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The command line makes no sense.
    pub fn usage(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what, why)
    }

    /// A local file that cannot be read or written.
    pub fn local(what: impl Into<String>, error: &std::io::Error) -> Self {
        let next = match error.kind() {
            std::io::ErrorKind::NotFound => Some("check the path: there is nothing by that name"),
            std::io::ErrorKind::PermissionDenied => Some("check the permissions of the path"),
            std::io::ErrorKind::StorageFull => Some("make room on the local disk"),
            std::io::ErrorKind::IsADirectory => Some("add -r for a directory"),
            _ => None,
        };
        let mut failure = Self::new(Exit::Failed, what, local_reason(error));
        failure.next = next.map(str::to_owned);
        failure
    }

    /// A name that the store does not take.
    pub fn invalid_name(what: impl Into<String>, error: &dfs_protocol::InvalidName) -> Self {
        Self::new(Exit::Failed, what, error.to_string()).next(
            "rename it: paths are UTF-8 without empty segments, `.`, `..` or control characters",
        )
    }

    /// A request that failed.
    pub fn request(what: impl Into<String>, error: &ClientError) -> Self {
        match error {
            ClientError::Refused(problem) => Self::refused(what, problem),
            ClientError::NotConnected { .. } | ClientError::Unreachable { .. } => {
                Self::new(Exit::Unavailable, what, error.to_string()).next(
                    "check that the store runs there (`dfs dev` starts one), or name it with \
                     --tracker or DFS_TRACKER",
                )
            }
            ClientError::TimedOut { .. } | ClientError::BrokenOff { .. } => {
                Self::new(Exit::Unavailable, what, error.to_string())
                    .next("try again; `dfs status` tells how the store is")
            }
            ClientError::Malformed { .. } => Self::new(Exit::Failed, what, error.to_string())
                .next("check that --tracker names a dfs store of a compatible version"),
        }
    }

    fn refused(what: impl Into<String>, problem: &Problem) -> Self {
        let why = if problem.detail.is_empty() {
            problem.title.clone()
        } else {
            format!("{}: {}", problem.title, problem.detail)
        };
        let mut failure = Self::new(exit_of(problem), what, why);
        failure.next.clone_from(&problem.next);
        if !problem.request_id.is_empty() {
            failure.request_id = Some(problem.request_id.clone());
        }
        failure
    }

    /// The lines that a person reads.
    pub fn render(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!("error: {}: {}", self.what, self.why);
        if let Some(next) = &self.next {
            let _infallible = write!(text, "\n  next: {next}");
        }
        if let Some(id) = &self.request_id {
            let _infallible = write!(text, "\n  request: {id}");
        }
        text
    }
}

/// Why a local file cannot be used, without the system's error number.
fn local_reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

/// The exit code of a refusal.
pub fn exit_of(problem: &Problem) -> Exit {
    match problem.code() {
        Some(ErrorCode::NotFound) => Exit::NotFound,
        Some(ErrorCode::BadDigest) => Exit::Integrity,
        _ => match problem.status {
            404 => Exit::NotFound,
            409 | 412 => Exit::Conflict,
            408 | 429 | 502 | 503 | 504 => Exit::Unavailable,
            _ => Exit::Failed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_map_to_exit_codes_that_scripts_can_use() {
        let code = |code| exit_of(&Problem::new(code, "x")).code();
        assert_eq!(code(ErrorCode::NotFound), 3);
        assert_eq!(code(ErrorCode::PreconditionFailed), 4);
        assert_eq!(code(ErrorCode::Conflict), 4);
        assert_eq!(code(ErrorCode::Unavailable), 5);
        assert_eq!(code(ErrorCode::TooManyRequests), 5);
        assert_eq!(code(ErrorCode::SafeMode), 5);
        assert_eq!(code(ErrorCode::BadDigest), 6);
        assert_eq!(code(ErrorCode::InvalidName), 1);
        assert_eq!(code(ErrorCode::InsufficientStorage), 1);
        let unreachable = ClientError::Unreachable {
            address: "a:1".to_owned(),
            detail: "connection refused".to_owned(),
        };
        assert_eq!(Failure::request("x", &unreachable).exit, Exit::Unavailable);
    }

    #[test]
    fn several_reasons_become_a_plain_failure_and_one_stays_itself() {
        assert_eq!(Exit::Done.and(Exit::NotFound), Exit::NotFound);
        assert_eq!(Exit::NotFound.and(Exit::NotFound), Exit::NotFound);
        assert_eq!(Exit::NotFound.and(Exit::Conflict), Exit::Failed);
        assert_eq!(Exit::Conflict.and(Exit::Done), Exit::Conflict);
    }

    #[test]
    fn a_failure_reads_what_why_and_next() {
        let mut problem = Problem::new(ErrorCode::NotFound, "no file `a`").next("see `dfs ls`");
        problem.request_id = "r1".to_owned();
        let text = Failure::request("get a", &problem.into()).render();
        assert_eq!(
            text,
            "error: get a: Not found: no file `a`\n  next: see `dfs ls`\n  request: r1"
        );
    }

    #[test]
    fn local_errors_carry_no_error_numbers() {
        let error = std::fs::File::open("/nonexistent/file").unwrap_err();
        let text = Failure::local("put x", &error).render();
        assert!(text.contains("No such file or directory\n"), "{text}");
        assert!(!text.contains("os error"), "{text}");
    }
}
