//! Copies of the tracker's volume: backups, second trackers, and rebuilds from the datanodes.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use dfs_tracker::TrackerParts;
use dfs_tracker::rebuild::{RebuildFailure, Rebuilt, rebuild};
use dfs_tracker::store::rebuild::RebuildOptions;

use super::{Cluster, Role, fast_tracker, remove_dir};
use crate::boot::Boot;
use crate::roles;

impl Cluster {
    /// Copies the tracker's volume as a power cut would leave it now. The tracker may run, but must
    /// not be writing.
    pub fn copy_tracker(&self, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        copy_dir(&self.tracker.dir, &to);
        to
    }

    /// Kills the tracker and puts a copy of its volume in place.
    pub async fn restore_tracker(&mut self, copy: &Path) {
        self.wipe_tracker().await;
        copy_dir(copy, &self.tracker.dir);
    }

    /// A tracker on a copy of the volume, with an address of its own; not started.
    pub fn rival_tracker(&mut self, copy: &Path) -> Role {
        let root = copy.parent().expect("a copy lies in a directory");
        let name = copy.file_name().expect("a copy has a name");
        Role::new(name.to_string_lossy().into_owned(), root)
    }

    /// Starts a role of [`Cluster::rival_tracker`].
    pub async fn start_rival(&mut self, rival: &mut Role) {
        std::mem::swap(&mut self.tracker, rival);
        self.start_tracker().await;
        std::mem::swap(&mut self.tracker, rival);
        self.links.name(&rival.address.to_string(), &rival.name);
        self.links
            .name(&self.tracker.address.to_string(), &self.tracker.name);
    }

    /// [`Cluster::restart_tracker`] while so many datanodes are leaving, which take no chunks.
    pub async fn restart_tracker_leaving(&mut self, leaving: usize) {
        self.kill_tracker().await;
        self.start_tracker().await;
        let staying = (self.datanodes.len() - leaving) as u64;
        self.store().wait_ready(staying, super::SOON).await;
    }

    /// Where datanodes that start from now on look for the tracker.
    pub fn point_datanodes_to(&mut self, tracker: SocketAddr) {
        self.pointed_to = Some(tracker);
    }

    /// Fills the tracker's directory, which must be empty, from these datanodes.
    ///
    /// Errors: as [`rebuild`].
    pub async fn rebuild_tracker(
        &mut self,
        datanodes: &[usize],
        options: RebuildOptions,
    ) -> Result<Rebuilt, RebuildFailure> {
        let listener = self.tracker.prepare().await;
        drop(listener);
        let mut config = fast_tracker(self.tracker.dir.clone());
        (self.options.tracker)(&mut config);
        let addresses: Vec<String> = datanodes
            .iter()
            .map(|number| self.datanodes[*number].address.to_string())
            .collect();
        let roles::Seams {
            disk,
            clock,
            rng,
            connector,
            registry,
        } = self.seams(None);
        let parts = TrackerParts {
            clock,
            rng,
            connector,
            registry,
        };
        let rebuilt = rebuild(disk, &config, &addresses, options, parts).await;
        // The command ends here: whatever it did not sync is the machine's memory.
        let disk = self.tracker.disk.clone();
        let revoked = tokio::task::spawn_blocking(move || disk.revoke()).await;
        revoked.expect("revoking a disk does not panic");
        rebuilt
    }

    /// Ends a rival for good; why it had ended by itself, if it had.
    pub async fn end_rival(&mut self, mut rival: Role) -> Option<String> {
        let ended = rival.ended();
        rival.kill().await;
        ended
    }
}

impl Role {
    /// Whether it was started and has not ended by itself.
    pub fn runs(&self) -> bool {
        self.boot
            .as_ref()
            .is_some_and(|boot: &Boot| boot.ended().is_none())
    }
}

fn copy_dir(from: &Path, to: &Path) {
    remove_dir(to);
    std::fs::create_dir_all(to).expect("the copy's directory can be made");
    for entry in std::fs::read_dir(from).expect("the volume can be listed") {
        let entry = entry.expect("the volume can be listed");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a file has a type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("a file can be copied");
        }
    }
}
