//! Where the bytes of an upload come from.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use dfs_client::http::RequestBody;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use super::RunningCrc64;

/// Files up to this size are read before they are sent: their checksum goes ahead of them.
pub(super) const SMALL: u64 = 1024 * 1024;
/// Bytes read at once from larger ones; a few of these are all the memory of an upload.
const PIECE: u64 = 256 * 1024;
/// Pieces read ahead.
const READ_AHEAD: usize = 4;

/// Where the bytes of an upload come from.
pub enum Source {
    /// A local file; or a pipe that has a path.
    File(PathBuf),
    /// Something that can be read once: standard input.
    Stream(Box<dyn Read + Send>),
}

/// A source that was looked at.
pub(super) enum Opened {
    /// All of it.
    Small { bytes: Bytes, crc: u64 },
    /// A regular file.
    Large(LargeFile),
    /// What was read of a stream, and the rest of it.
    Stream {
        head: Bytes,
        rest: Box<dyn Read + Send>,
    },
}

/// A regular file of known length. Reads have explicit positions: it can be sent again.
#[derive(Clone)]
pub(super) struct LargeFile {
    file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) length: u64,
    stamp: (u64, i64, i64),
}

impl Source {
    /// Opens it and reads what is small. Blocks.
    pub(super) fn open(self) -> io::Result<Opened> {
        let path = match self {
            Self::Stream(stream) => return open_stream(stream),
            Self::File(path) => path,
        };
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !metadata.is_file() {
            return open_stream(Box::new(file));
        }
        if metadata.len() <= SMALL {
            let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
            (&file).take(SMALL + 1).read_to_end(&mut bytes)?;
            // Otherwise it grew meanwhile and is sent as a large one.
            if bytes.len() as u64 <= SMALL {
                return Ok(small(bytes));
            }
        }
        let metadata = file.metadata()?;
        Ok(Opened::Large(LargeFile {
            file: Arc::new(file),
            length: metadata.len(),
            stamp: stamp(&metadata),
            path,
        }))
    }
}

fn open_stream(mut stream: Box<dyn Read + Send>) -> io::Result<Opened> {
    let mut head = Vec::new();
    stream.by_ref().take(SMALL + 1).read_to_end(&mut head)?;
    if head.len() as u64 <= SMALL {
        return Ok(small(head));
    }
    Ok(Opened::Stream {
        head: head.into(),
        rest: stream,
    })
}

fn small(bytes: Vec<u8>) -> Opened {
    Opened::Small {
        crc: dfs_protocol::checksum::crc64nvme(&bytes),
        bytes: bytes.into(),
    }
}

impl LargeFile {
    /// The body of one try, and how it goes.
    pub(super) fn body(&self) -> (RequestBody, Arc<Reading>) {
        let at = FileAt {
            file: self.file.clone(),
            offset: 0,
        };
        streamed(Bytes::new(), Box::new(at), Some(self.length))
    }

    /// Whether the file is not what it was when it was opened. Blocks.
    pub(super) fn has_changed(&self) -> bool {
        let stamp_now = |path: &Path| std::fs::metadata(path).map(|metadata| stamp(&metadata));
        stamp_now(&self.path).is_ok_and(|now| now != self.stamp)
    }
}

fn stamp(metadata: &Metadata) -> (u64, i64, i64) {
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

struct FileAt {
    file: Arc<File>,
    offset: u64,
}

impl Read for FileAt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// How reading a source goes, as seen from outside.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// Bytes that the connection took.
    taken: AtomicU64,
    /// Checksum and length of everything, at the end; or why it could not be read.
    end: Mutex<Option<io::Result<RunningCrc64>>>,
}

impl Reading {
    /// Bytes that the connection took so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Why the source could not be read, if it could not.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        match end.take() {
            Some(Err(error)) => Some(error),
            other => {
                *end = other;
                None
            }
        }
    }

    /// CRC64-NVME and bytes, once everything was read.
    pub(super) fn checksum(&self) -> Option<(u64, u64)> {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
        match &*end {
            Some(Ok(crc)) => Some((crc.value(), crc.length)),
            _ => None,
        }
    }

    fn ended(&self, end: io::Result<RunningCrc64>) {
        *self.end.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
    }
}

/// A body of `head`, then `rest`; `length` bytes in all where that is known.
pub(super) fn streamed(
    head: Bytes,
    rest: Box<dyn Read + Send>,
    length: Option<u64>,
) -> (RequestBody, Arc<Reading>) {
    let reading = Arc::new(Reading::default());
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let body = PieceBody {
        receiver,
        remaining: length,
        reading: reading.clone(),
    };
    let pump_reading = reading.clone();
    tokio::task::spawn_blocking(move || pump(head, rest, length, &sender, &pump_reading));
    (body.boxed(), reading)
}

