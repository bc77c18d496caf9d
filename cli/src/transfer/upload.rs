//! One upload: sent again while that may help, compared with what the server computed.

use std::time::Duration;

use bytes::Bytes;
use dfs_client::ClientError;
use dfs_client::http::{RequestBody, whole};
use dfs_protocol::{ErrorCode, FilePath};

use super::progress::Progress;
use super::source::{LargeFile, Opened, Reading, Source, streamed};
use crate::exit::{Exit, Failure};
use crate::session::{AfterError, Session};
use crate::store::{FileGuard, PutAnswer, Upload, read_crc64};

/// An upload that moves no byte for this long is broken off.
const STALLED: Duration = Duration::from_mins(2);
/// How often a watched upload is looked at.
const GLANCE: Duration = Duration::from_millis(200);

/// How a file is put.
#[derive(Debug, Clone, Default)]
pub struct UploadOptions {
    /// What must be true of the path.
    pub guard: FileGuard,
    /// Media type.
    pub content_type: Option<String>,
}

/// Puts `source` (called `name` in messages) at `target`. The answer's checksum was compared with
/// the bytes that were sent. The progress learns of bytes as they leave; the caller announces them.
pub async fn upload(
    session: &Session,
    source: Source,
    name: &str,
    target: &FilePath,
    options: &UploadOptions,
    progress: &Progress,
) -> Result<PutAnswer, Failure> {
    let what = format!("put {name}");
    let opened = blocking(&what, move || source.open()).await?;
    let one = One {
        session,
        what: &what,
        target,
        options,
        progress,
    };
    match opened {
        Opened::Small { bytes, crc } => one.small(bytes, crc).await,
        Opened::Large(file) => one.large(file).await,
        Opened::Stream { head, rest } => {
            let (body, reading) = streamed(head, rest, None);
            one.stream(body, &reading).await
        }
    }
}

struct One<'a> {
    session: &'a Session,
    what: &'a str,
    target: &'a FilePath,
    options: &'a UploadOptions,
    progress: &'a Progress,
}

