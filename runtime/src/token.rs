//! The cluster token: who may call the ports that roles have for each other. A file holds one or more
//! tokens, one a line: the first is sent, every one is accepted, so that a token is rotated by adding the
//! new one everywhere, then moving it to the front, then taking the old one out. The file is read
//! again while the role runs. An unreadable or empty file never opens the door: the last tokens stay.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use dfs_protocol::{ErrorCode, Problem};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};

use crate::clock::SharedClock;
use crate::disk::{SharedDisk, read_whole};
use crate::problem::{ProblemResponse, with_fallbacks};
use crate::shutdown::Shutdown;

/// Between two looks at the file.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Largest file.
const MAX_FILE_BYTES: u64 = 16 * 1024;
/// Most tokens in it.
const MAX_TOKENS: usize = 16;
/// Longest token.
const MAX_TOKEN_BYTES: usize = 1024;
/// Before the token in the header.
const SCHEME: &str = "Bearer ";

/// A file of tokens that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read.
    #[error("reading the token file {path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No token in it.
    #[error("there is no token: write at least one line")]
    Empty,
    /// A line that no header can carry.
    #[error("line {line} is no token: use 1 to {MAX_TOKEN_BYTES} visible ASCII characters")]
    NotAToken {
        /// From 1.
        line: usize,
    },
    /// More than are kept.
    #[error("there are more than {MAX_TOKENS} tokens: take old ones out")]
    TooMany,
}

/// The tokens as they stand. Clones share them.
#[derive(Clone, Default)]
pub struct Tokens(Option<Arc<Shared>>);

struct Shared {
    current: RwLock<TokenSet>,
    file: Option<TokenFile>,
}

struct TokenFile {
    disk: SharedDisk,
    path: PathBuf,
    /// When the next look is due, monotonic; and whether the last one failed.
    look: Mutex<(Duration, bool)>,
}

#[derive(PartialEq, Eq)]
struct TokenSet {
    accepted: Vec<Vec<u8>>,
    /// The header's value of the first.
    sent: HeaderValue,
}

impl Tokens {
    /// No token: nobody is asked for one.
    pub fn none() -> Self {
        Self(None)
    }

    /// Tokens that do not change: one a line, the first is sent.
    pub fn fixed(text: &str) -> Result<Self, TokenError> {
        let current = RwLock::new(parse(text.as_bytes())?);
        Ok(Self(Some(Arc::new(Shared {
            current,
            file: None,
        }))))
    }

    /// Reads a file (blocking). [`Self::look`] reads it again.
    pub fn open(disk: SharedDisk, path: PathBuf, now: Duration) -> Result<Self, TokenError> {
        let file = TokenFile {
            disk,
            path,
            look: Mutex::new((now + LOOK_EVERY, false)),
        };
        let current = RwLock::new(file.read()?);
        Ok(Self(Some(Arc::new(Shared {
            current,
            file: Some(file),
        }))))
    }

    /// Whether calls need a token.
    pub fn are_demanded(&self) -> bool {
        self.0.is_some()
    }

    /// What this process sends: the value of `Authorization`.
    pub fn to_send(&self) -> Option<HeaderValue> {
        let shared = self.0.as_ref()?;
        let current = shared
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Some(current.sent.clone())
    }

    /// Whether a request may pass; why not otherwise.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Err(unauthorized("the request carries no cluster token"));
        };
        let bytes = header.as_bytes();
        let scheme = bytes.get(..SCHEME.len()).unwrap_or_default();
        if !scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) {
            return Err(unauthorized("`Authorization` is not `Bearer TOKEN`"));
        }
        let offered = bytes[SCHEME.len()..].trim_ascii();
        let current = shared
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        // Every one is looked at, so that the time does not tell which was nearly right.
        let known = current
            .accepted
            .iter()
            .fold(false, |known, token| known | same(token, offered));
        if known {
            Ok(())
        } else {
            Err(unauthorized(
                "the cluster token is none of those that are accepted here",
            ))
        }
    }

    /// Reads the file again if that is due (blocking). A file that cannot be used changes nothing.
    pub fn look(&self, now: Duration) {
        let Some(shared) = &self.0 else { return };
        let Some(file) = &shared.file else { return };
        let failed_before = {
            let mut look = file.look.lock().unwrap_or_else(PoisonError::into_inner);
            if now < look.0 {
                return;
            }
            look.0 = now + LOOK_EVERY;
            look.1
        };
        let read = file.read();
        let failed = read.is_err();
        match read {
            Ok(new) => {
                let mut current = shared
                    .current
                    .write()
                    .unwrap_or_else(PoisonError::into_inner);
                if *current != new {
                    tracing::info!(tokens = new.accepted.len(), "the cluster tokens changed");
                    *current = new;
                }
            }
            Err(error) if !failed_before => {
                tracing::warn!(%error, "the token file cannot be used: the tokens stay as they were");
            }
            Err(_) => {}
        }
        file.look.lock().unwrap_or_else(PoisonError::into_inner).1 = failed;
    }

    /// Looks at the file until the shutdown.
    pub async fn keep_looking(self, clock: SharedClock, shutdown: Shutdown) {
        if self.0.as_ref().is_none_or(|shared| shared.file.is_none()) {
            return;
        }
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                () = tokio::time::sleep(LOOK_EVERY / 5) => {}
            }
            let (tokens, now) = (self.clone(), clock.monotonic());
            // A read that hangs only delays the next look.
            let _read = tokio::task::spawn_blocking(move || tokens.look(now)).await;
        }
    }
}

