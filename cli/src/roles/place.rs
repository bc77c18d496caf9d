//! A role's place on this machine: ports and directories, with errors that say what to do.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dfs_runtime::disk::{DiskLock, OpenMode, SharedDisk};
use tokio::net::TcpListener;

use crate::exit::{Exit, Failure};

/// Looked for when a directory is tried; never left behind.
const PROBE: &str = ".write-probe.staged";

/// Listens on `address`; `option` is what names another port.
pub(super) async fn bind(address: SocketAddr, option: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        let what = format!("listen on {address}");
        let (why, next) = match error.kind() {
            io::ErrorKind::AddrInUse => (
                format!("port {} is in use", address.port()),
                format!("end what listens there, or choose another port with {option}"),
            ),
            io::ErrorKind::PermissionDenied => (
                format!("port {} needs privileges", address.port()),
                format!("choose a port from 1024 on with {option}"),
            ),
            io::ErrorKind::AddrNotAvailable => (
                format!("{} is no address of this machine", address.ip()),
                "choose another with --listen".to_owned(),
            ),
            _ => (
                error.to_string(),
                format!("choose another with --listen or {option}"),
            ),
        };
        Failure::new(Exit::Failed, what, why).next(next)
    })
}

/// Makes the directory, and makes sure that it can be written.
pub(super) async fn prepare(disk: SharedDisk, dir: PathBuf) -> Result<(), Failure> {
    blocking(move || {
        try_directory(&disk, &dir).map_err(|error| {
            let what = format!("use the directory {}", dir.display());
            let failure = Failure::local(what, &error);
            failure.next("give one that can be written with --dir")
        })
    })
    .await
}

fn try_directory(disk: &SharedDisk, dir: &Path) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    let probe = dir.join(PROBE);
    disk.open(&probe, OpenMode::OpenOrCreate)?;
    disk.remove(&probe)
}

/// Keeps `dir` for this process; `user` is what else might have it.
pub(super) async fn lock(
    disk: SharedDisk,
    dir: PathBuf,
    name: &'static str,
    user: &'static str,
) -> Result<Box<dyn DiskLock>, Failure> {
    blocking(move || {
        disk.lock(&dir.join(name)).map_err(|error| {
            let what = format!("use the directory {}", dir.display());
            if error.kind() == io::ErrorKind::WouldBlock {
                Failure::new(Exit::Failed, what, format!("another {user} has it"))
                    .next("end that one, or give this one another directory with --dir")
            } else {
                Failure::local(what, &error)
            }
        })
    })
    .await
}

/// Does blocking work on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::new(Exit::Failed, "dfs", error.to_string())),
    }
}

/// A failure of a role: its error says what, why and what next in one sentence.
pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Failed, what, error.to_string())
}

#[cfg(test)]
mod tests {
    use dfs_runtime::disk::RealDisk;

    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_option_that_helps() {
        let taken = bind("127.0.0.1:0".parse().unwrap(), "--port")
            .await
            .unwrap();
        let address = taken.local_addr().unwrap();
        let text = bind(address, "--port").await.unwrap_err().render();
        assert!(
            text.contains(&format!("port {} is in use", address.port())),
            "{text}"
        );
        assert!(text.contains("--port"), "{text}");
    }

    #[tokio::test]
    async fn a_directory_is_made_and_one_that_cannot_be_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        prepare(RealDisk::shared(), inner.clone()).await.unwrap();
        assert_eq!(std::fs::read_dir(&inner).unwrap().count(), 0);
        std::fs::write(dir.path().join("file"), "x").unwrap();
        let blocked = prepare(RealDisk::shared(), dir.path().join("file/c")).await;
        let text = blocked.unwrap_err().render();
        assert!(
            text.contains("--dir") && !text.contains("os error"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_directory_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let take = || {
            lock(
                RealDisk::shared(),
                dir.path().to_path_buf(),
                "lock",
                "dfs dev",
            )
        };
        let held = take().await.unwrap();
        let text = take().await.unwrap_err().render();
        assert!(text.contains("another dfs dev has it"), "{text}");
        drop(held);
        take().await.unwrap();
    }
}