impl One<'_> {
    async fn small(&self, bytes: Bytes, crc: u64) -> Result<PutAnswer, Failure> {
        let length = bytes.len() as u64;
        let mut retries = 0;
        loop {
            let request = self.request(whole(bytes.clone()), Some(length), Some(crc));
            let sent = self.watched(request, &Reading::default()).await;
            if let Some(answer) = self.settle(sent, &mut retries, (crc, length)).await? {
                self.progress.advance(length);
                return Ok(answer);
            }
        }
    }

    async fn large(&self, file: LargeFile) -> Result<PutAnswer, Failure> {
        let mut retries = 0;
        loop {
            let (body, reading) = file.body();
            let request = self.request(body, Some(file.length), None);
            let sent = self.watched(request, &reading).await;
            if let Some(error) = reading.take_error() {
                return Err(Failure::local(self.what, &error));
            }
            // An answer before everything was read is a refusal: nothing to compare.
            let checksum = reading.checksum().unwrap_or_default();
            if let Some(answer) = self.settle(sent, &mut retries, checksum).await? {
                let path = file.path.clone();
                let changed = tokio::task::spawn_blocking(move || file.has_changed()).await;
                if changed.unwrap_or(false) {
                    let path = path.display();
                    self.session.out.warn(&format!(
                        "{path} changed while it was read: the store may hold a mixture"
                    ));
                }
                return Ok(answer);
            }
            self.progress.rewind(reading.taken());
        }
    }

    async fn stream(&self, body: RequestBody, reading: &Reading) -> Result<PutAnswer, Failure> {
        let sent = self.watched(self.request(body, None, None), reading).await;
        if let Some(error) = reading.take_error() {
            return Err(Failure::local(self.what, &error));
        }
        let answer = sent.map_err(|error| {
            let failure = Failure::request(self.what, &error);
            if error.is_transient() {
                failure.next("run the pipeline again: its output cannot be read twice")
            } else {
                failure
            }
        })?;
        self.session.reached();
        self.verify(&answer, reading.checksum().unwrap_or_default())?;
        Ok(answer)
    }

    fn request(&self, body: RequestBody, length: Option<u64>, crc: Option<u64>) -> Upload {
        Upload {
            body,
            length,
            crc64nvme: crc,
            content_type: self.options.content_type.clone(),
            guard: self.options.guard,
        }
    }

    /// Sends, tells the progress, and gives up when nothing moves.
    async fn watched(&self, request: Upload, reading: &Reading) -> Result<PutAnswer, ClientError> {
        let store = &self.session.store;
        let mut sent = std::pin::pin!(store.put(self.target, request));
        let (mut seen, mut still) = (0, Duration::ZERO);
        loop {
            let result = tokio::time::timeout(GLANCE, &mut sent).await;
            let taken = reading.taken();
            self.progress.advance(taken - seen);
            still = if taken > seen {
                Duration::ZERO
            } else {
                still + GLANCE
            };
            seen = taken;
            match result {
                Ok(result) => return result,
                Err(_) if still < STALLED => {}
                Err(_) => {
                    return Err(ClientError::TimedOut {
                        address: store.address().to_owned(),
                        seconds: STALLED.as_secs(),
                    });
                }
            }
        }
    }

    /// What follows from one try: an answer, another try (`None`), or the end.
    async fn settle(
        &self,
        sent: Result<PutAnswer, ClientError>,
        retries: &mut u32,
        checksum: (u64, u64),
    ) -> Result<Option<PutAnswer>, Failure> {
        let error = match sent {
            Ok(answer) => {
                self.session.reached();
                self.verify(&answer, checksum)?;
                return Ok(Some(answer));
            }
            Err(error) => error,
        };
        if *retries > 0
            && error.is(ErrorCode::PreconditionFailed)
            && let Some(answer) = self.earlier_try(checksum).await
        {
            return Ok(Some(answer));
        }
        match self.session.pause(self.what, &error, *retries).await {
            AfterError::TryAgain => {
                *retries += 1;
                Ok(None)
            }
            AfterError::GiveUp => Err(Failure::request(self.what, &error)),
        }
    }

    /// A try whose answer was lost may have been the one that put the file there: then the
    /// precondition of the next one fails on our own bytes.
    async fn earlier_try(&self, (crc, length): (u64, u64)) -> Option<PutAnswer> {
        let head = self.session.store.head(self.target).await.ok()?;
        let ours = head.size == Some(length)
            && head.crc64nvme.as_deref().and_then(read_crc64) == Some(crc);
        ours.then(|| PutAnswer {
            path: head.path,
            size: length,
            etag: head.etag.unwrap_or_default(),
            checksum: crate::store::Checksum {
                crc64nvme: head.crc64nvme,
            },
            chunks: serde_json::Value::Null,
            replicas: serde_json::Value::Null,
            replica_count: 0,
            wanted: 0,
        })
    }

    /// Compares what the server stored with what was sent.
    fn verify(&self, answer: &PutAnswer, (crc, length): (u64, u64)) -> Result<(), Failure> {
        let stored = answer.checksum.crc64nvme.as_deref();
        let wrong = if answer.size != length {
            format!("{length} bytes were sent, the store holds {}", answer.size)
        } else if stored.is_some_and(|stored| read_crc64(stored) != Some(crc)) {
            "the checksum of what the store holds is not that of what was sent".to_owned()
        } else {
            return Ok(());
        };
        Err(Failure::new(Exit::Integrity, self.what, wrong)
            .next(format!("put it again, or remove `{}`", self.target)))
    }
}

async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| Failure::local(what, &error)),
        Err(error) => Err(Failure::new(Exit::Failed, what, error.to_string())),
    }
}
