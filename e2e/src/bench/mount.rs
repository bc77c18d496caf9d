//! A store that is reached as a mounted file system: the same operations by blocking threads. A body is
//! written, synced and closed before it counts.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use dfs_client::http::RequestBody;
use futures_util::FutureExt;
use http_body_util::BodyExt;

use super::writes::blocking;

/// Bytes of one read.
const STEP: usize = 1024 * 1024;

/// Where it is mounted.
#[derive(Debug, Clone)]
pub(super) struct Mount(pub(super) PathBuf);

impl Mount {
    fn path(&self, key: &str) -> PathBuf {
        self.0.join(key)
    }

    pub(super) async fn put(&self, key: &str, mut body: RequestBody) -> io::Result<()> {
        let path = self.path(key);
        blocking(move || {
            let mut file = with_parent(&path, || File::create(&path))?;
            // Bodies of the bench are slices of memory: none has to be waited for.
            while let Some(frame) = next(&mut body)? {
                file.write_all(&frame)?;
            }
            file.sync_all()
        })
        .await
    }

    pub(super) async fn get(&self, key: &str) -> io::Result<u64> {
        let path = self.path(key);
        blocking(move || {
            let mut file = File::open(&path)?;
            let length = usize::try_from(file.metadata()?.len()).unwrap_or(STEP);
            let mut buffer = vec![0; length.clamp(1, STEP)];
            let mut bytes = 0;
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(bytes),
                    read => bytes += read as u64,
                }
            }
        })
        .await
    }

    pub(super) async fn get_range(&self, key: &str, from: u64, length: u64) -> io::Result<u64> {
        let path = self.path(key);
        let room = usize::try_from(length).map_err(io::Error::other)?;
        blocking(move || {
            let mut buffer = vec![0; room];
            File::open(&path)?.read_exact_at(&mut buffer, from)?;
            Ok(length)
        })
        .await
    }

    pub(super) async fn head(&self, key: &str) -> io::Result<()> {
        let path = self.path(key);
        blocking(move || std::fs::metadata(&path).map(drop)).await
    }

    pub(super) async fn delete(&self, key: &str) -> io::Result<()> {
        let path = self.path(key);
        blocking(move || std::fs::remove_file(&path)).await
    }

    /// An empty file that was not there before.
    pub(super) async fn create(&self, key: &str) -> io::Result<()> {
        let path = self.path(key);
        let create = move || {
            let mut options = OpenOptions::new();
            let options = options.write(true).create_new(true);
            with_parent(&path, || options.open(&path)).map(drop)
        };
        blocking(create).await
    }

    pub(super) async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (from, to) = (self.path(from), self.path(to));
        blocking(move || with_parent(&to, || std::fs::rename(&from, &to))).await
    }
}

/// Directories are made for the first file in them, as stores with plain keys need none.
fn with_parent<T>(path: &Path, run: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match (run(), path.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::create_dir_all(parent)?;
            run()
        }
        (done, _) => done,
    }
}

fn next(body: &mut RequestBody) -> io::Result<Option<bytes::Bytes>> {
    let Some(frame) = body.frame().now_or_never() else {
        return Err(io::Error::other("a body was not at hand"));
    };
    let frame = frame.transpose().map_err(io::Error::other)?;
    // Bodies of the bench have no trailers.
    Ok(frame.and_then(|frame| frame.into_data().ok()))
}

#[cfg(test)]
mod tests {
    use super::super::body::Source;
    use super::*;

    #[tokio::test]
    async fn what_was_put_is_read_moved_and_deleted_in_directories_made_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let mount = Mount(dir.path().to_path_buf());
        let source = Source::new(1);
        mount.put("a/b", source.body(300_000, 0)).await.unwrap();
        assert_eq!(mount.get("a/b").await.unwrap(), 300_000);
        assert_eq!(mount.get_range("a/b", 7, 1000).await.unwrap(), 1000);
        mount.rename("a/b", "c/d").await.unwrap();
        assert!(mount.head("a/b").await.is_err());
        mount.head("c/d").await.unwrap();
        mount.create("e/f").await.unwrap();
        assert!(mount.create("e/f").await.is_err());
        mount.delete("c/d").await.unwrap();
        assert!(mount.get("c/d").await.is_err());
    }
}
