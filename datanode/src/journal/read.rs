//! What can be read of the journal, and what cannot. A record that reads no more is found when a page or the
//! search for a hole comes to it; it counts as missing from then on, so that it is sent again, and its bytes
//! stay where they are.

use std::io;

use dfs_protocol::checksum::crc32c;
use dfs_protocol::datanode::JournalRecord;
use dfs_protocol::{Epoch, Fence, Incarnation};

use super::format::{RECORD_HEADER_LEN, RecordHead};
use super::{Journal, JournalError, Key, Place, Segment, State, disk_error};
use crate::store::error::is_passing;

/// A page of records ends at about this length.
const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes that one search for a hole verifies: the next one goes on behind them.
const VERIFY_BYTES: usize = 8 * 1024 * 1024;
/// Records at the end of what is held that one search finds damaged at most.
const MOST_ROTTEN: usize = 16;

/// Why a record was not read.
#[derive(Debug)]
enum Unread {
    /// Its bytes are not those that were written.
    Rotten,
    /// Nothing is known about its bytes.
    Failed(JournalError),
}

impl Journal {
    /// The first sequence from `from` on of which no record can be read. What is held before it may be
    /// more than one call reads: the last record is read each time, the others a part at a time.
    pub fn first_missing(&self, from: u64) -> u64 {
        let mut state = self.lock();
        state.verify_some(from);
        for _ in 0..MOST_ROTTEN {
            let missing = state.first_missing(from);
            if missing == from || state.reads_highest(missing - 1) {
                break;
            }
        }
        state.first_missing(from)
    }

    /// Records from sequence `from` on in order of sequence and fence, about 8 MiB at most, whole
    /// sequences only: the next page begins after the last sequence. Empty at the end. Ends before
    /// what damage took and nobody sent again, unless `past_damage`: then the reader must find out by
    /// itself what is missing.
    pub fn page(&self, from: u64, past_damage: bool) -> Result<Vec<JournalRecord>, JournalError> {
        let mut state = self.lock();
        loop {
            let lost = state.first_lost(from).filter(|_| !past_damage);
            let (page, rotten) = state.page_before(from, lost, past_damage)?;
            let is_all = rotten.is_empty() || past_damage;
            for key in rotten {
                state.set_aside(key);
            }
            match lost {
                // Once more without it: each round has one record less.
                _ if !is_all => {}
                Some(from) if page.is_empty() => return Err(JournalError::Damaged { from }),
                _ => return Ok(page),
            }
        }
    }
}

impl State {
    fn first_missing(&self, from: u64) -> u64 {
        let mut next = from;
        for (sequence, ..) in self.records.range(places_from(from)).map(|(key, _)| key) {
            if *sequence > next {
                break;
            }
            next = sequence.saturating_add(1);
        }
        self.first_lost(from).map_or(next, |lost| lost.min(next))
    }

    /// The first sequence from `from` on that damage took and of which no record can be read.
    fn first_lost(&self, from: u64) -> Option<u64> {
        let first_of = |(number, segment): (&u64, &Segment)| {
            let begin = segment.lost_from?.max(from);
            // Records are sent in order: what lies behind tells where the hole ends at the latest.
            let behind = self.records.iter().filter(|(_, at)| at.segment > *number);
            let end = behind.map(|((sequence, ..), _)| *sequence).min();
            let end = end.unwrap_or(u64::MAX);
            let mut lost = begin..segment.lost_before.unwrap_or(u64::MAX).min(end);
            lost.find(|sequence| self.highest(*sequence).is_none())
        };
        let rotten = self.rotten.range(places_from(from)).next();
        let rotten = rotten.map(|((sequence, ..), _)| *sequence);
        self.segments
            .iter()
            .filter_map(first_of)
            .chain(rotten)
            .min()
    }

    /// The record that counts in one place, if one reads.
    fn highest(&self, sequence: u64) -> Option<(Key, Place)> {
        let of_it = (sequence, Epoch(0), 0)..=(sequence, Epoch(u64::MAX), u64::MAX);
        let last = self.records.range(of_it).next_back();
        last.map(|(key, place)| (*key, *place))
    }