/// Never shows a token.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("demanded", &self.are_demanded())
            .finish_non_exhaustive()
    }
}

/// The same source, not the same content.
impl PartialEq for Tokens {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

impl TokenFile {
    fn read(&self) -> Result<TokenSet, TokenError> {
        let bytes = read_whole(self.disk.as_ref(), &self.path, MAX_FILE_BYTES);
        let bytes = bytes.map_err(|source| TokenError::Unreadable {
            path: self.path.clone(),
            source,
        })?;
        parse(&bytes)
    }
}

fn parse(bytes: &[u8]) -> Result<TokenSet, TokenError> {
    let mut accepted = Vec::new();
    let mut sent = None;
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let token = line.trim_ascii();
        if token.is_empty() {
            continue;
        }
        let bad = || TokenError::NotAToken { line: number };
        if token.len() > MAX_TOKEN_BYTES || !token.iter().all(u8::is_ascii_graphic) {
            return Err(bad());
        }
        if accepted.len() == MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        if sent.is_none() {
            let mut value =
                HeaderValue::from_bytes(&[SCHEME.as_bytes(), token].concat()).map_err(|_| bad())?;
            value.set_sensitive(true);
            sent = Some(value);
        }
        accepted.push(token.to_vec());
    }
    let sent = sent.ok_or(TokenError::Empty)?;
    Ok(TokenSet { accepted, sent })
}

/// Compares in a time that depends on the offered length only.
fn same(token: &[u8], offered: &[u8]) -> bool {
    let mut differs = token.len() ^ offered.len();
    for (at, byte) in offered.iter().enumerate() {
        // `% len` stays inside: a token is never empty.
        differs |= usize::from(token[at % token.len()] ^ byte);
        differs = std::hint::black_box(differs);
    }
    differs == 0
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(ErrorCode::Unauthorized, detail).next(
        "send `Authorization: Bearer TOKEN` with a token of the cluster's token file; \
         roles and client verbs take --token-file (DFS_TOKEN_FILE)",
    )
}

/// Whether a route is for everybody: (method, path).
pub type IsPublic = fn(&str, &str) -> bool;
/// Told of each request that was refused, and why.
pub type OnRefused = Arc<dyn Fn(&Request, &Problem) + Send + Sync>;

/// Keeps the routes of one port for those who have the token. Whatever is not public is refused, so
/// that a new route is guarded before anybody thinks of it.
#[derive(Clone)]
pub struct Guard {
    tokens: Tokens,
    is_public: IsPublic,
    on_refused: OnRefused,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl Guard {
    /// Demands a token wherever `is_public` does not say otherwise.
    pub fn new(tokens: Tokens, is_public: IsPublic) -> Self {
        Self {
            tokens,
            is_public,
            on_refused: Arc::new(|_, _| {}),
        }
    }

    /// Tells of each refusal.
    #[must_use]
    pub fn on_refused(self, on_refused: OnRefused) -> Self {
        Self { on_refused, ..self }
    }

    /// Puts the guard before every route of a router: call it last, so that nothing of a request was
    /// acted upon when it is refused.
    pub fn wrap<S: Clone + Send + Sync + 'static>(self, router: Router<S>) -> Router<S> {
        if self.tokens.are_demanded() {
            // What it answers to a wrong method stands behind the guard as well.
            with_fallbacks(router).layer(from_fn_with_state(self, guard))
        } else {
            router
        }
    }
}

