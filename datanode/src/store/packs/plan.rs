//! A batch before it is written: which jobs, in which places, as which bytes.

use super::book::Place;
use super::format::{
    Entry, EntryKind, PACK_HEADER_LEN, PackHeader, REMOVAL_LEN, Site, entry_header_length,
    entry_length,
};
use super::{Body, Job, OpenPack};
use crate::store::index::ReplicaKey;
use crate::store::record::{cut_hint, encode_footer};

/// A batch that is about to be written.
pub(super) struct Batch {
    pub(super) jobs: Vec<Planned>,
    pub(super) target: OpenOrNew,
    /// The pack that this batch closes.
    pub(super) closes: Option<OpenPack>,
    /// Where its last entry will end.
    pub(super) end: u64,
}

pub(super) struct Planned {
    pub(super) ticket: u64,
    pub(super) job: Job,
    /// None when there is nothing to write: it is so already.
    pub(super) place: Option<Place>,
    /// Was so before this batch: it does not fail with it.
    pub(super) void: bool,
}

pub(super) enum OpenOrNew {
    Open(OpenPack),
    New { number: u64, salt: u128 },
}

impl OpenOrNew {
    pub(super) fn number(&self) -> u64 {
        match self {
            Self::Open(pack) => pack.number,
            Self::New { number, .. } => *number,
        }
    }

    pub(super) fn salt(&self) -> u128 {
        match self {
            Self::Open(pack) => pack.salt,
            Self::New { salt, .. } => *salt,
        }
    }

    /// Durable bytes of the pack.
    pub(super) fn durable(&self) -> u64 {
        match self {
            Self::Open(pack) => pack.tail,
            Self::New { .. } => 0,
        }
    }

    /// Where the first entry of the batch lies.
    pub(super) fn first(&self) -> u64 {
        self.durable().max(PACK_HEADER_LEN)
    }
}

impl Job {
    pub(super) fn key(&self) -> ReplicaKey {
        match self {
            Self::Seal(body) | Self::Move(_, body) => body.key(),
            Self::Forget(key, ..) | Self::Shadow(key, _) | Self::Carry(key) => *key,
        }
    }

    pub(super) fn header_length(&self) -> u64 {
        match self {
            Self::Seal(body) | Self::Move(_, body) => {
                entry_header_length(cut_hint(&body.header.origin.path_hint).len())
            }
            Self::Forget(..) | Self::Shadow(..) | Self::Carry(_) => REMOVAL_LEN,
        }
    }

    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Seal(body) | Self::Move(_, body) => {
                entry_length(self.header_length(), body.data.len() as u64)
            }
            Self::Forget(..) | Self::Shadow(..) | Self::Carry(_) => REMOVAL_LEN,
        }
    }
}

impl Body {
    pub(super) fn key(&self) -> ReplicaKey {
        (self.header.chunk.id, self.header.chunk.version)
    }
}

impl Batch {
    /// The bytes from the pack's durable end on.
    pub(super) fn encode(&self) -> Vec<u8> {
        let from = self.target.durable();
        let room = usize::try_from(self.end - from).unwrap_or(0);
        let mut bytes = Vec::with_capacity(room);
        if let OpenOrNew::New { number, salt } = self.target {
            bytes.extend_from_slice(&PackHeader { number, salt }.encode());
        }
        for Planned { job, place, .. } in &self.jobs {
            let Some(place) = place else {
                continue;
            };
            let site = Site {
                number: place.pack,
                salt: self.target.salt(),
                offset: place.offset,
            };
            match job {
                Job::Seal(body) | Job::Move(_, body) => body.encode(site, from, &mut bytes),
                Job::Forget(key, ..) | Job::Shadow(key, _) | Job::Carry(key) => {
                    bytes.extend_from_slice(&Entry::removal(*key, from).encode(site));
                }
            }
            let end = usize::try_from(place.offset + place.length - from).unwrap_or(0);
            bytes.resize(end, 0);
        }
        bytes
    }
}

impl Body {
    pub(super) fn encode(&self, site: Site, durable: u64, bytes: &mut Vec<u8>) {
        let entry = Entry {
            kind: EntryKind::Chunk,
            header: self.header.clone(),
            durable,
        };
        bytes.extend_from_slice(&entry.encode(site));
        bytes.extend_from_slice(&self.data);
        let (id, version) = self.key();
        bytes.extend_from_slice(&encode_footer(id, version, &self.blocks));
    }
}