    /// One page that ends before `lost`, and what was found damaged: the first of it ends the page as well,
    /// unless `past_damage`.
    fn page_before(
        &self,
        from: u64,
        lost: Option<u64>,
        past_damage: bool,
    ) -> Result<(Vec<JournalRecord>, Vec<Key>), JournalError> {
        let mut page: Vec<JournalRecord> = Vec::new();
        let mut rotten = Vec::new();
        let mut bytes = 0;
        for (key, place) in self.records.range(places_from(from)) {
            let (sequence, epoch, incarnation) = *key;
            let same = page.last().is_some_and(|last| last.sequence == sequence);
            if lost.is_some_and(|lost| sequence >= lost) || (bytes >= PAGE_BYTES && !same) {
                break;
            }
            let payload = match self.read(key, place) {
                Ok(payload) => payload,
                Err(Unread::Failed(error)) => return Err(error),
                Err(Unread::Rotten) => {
                    rotten.push(*key);
                    if past_damage {
                        continue;
                    }
                    break;
                }
            };
            bytes += payload.len() + RECORD_HEADER_LEN;
            page.push(JournalRecord {
                fence: Fence {
                    epoch,
                    incarnation: Incarnation(incarnation),
                },
                sequence,
                payload,
            });
        }
        Ok((page, rotten))
    }

    /// Reads on from where the last call ended, and sets aside what is damaged.
    fn verify_some(&mut self, from: u64) {
        let mut bytes = 0;
        let mut rotten = Vec::new();
        let mut end = 0;
        for (key, place) in self.records.range(places_from(from.max(self.verified))) {
            if bytes >= VERIFY_BYTES {
                end = key.0;
                break;
            }
            bytes += place.length as usize + RECORD_HEADER_LEN;
            if matches!(self.read(key, place), Err(Unread::Rotten)) {
                rotten.push(*key);
            }
        }
        self.verified = end;
        for key in rotten {
            self.set_aside(key);
        }
    }

    /// Whether what counts in one place reads; else it is set aside.
    fn reads_highest(&mut self, sequence: u64) -> bool {
        let Some((key, place)) = self.highest(sequence) else {
            return false;
        };
        let is_rotten = matches!(self.read(&key, &place), Err(Unread::Rotten));
        if is_rotten {
            self.set_aside(key);
        }
        !is_rotten
    }

    /// From now on the record is missing, unless a later one in its place overrules it anyway; nothing is
    /// written behind it, where a damaged header would hide it from the next start.
    fn set_aside(&mut self, key: Key) {
        let Some(place) = self.records.remove(&key) else {
            return;
        };
        let (sequence, number) = (key.0, place.segment);
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.is_rotten = true;
        }
        if self
            .highest(sequence)
            .is_none_or(|(highest, _)| highest < key)
        {
            self.rotten.insert(key, number);
        }
        tracing::error!(
            sequence,
            segment = number,
            "a journal record is damaged; it counts as missing until it is sent again"
        );
    }

    fn read(&self, key: &Key, place: &Place) -> Result<Vec<u8>, Unread> {
        let failed = |error| Unread::Failed(disk_error("reading", error));
        let Some(segment) = self.segments.get(&place.segment) else {
            return Err(failed(io::ErrorKind::NotFound.into()));
        };
        let mut bytes = vec![0; RECORD_HEADER_LEN + place.length as usize];
        match segment.file.read_exact_at(&mut bytes, place.at) {
            Err(error) if is_passing(&error) => return Err(failed(error)),
            Err(_) => return Err(Unread::Rotten),
            Ok(()) => {}
        }
        let head = RecordHead::decode(&bytes).ok_or(Unread::Rotten)?;
        let payload = bytes.split_off(RECORD_HEADER_LEN);
        let found = (head.sequence, head.fence.epoch, head.fence.incarnation.0);
        let is_it = found == *key && head.length == place.length && head.payload_crc == place.crc;
        if is_it && crc32c(&payload) == place.crc {
            Ok(payload)
        } else {
            Err(Unread::Rotten)
        }
    }
}

fn places_from(sequence: u64) -> std::ops::RangeFrom<Key> {
    (sequence, Epoch(0), 0)..
}
