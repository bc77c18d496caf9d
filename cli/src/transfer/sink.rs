//! Where the bytes of a download go: a file that appears whole or not at all, or a pipe.

use std::fs::{self, File};
use std::io::{self, BufReader, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::RunningCrc64;
use crate::output::SharedWriter;

/// Pieces that may wait for the disk.
const QUEUED: usize = 8;
/// How much of the local file a comparison reads at once.
const COMPARED_AT_ONCE: usize = 64 * 1024;

/// Where the bytes of a download go.
#[derive(Clone)]
pub enum Target {
    /// A local file. Directories above it are made.
    File(PathBuf),
    /// Standard output.
    Output(SharedWriter),
    /// Nowhere: every byte is compared with this local file's.
    Compare(PathBuf),
}

/// A download's writing end.
pub(super) struct Sink {
    orders: mpsc::Sender<Order>,
    writer: JoinHandle<io::Result<Written>>,
}

enum Order {
    Data(Bytes),
    /// Everything so far was of another version.
    Restart,
}

/// Everything was written; nothing shows yet.
pub(super) struct Written {
    pub(super) crc64nvme: u64,
    pub(super) length: u64,
    staged: Option<Staged>,
}

impl Sink {
    /// Starts writing.
    pub(super) fn open(target: Target) -> Self {
        let (orders, receiver) = mpsc::channel(QUEUED);
        let writer = tokio::task::spawn_blocking(move || write(target, receiver));
        Self { orders, writer }
    }

    /// Writes a piece. False when the writer gave up: [`Self::finish`] tells why.
    pub(super) async fn data(&self, piece: Bytes) -> bool {
        self.orders.send(Order::Data(piece)).await.is_ok()
    }

    /// Forgets everything written; an error at the end where that cannot be.
    pub(super) async fn restart(&self) -> bool {
        self.orders.send(Order::Restart).await.is_ok()
    }

    /// Waits until everything is written.
    pub(super) async fn finish(self) -> io::Result<Written> {
        drop(self.orders);
        self.writer.await.map_err(io::Error::other)?
    }
}

impl Written {
    /// Gives the file its name. Blocks.
    pub(super) fn publish(self) -> io::Result<()> {
        match self.staged {
            Some(staged) => staged.publish(),
            None => Ok(()),
        }
    }
}

/// Blocks until there are no more orders.
fn write(target: Target, mut orders: mpsc::Receiver<Order>) -> io::Result<Written> {
    let mut place = Place::open(target)?;
    let mut crc = RunningCrc64::default();
    while let Some(order) = orders.blocking_recv() {
        match order {
            Order::Data(piece) => {
                place.write(&piece)?;
                crc.push(&piece);
            }
            Order::Restart => {
                place.restart(crc.length)?;
                crc = RunningCrc64::default();
            }
        }
    }
    let staged = match place {
        Place::Staged(staged) => Some(staged),
        Place::Direct(mut file) => {
            file.flush()?;
            None
        }
        Place::Output(output) => {
            output
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .flush()?;
            None
        }
        Place::Compare(local) => {
            local.ended(crc.length)?;
            None
        }
    };
    Ok(Written {
        crc64nvme: crc.value(),
        length: crc.length,
        staged,
    })
}

enum Place {
    Staged(Staged),
    /// A device or a pipe: there is nothing to rename over it.
    Direct(File),
    Output(SharedWriter),
    Compare(Compared),
}

impl Place {
    fn open(target: Target) -> io::Result<Self> {
        let path = match target {
            Target::Output(output) => return Ok(Self::Output(output)),
            Target::Compare(path) => return Ok(Self::Compare(Compared::open(&path)?)),
            Target::File(path) => path,
        };
        match fs::metadata(&path) {
            Ok(there) if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(there) if !there.is_file() => {
                Ok(Self::Direct(File::options().write(true).open(&path)?))
            }
            // Through a link, as cp does.
            Ok(_) => Ok(Self::Staged(Staged::create(&fs::canonicalize(&path)?)?)),
            Err(_) => Ok(Self::Staged(Staged::create(&path)?)),
        }
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Staged(staged) => staged.file.write_all(piece),
            Self::Direct(file) => file.write_all(piece),
            Self::Output(output) => output
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .write_all(piece),
            Self::Compare(local) => local.compare(piece),
        }
    }

    fn restart(&mut self, written: u64) -> io::Result<()> {
        match self {
            Self::Staged(staged) => {
                staged.file.set_len(0)?;
                staged.file.rewind()
            }
            Self::Compare(local) => local.file.rewind(),
            Self::Direct(_) | Self::Output(_) if written == 0 => Ok(()),
            Self::Direct(_) | Self::Output(_) => Err(io::Error::other(
                "the file was replaced while it was read, and what was written cannot be unwritten",
            )),
        }
    }
}

