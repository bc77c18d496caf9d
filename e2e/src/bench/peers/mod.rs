//! What stands beside us: other stores, and a web server as a baseline. Each runs only where it was
//! installed (`scripts/bench-peers.sh`), reaches nothing but this machine, and lives in a directory of
//! its own that goes with it.

pub(super) mod moose;
pub(super) mod nginx;
pub(super) mod seaweed;

use std::io;
use std::path::{Path, PathBuf};

use super::door::Door;
use super::group::Group;
use super::report::Report;
use super::rounds::Run;
use super::settings::Settings;
use super::side::{Kind, Side};
use moose::Moose;
use seaweed::Seaweed;

/// Another store, running; dropped, it ends and its data goes.
#[derive(Debug)]
pub(super) enum Peer {
    Seaweed(Seaweed),
    Moose(Moose),
}

/// Every other store that is installed and wanted.
pub(super) async fn start(settings: &Settings, report: &mut Report) -> io::Result<Vec<Peer>> {
    let mut peers = named(settings, report).await?;
    if settings.peers {
        let volumes = seaweed::start(settings, report, seaweed::Way::Volumes).await?;
        peers.splice(0..0, volumes.map(Peer::Seaweed));
    }
    Ok(peers)
}

/// Those whose files have names that can be changed.
pub(super) async fn named(settings: &Settings, report: &mut Report) -> io::Result<Vec<Peer>> {
    let mut peers = Vec::new();
    if settings.peers {
        let filer = seaweed::start(settings, report, seaweed::Way::Filer).await?;
        peers.extend(filer.map(Peer::Seaweed));
        peers.extend(moose::start(settings, report).await?.map(Peer::Moose));
    }
    Ok(peers)
}

impl Peer {
    pub(super) fn door(&self) -> &Door {
        match self {
            Self::Seaweed(peer) => &peer.door,
            Self::Moose(peer) => &peer.door,
        }
    }

    pub(super) fn group(&self) -> &Group {
        match self {
            Self::Seaweed(peer) => &peer.group,
            Self::Moose(peer) => &peer.group,
        }
    }

    /// As it is named in rows.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Seaweed(peer) => peer.name,
            Self::Moose(_) => moose::NAME,
        }
    }

    /// As a contender.
    pub(super) fn side<'a>(&'a self, run: Run<'a>) -> Side<'a> {
        Side {
            name: self.name(),
            kind: Kind::Peer,
            // What an answer of each promises: docs/performance.md, "Peers".
            class: "D1",
            group: Some(self.group()),
            run,
        }
    }

    /// What its answer to a change of names promises: the filer syncs nothing, MooseFS's master its log.
    pub(super) fn class_of_names(&self) -> &'static str {
        match self {
            Self::Seaweed(_) => "D0",
            Self::Moose(_) => "D1",
        }
    }

    /// Where its data lies.
    pub(super) fn dir(&self) -> &Path {
        match self {
            Self::Seaweed(peer) => peer.dir(),
            Self::Moose(peer) => peer.dir(),
        }
    }

    /// Gives back the room of what was deleted.
    pub(super) async fn tidy(&self) -> io::Result<()> {
        match self {
            Self::Seaweed(peer) => peer.vacuum().await,
            // Its chunkservers remove what nobody names by themselves.
            Self::Moose(_) => Ok(()),
        }
    }
}

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