async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let is_public = (guard.is_public)(request.method().as_str(), request.uri().path());
    if is_public {
        return next.run(request).await;
    }
    match guard.tokens.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            (guard.on_refused)(&request, &problem);
            let mut response = ProblemResponse(problem).into_response();
            let scheme = HeaderValue::from_static("Bearer realm=\"dfs\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;
    use crate::disk::RealDisk;

    fn with(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn the_first_token_is_sent_and_every_one_is_accepted() {
        let tokens = Tokens::fixed("\n  new \r\nold\n\n").unwrap();
        assert_eq!(tokens.to_send().unwrap(), "Bearer new");
        for good in ["Bearer new", "bearer old", "Bearer  old "] {
            tokens.check(&with(good)).unwrap();
        }
        for bad in [
            "Bearer ",
            "Bearer ne",
            "Bearer neww",
            "Bearer newnew",
            "Basic new",
            "new",
            "",
        ] {
            let problem = tokens.check(&with(bad)).unwrap_err();
            assert!(problem.is(ErrorCode::Unauthorized), "{bad}");
            assert!(problem.next.unwrap().contains("--token-file"));
        }
        assert!(tokens.check(&HeaderMap::new()).is_err());
        assert!(!format!("{tokens:?}").contains("new"));
    }

    #[test]
    fn without_tokens_everybody_passes_and_nothing_is_sent() {
        assert_eq!(Tokens::none().to_send(), None);
        Tokens::none().check(&HeaderMap::new()).unwrap();
    }

    #[test]
    fn what_no_header_can_carry_is_no_token() {
        let long = "x".repeat(MAX_TOKEN_BYTES + 1);
        for bad in [
            "",
            " \n\n",
            "two words",
            "ü",
            long.as_str(),
            &"t\n".repeat(MAX_TOKENS + 1),
        ] {
            assert!(Tokens::fixed(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn i35_a_file_is_read_again_when_due_and_one_that_cannot_be_used_opens_no_door() {
        let dir = tempfile_dir();
        let path = dir.join("token");
        let seconds = Duration::from_secs;
        assert!(Tokens::open(RealDisk::shared(), path.clone(), seconds(0)).is_err());
        std::fs::write(&path, "one\n").unwrap();
        let tokens = Tokens::open(RealDisk::shared(), path.clone(), seconds(0)).unwrap();
        std::fs::write(&path, "two\none\n").unwrap();
        tokens.look(seconds(4));
        assert_eq!(tokens.to_send().unwrap(), "Bearer one", "not due yet");
        tokens.look(seconds(5));
        assert_eq!(tokens.to_send().unwrap(), "Bearer two");
        tokens.check(&with("Bearer one")).unwrap();
        for broken in ["", "no token at all"] {
            std::fs::write(&path, broken).unwrap();
            tokens.look(seconds(100));
            assert!(tokens.check(&HeaderMap::new()).is_err());
            tokens.check(&with("Bearer two")).unwrap();
        }
        std::fs::remove_file(&path).unwrap();
        tokens.look(seconds(200));
        assert!(tokens.check(&HeaderMap::new()).is_err());
        std::fs::write(&path, "three").unwrap();
        tokens.look(seconds(300));
        assert!(tokens.check(&with("Bearer two")).is_err());
        tokens.check(&with("Bearer three")).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
    }

    fn tempfile_dir() -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dfs-token-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[tokio::test]
    async fn i35_a_guarded_port_serves_public_routes_and_refuses_the_rest_without_a_token() {
        let refused = Arc::new(Mutex::new(Vec::new()));
        let told = refused.clone();
        let guard = Guard::new(Tokens::fixed("right").unwrap(), |method, path| {
            (method, path) == ("GET", "/open")
        })
        .on_refused(Arc::new(move |request: &Request, _: &Problem| {
            told.lock().unwrap().push(request.uri().path().to_owned());
        }));
        let handlers = Router::new()
            .route(
                "/open",
                get(|| async { "open" }).post(|| async { "changed" }),
            )
            .route("/closed", get(|| async { "closed" }));
        // As the request layer does behind it.
        let router = with_fallbacks(guard.wrap(handlers));
        let ask = async |method: &str, path: &str, token: Option<&str>| {
            let mut request = Request::builder().method(method).uri(path);
            if let Some(token) = token {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let request = request.body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap()
        };
        assert_eq!(ask("GET", "/open", None).await.status(), 200);
        assert_eq!(ask("POST", "/open", None).await.status(), 401);
        let closed = ask("GET", "/closed", Some("wrong")).await;
        assert_eq!(closed.status(), 401);
        assert!(closed.headers().contains_key(WWW_AUTHENTICATE));
        assert_eq!(ask("GET", "/closed", Some("right")).await.status(), 200);
        assert_eq!(ask("PUT", "/closed", None).await.status(), 401);
        assert_eq!(ask("PUT", "/closed", Some("right")).await.status(), 405);
        assert_eq!(*refused.lock().unwrap(), ["/open", "/closed", "/closed"]);
    }
}
