//! What stands beside us: other stores, and a web server as a baseline. Each runs only where it was
//! installed (`scripts/bench-peers.sh`), on loopback, in a directory of its own that goes with it.

pub(super) mod nginx;
pub(super) mod seaweed;

use std::path::PathBuf;

use super::settings::Settings;

/// A program of the directory of peers, else of the search path.
fn program(settings: &Settings, below: &str, name: &str) -> Option<PathBuf> {
    let search = std::env::var_os("PATH").unwrap_or_default();
    let own = settings.peers_dir.join(below).join(name);
    let mut all = std::iter::once(own).chain(
        std::env::split_paths(&search)
            .chain(["/usr/sbin".into()])
            .map(|dir| dir.join(name)),
    );
    all.find(|path| path.is_file())
}
