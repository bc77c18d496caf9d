//! Incompressible bytes, cheap to make: slices of one random buffer, from another place each time.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use dfs_client::http::RequestBody;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

/// Bytes of one frame of a request.
const STEP: usize = 256 * 1024;
/// Bytes of random content; longer bodies repeat it, shifted.
const POOL: usize = 32 * 1024 * 1024;

/// Between the parts of a form.
const BOUNDARY: &str = "dfs-bench-boundary";
/// What a form says that it is.
pub(super) const FORM_TYPE: &str = "multipart/form-data; boundary=dfs-bench-boundary";

/// Random bytes that all bodies share.
#[derive(Debug, Clone)]
pub(super) struct Source(Bytes);

impl Source {
    pub(super) fn new(seed: u64) -> Self {
        let mut bytes = vec![0; POOL];
        fastrand::Rng::with_seed(seed).fill(&mut bytes);
        Self(bytes.into())
    }

    /// A body of `length` bytes that is never in memory as a whole.
    pub(super) fn body(&self, length: u64, start: usize) -> RequestBody {
        self.between(Bytes::new(), length, start, Bytes::new())
    }

    /// The same as the file of a form of [`FORM_TYPE`].
    pub(super) fn form(&self, name: &str, length: u64, start: usize) -> RequestBody {
        let head = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             content-type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{BOUNDARY}--\r\n");
        self.between(head.into(), length, start, tail.into())
    }

    fn between(&self, before: Bytes, length: u64, start: usize, after: Bytes) -> RequestBody {
        let generated = Generated {
            before,
            pool: self.0.clone(),
            at: start * 4096 % (POOL - STEP),
            left: length,
            after,
        };
        generated.map_err(|never| match never {}).boxed()
    }

    /// Writes a body to a file, as the first one that [`Self::body`] makes.
    pub(super) async fn write(&self, path: &Path, length: u64) -> io::Result<()> {
        let mut file = File::create(path)?;
        let mut body = self.body(length, 0);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(io::Error::other)?;
            if let Some(data) = frame.data_ref() {
                file.write_all(data)?;
            }
        }
        file.sync_data()
    }

    /// Some bytes.
    pub(super) fn slice(&self, length: usize, start: usize) -> Bytes {
        let at = start * 4096 % (POOL - length);
        self.0.slice(at..at + length)
    }
}

struct Generated {
    before: Bytes,
    pool: Bytes,
    at: usize,
    left: u64,
    after: Bytes,
}

impl Body for Generated {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.before.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.before)))));
        }
        if self.left == 0 {
            let after = std::mem::take(&mut self.after);
            return Poll::Ready((!after.is_empty()).then(|| Ok(Frame::data(after))));
        }
        let take = STEP.min(usize::try_from(self.left).unwrap_or(STEP));
        let data = self.pool.slice(self.at..self.at + take);
        self.left -= take as u64;
        // An odd step: the next time round the content lies elsewhere in its blocks.
        self.at = (self.at + take + 4097) % (POOL - STEP);
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left + (self.before.len() + self.after.len()) as u64)
    }
}

/// An error of a body as one of I/O.
pub(super) fn broken(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