/// The local side of a comparison.
struct Compared {
    file: BufReader<File>,
}

impl Compared {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: BufReader::with_capacity(COMPARED_AT_ONCE, File::open(path)?),
        })
    }

    /// The next bytes of both must be the same.
    fn compare(&mut self, piece: &[u8]) -> io::Result<()> {
        let offset = self.file.stream_position()?;
        let mut same = vec![0; piece.len()];
        match self.file.read_exact(&mut same) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(differs("the local file is shorter".to_owned()));
            }
            Err(error) => return Err(error),
        }
        match piece
            .iter()
            .zip(&same)
            .position(|(there, here)| there != here)
        {
            None => Ok(()),
            Some(at) => Err(differs(format!(
                "the local file differs at byte {}",
                offset + at as u64
            ))),
        }
    }

    /// The store's file ended after `length` bytes: so must the local one.
    fn ended(mut self, length: u64) -> io::Result<()> {
        match self.file.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(differs(format!(
                "the local file goes on after byte {length}"
            ))),
        }
    }
}

fn differs(how: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, how)
}

/// A file under a temporary name next to its target; removed unless published.
struct Staged {
    file: File,
    path: PathBuf,
    target: PathBuf,
    published: bool,
}

impl Staged {
    fn create(target: &Path) -> io::Result<Self> {
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent)?;
        // Short whatever the target's name: that one may already be as long as names can be.
        let path = parent.join(format!(".dfs-{:016x}.part", fastrand::u64(..)));
        Ok(Self {
            file: File::create_new(&path)?,
            path,
            target: target.to_path_buf(),
            published: false,
        })
    }

    fn publish(mut self) -> io::Result<()> {
        fs::rename(&self.path, &self.target)?;
        self.published = true;
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // Already gone, or in a place that can no longer be written: nothing more to do.
            let _left_over = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_file_appears_when_published_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let sink = Sink::open(Target::File(path.clone()));
        assert!(sink.data(Bytes::from_static(b"old")).await);
        assert!(sink.restart().await);
        assert!(sink.data(Bytes::from_static(b"new")).await);
        let written = sink.finish().await.unwrap();
        assert!(!path.exists());
        assert_eq!(written.length, 3);
        assert_eq!(written.crc64nvme, dfs_protocol::checksum::crc64nvme(b"new"));
        written.publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(&dir.path().join("a")), ["b"]);
    }

    #[tokio::test]
    async fn what_is_not_published_leaves_nothing_and_keeps_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        fs::write(&path, "old").unwrap();
        let sink = Sink::open(Target::File(path.clone()));
        assert!(sink.data(Bytes::from_static(b"new")).await);
        drop(sink.finish().await.unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["b"]);
    }

    #[tokio::test]
    async fn devices_are_written_to_and_never_replaced() {
        let sink = Sink::open(Target::File(PathBuf::from("/dev/null")));
        assert!(sink.data(Bytes::from_static(b"x")).await);
        sink.finish().await.unwrap().publish().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[tokio::test]
    async fn a_link_is_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let sink = Sink::open(Target::File(link.clone()));
        assert!(sink.data(Bytes::from_static(b"new")).await);
        sink.finish().await.unwrap().publish().unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert!(link.is_symlink());
    }
}
