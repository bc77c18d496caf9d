//! One download: resumed where it broke off while the version stays, verified, then published.

use std::time::Duration;

use dfs_client::ClientError;
use dfs_protocol::FilePath;
use http_body_util::BodyExt as _;
use serde::Serialize;

use super::progress::Progress;
use super::sink::{Sink, Target, Written};
use crate::exit::{Exit, Failure};
use crate::output::stdout_failure;
use crate::session::{AfterError, Session};
use crate::store::{Download, FileHead, read_crc64};

/// A download that brings no byte for this long is broken.
const STALLED: Duration = Duration::from_mins(1);
/// A try that brought this much starts the count of retries anew.
const HEADWAY: u64 = 1024 * 1024;

/// A download that is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Downloaded {
    /// Where it lives in the store.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Its version.
    pub etag: Option<String>,
    /// CRC64-NVME, base64, as the server told.
    pub crc64nvme: Option<String>,
    /// Whether the bytes were compared with the checksum.
    pub verified: bool,
    /// How often it was taken up again after it had broken off.
    pub resumed: u32,
}

/// Gets `path` into `target`. `announced`: the caller told the progress of the bytes already.
pub async fn download(
    session: &Session,
    path: &FilePath,
    target: Target,
    announced: bool,
    progress: &Progress,
) -> Result<Downloaded, Failure> {
    let what = format!("get {path}");
    let is_output = matches!(target, Target::Output(_));
    let local = |error: &std::io::Error| {
        if is_output && error.kind() == std::io::ErrorKind::BrokenPipe {
            stdout_failure(error)
        } else {
            Failure::local(&what, error)
        }
    };
    let mut one = One {
        session,
        path,
        what: &what,
        progress,
        announced,
        state: None,
        resumed: 0,
    };
    let brought = one.bring(target).await?;
    let Some(State { head, sink, .. }) = one.state.take() else {
        return Err(Failure::new(Exit::Failed, &what, "nothing was received"));
    };
    let written = sink.finish().await.map_err(|error| local(&error))?;
    if !brought {
        return Err(Failure::new(Exit::Failed, &what, "writing ended early"));
    }
    let verified = check(&what, &head, &written)?;
    let size = written.length;
    let published = tokio::task::spawn_blocking(move || written.publish()).await;
    published
        .map_err(std::io::Error::other)
        .and_then(|result| result)
        .map_err(|error| local(&error))?;
    Ok(Downloaded {
        path: path.to_string(),
        size,
        etag: head.etag,
        crc64nvme: head.crc64nvme,
        verified,
        resumed: one.resumed,
    })
}

struct One<'a> {
    session: &'a Session,
    path: &'a FilePath,
    what: &'a str,
    progress: &'a Progress,
    announced: bool,
    /// Set from the first answer on: until then nothing is made on the local disk.
    state: Option<State>,
    resumed: u32,
}

struct State {
    head: FileHead,
    sink: Sink,
    offset: u64,
}

/// How one answer's body ended.
enum End {
    Whole,
    Broken(ClientError),
    /// The local side cannot take more.
    SinkClosed,
}

impl One<'_> {
    /// Brings every byte to the sink. False when the sink closed early.
    async fn bring(&mut self, target: Target) -> Result<bool, Failure> {
        let mut target = Some(target);
        let mut retries = 0;
        loop {
            let before = self.offset();
            let error = match self.ask().await {
                Err(error) => error,
                Ok(download) => {
                    self.session.reached();
                    if !self.begin(&download, &mut target).await? {
                        return Ok(false);
                    }
                    match self.receive(download).await {
                        End::Whole => return Ok(true),
                        End::SinkClosed => return Ok(false),
                        End::Broken(error) => error,
                    }
                }
            };
            if self.offset() >= before + HEADWAY {
                retries = 0;
            }
            if self.session.pause(self.what, &error, retries).await == AfterError::GiveUp {
                return Err(Failure::request(self.what, &error));
            }
            retries += 1;
        }
    }

    fn offset(&self) -> u64 {
        self.state.as_ref().map_or(0, |state| state.offset)
    }

    async fn ask(&self) -> Result<Download, ClientError> {
        let resume = self.state.as_ref().and_then(|state| {
            let etag = state.head.etag.as_deref()?;
            (state.offset > 0).then_some((state.offset, etag))
        });
        self.session.store.get(self.path, resume).await
    }

    /// Takes up an answer: the first, the rest of the same version, or another version from its
    /// start. False when the sink closed early.
    async fn begin(
        &mut self,
        download: &Download,
        target: &mut Option<Target>,
    ) -> Result<bool, Failure> {
        let Some(state) = &mut self.state else {
            if let Some(target) = target.take() {
                if !self.announced {
                    self.progress.found(download.head.size.unwrap_or(0));
                }
                self.state = Some(State {
                    head: download.head.clone(),
                    sink: Sink::open(target),
                    offset: 0,
                });
            }
            return Ok(true);
        };
        if state.offset > 0 {
            self.resumed += 1;
        }
        if download.start == state.offset && download.head.etag == state.head.etag {
            return Ok(true);
        }
        if download.start != 0 {
            return Err(Failure::new(
                Exit::Failed,
                self.what,
                "the server answered with another range than was asked for",
            ));
        }
        self.progress.rewind(state.offset);
        state.head = download.head.clone();
        state.offset = 0;
        Ok(state.sink.restart().await)
    }

    async fn receive(&mut self, download: Download) -> End {
        let address = self.session.store.address();
        let Some(state) = &mut self.state else {
            return End::SinkClosed;
        };
        let mut body = download.body;
        loop {
            let frame = match tokio::time::timeout(STALLED, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) if state.head.size.is_none_or(|size| size == state.offset) => {
                    return End::Whole;
                }
                Ok(None) => return End::Broken(broken(address, "the file ended early")),
                Ok(Some(Err(error))) => {
                    return End::Broken(broken(address, &error.to_string()));
                }
                Err(_) => {
                    return End::Broken(ClientError::TimedOut {
                        address: address.to_owned(),
                        seconds: STALLED.as_secs(),
                    });
                }
            };
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            let length = piece.len() as u64;
            if !state.sink.data(piece).await {
                return End::SinkClosed;
            }
            state.offset += length;
            self.progress.advance(length);
        }
    }
}

fn broken(address: &str, detail: &str) -> ClientError {
    ClientError::Unreachable {
        address: address.to_owned(),
        detail: format!("the connection broke: {detail}"),
    }
}

/// Compares what was written with what the server told. False when it told no checksum.
fn check(what: &str, head: &FileHead, written: &Written) -> Result<bool, Failure> {
    let wrong = |why: String| {
        Failure::new(Exit::Integrity, what, why).next(
            "get it again; if it persists, `dfs fsck` and the network between here and the store \
             need a look",
        )
    };
    if let Some(size) = head.size
        && size != written.length
    {
        return Err(wrong(format!(
            "{} bytes arrived, the file has {size}",
            written.length
        )));
    }
    match head.crc64nvme.as_deref() {
        None => Ok(false),
        Some(text) if read_crc64(text) == Some(written.crc64nvme) => Ok(true),
        Some(_) => Err(wrong(
            "the bytes that arrived do not match the file's checksum; nothing was kept".to_owned(),
        )),
    }
}