/// Reads pieces until the end, or until nobody takes them. The end is noted before the last piece
/// leaves, so that an answer never overtakes it.
fn pump(
    head: Bytes,
    mut rest: Box<dyn Read + Send>,
    length: Option<u64>,
    sender: &mpsc::Sender<io::Result<Bytes>>,
    reading: &Reading,
) {
    let mut crc = RunningCrc64::default();
    let mut piece = head;
    loop {
        if !piece.is_empty() {
            crc.push(&piece);
        }
        let next = if length == Some(crc.length) {
            Ok(Bytes::new())
        } else {
            let left = length.map_or(PIECE, |length| PIECE.min(length - crc.length));
            read_piece(&mut rest, left)
        };
        let next = match next {
            Ok(next) if next.is_empty() && length.is_some_and(|length| crc.length < length) => {
                Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it became shorter while it was read",
                ))
            }
            next => next,
        };
        let next = match next {
            Ok(next) => next,
            Err(error) => {
                let copy = io::Error::new(error.kind(), error.to_string());
                reading.ended(Err(error));
                let _nobody_listens = sender.blocking_send(Err(copy));
                return;
            }
        };
        let last = next.is_empty();
        if last {
            reading.ended(Ok(crc));
        }
        if !piece.is_empty() && sender.blocking_send(Ok(piece)).is_err() {
            return;
        }
        if last {
            return;
        }
        piece = next;
    }
}

fn read_piece(input: &mut dyn Read, limit: u64) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(usize::try_from(limit).unwrap_or(0));
    input.take(limit).read_to_end(&mut piece)?;
    Ok(piece.into())
}

struct PieceBody {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    remaining: Option<u64>,
    reading: Arc<Reading>,
}

impl http_body::Body for PieceBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let polled = self.receiver.poll_recv(cx);
        if let Poll::Ready(Some(Ok(piece))) = &polled {
            let length = piece.len() as u64;
            self.reading.taken.fetch_add(length, Ordering::Relaxed);
            self.remaining = self.remaining.map(|left| left.saturating_sub(length));
        }
        polled.map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.remaining == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.remaining
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_protocol::checksum::crc64nvme;

    async fn drain(source: Source) -> (Vec<u8>, Option<(u64, u64)>, Option<io::Error>) {
        let opened = source.open().unwrap();
        let (body, reading) = match opened {
            Opened::Small { .. } => panic!("not small"),
            Opened::Large(file) => file.body(),
            Opened::Stream { head, rest } => streamed(head, rest, None),
        };
        let bytes = body.collect().await.map(|body| body.to_bytes().to_vec());
        let checksum = reading.checksum();
        (bytes.unwrap_or_default(), checksum, reading.take_error())
    }

    fn data(length: usize) -> Vec<u8> {
        (0..=250).cycle().take(length).collect()
    }

    #[tokio::test]
    async fn streams_and_files_give_their_bytes_and_their_checksum() {
        let bytes = data(3 * 1024 * 1024 + 7);
        let crc = (crc64nvme(&bytes), bytes.len() as u64);
        let stream = Source::Stream(Box::new(io::Cursor::new(bytes.clone())));
        let (got, checksum, _) = drain(stream).await;
        assert!(got == bytes);
        assert_eq!(checksum, Some(crc));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let (got, checksum, _) = drain(Source::File(file.path().to_path_buf())).await;
        assert!(got == bytes);
        assert_eq!(checksum, Some(crc));
    }

    #[tokio::test]
    async fn a_file_that_shrinks_breaks_the_body_and_says_why() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), data(2 * 1024 * 1024)).unwrap();
        let Opened::Large(large) = Source::File(file.path().to_path_buf()).open().unwrap() else {
            panic!("large");
        };
        std::fs::write(file.path(), data(10)).unwrap();
        let (body, reading) = large.body();
        assert!(body.collect().await.is_err());
        assert!(
            reading
                .take_error()
                .unwrap()
                .to_string()
                .contains("shorter")
        );
        assert!(large.has_changed());
    }

    #[test]
    fn small_sources_are_read_at_once() {
        for length in [0, 5, 1024 * 1024] {
            let bytes = data(length);
            let stream = Source::Stream(Box::new(io::Cursor::new(bytes.clone())));
            let Opened::Small { bytes: got, crc } = stream.open().unwrap() else {
                panic!("small");
            };
            assert!(got == bytes);
            assert_eq!(crc, crc64nvme(&bytes));
        }
    }
}
