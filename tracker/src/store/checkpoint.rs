//! The whole catalog as a stream of frames: a checkpoint on datanodes, or a dump in a file.
//!
//! The pages are fuzzy: each is read under its own short snapshot while changes go on, so that no
//! read transaction pins the store. Behind them follow the journal records that were committed
//! meanwhile. Replaying those gives exactly the catalog as of the last of them: a batch holds
//! physical keys, so writing it over a page that already shows it changes nothing; a key that no
//! record touches has not changed since before the first page was read; a key that one touches ends
//! with that record's value, whatever the page showed.

use std::io::{Read, Write};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use dfs_protocol::checksum::RunningCrc32c;
use dfs_protocol::datanode::JournalRecord;
use dfs_protocol::{ClusterId, Fence};

use super::codec::{BATCH_FORMAT, decode, decode_batch, encode, push_change, replay};
use super::error::StoreError;
use super::frame::{FrameError, FrameReader, HEADER_LEN, Piece, PieceKind, encode_piece};
use super::keys;
use super::kv::{Direction, Engine, ReadTxn, Span, Table};
use super::snapshot::Snapshot;

/// Bytes of one page unless the caller says otherwise.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// Pairs read with one seek.
const FETCH: usize = 256;

/// First frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointHeader {
    /// Whose catalog.
    pub cluster: ClusterId,
    /// Under which fence it was begun.
    pub fence: Fence,
    /// The last sequence before the first page was read.
    pub start: u64,
    /// When, for people.
    pub created: Timestamp,
}

/// Last frame: without it the checkpoint is incomplete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointTrailer {
    /// Page frames.
    pub pages: u64,
    /// Keys in the pages.
    pub entries: u64,
    /// Record frames.
    pub records: u64,
    /// CRC32C of the contents of all frames before this one, joined.
    pub crc32c: u32,
    /// The catalog is the one of exactly this sequence.
    pub sequence: u64,
}

/// Gives the frames of a checkpoint one by one. Blocking: run it on a blocking thread.
#[derive(Debug)]
pub struct CheckpointPages {
    engine: Arc<dyn Engine>,
    header: CheckpointHeader,
    page_bytes: usize,
    stage: Stage,
    /// Frames given so far.
    number: u64,
    crc: RunningCrc32c,
    pages: u64,
    entries: u64,
    records: u64,
    sequence: u64,
}

#[derive(Debug, Clone)]
enum Stage {
    Header,
    /// The table in [`Table::STATE`] and the key behind which to go on.
    Pages(usize, Option<Vec<u8>>),
    /// The next record to give.
    Records(u64),
    End,
}

impl CheckpointPages {
    /// Begins a checkpoint of what is committed now.
    pub fn begin(
        engine: Arc<dyn Engine>,
        created: Timestamp,
        page_bytes: usize,
    ) -> Result<Self, StoreError> {
        let meta = Snapshot::new(engine.read()?.as_ref()).meta()?;
        Ok(Self {
            engine,
            header: CheckpointHeader {
                cluster: meta.cluster,
                fence: meta.fence,
                start: meta.sequence,
                created,
            },
            page_bytes,
            stage: Stage::Header,
            number: 0,
            crc: RunningCrc32c::default(),
            pages: 0,
            entries: 0,
            records: 0,
            sequence: meta.sequence,
        })
    }

    /// The first frame's content.
    pub fn header(&self) -> &CheckpointHeader {
        &self.header
    }

    /// The sequence that the checkpoint stands for: final once the last frame was given.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    fn advance(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.stage.clone() {
            Stage::Header => {
                let payload = encode(&self.header)?;
                self.stage = Stage::Pages(0, None);
                Ok(Some(self.frame(PieceKind::Header, &payload)))
            }
            Stage::Pages(table, after) => {
                let engine = Arc::clone(&self.engine);
                let txn = engine.read()?;
                let (payload, entries, next) =
                    read_page(txn.as_ref(), table, after, self.page_bytes)?;
                self.stage = if let Some((table, after)) = next {
                    Stage::Pages(table, after)
                } else {
                    // Under the last page's snapshot: no page shows more than this.
                    self.sequence = keys::read_sequence(txn.as_ref())?;
                    Stage::Records(self.header.start + 1)
                };
                self.pages += 1;
                self.entries += entries;
                Ok(Some(self.frame(PieceKind::Page, &payload)))
            }
            Stage::Records(next) if next <= self.sequence => {
                let payload = encode(&self.read_record(next)?)?;
                self.stage = Stage::Records(next + 1);
                self.records += 1;
                Ok(Some(self.frame(PieceKind::Record, &payload)))
            }
            Stage::Records(_) => {
                let trailer = CheckpointTrailer {
                    pages: self.pages,
                    entries: self.entries,
                    records: self.records,
                    crc32c: self.crc.value(),
                    sequence: self.sequence,
                };
                let payload = encode(&trailer)?;
                self.stage = Stage::End;
                Ok(Some(self.frame(PieceKind::Trailer, &payload)))
            }
            Stage::End => Ok(None),
        }
    }

    fn frame(&mut self, kind: PieceKind, payload: &[u8]) -> Vec<u8> {
        let bytes = encode_piece(kind, self.number, payload);
        self.number += 1;
        let crc = dfs_protocol::checksum::crc32c(payload);
        self.crc.push(crc, (bytes.len() - HEADER_LEN) as u64);
        bytes
    }

    fn read_record(&self, sequence: u64) -> Result<JournalRecord, StoreError> {
        let txn = self.engine.read()?;
        let records = Snapshot::new(txn.as_ref()).journal_records(sequence, 1)?;
        records
            .into_iter()
            .next()
            .filter(|record| record.sequence == sequence)
            .ok_or_else(|| StoreError::Engine {
                detail: format!(
                    "journal record {sequence} was trimmed while the checkpoint was read: \
                     take it again"
                ),
            })
    }
}

impl Iterator for CheckpointPages {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let frame = self.advance();
        if frame.is_err() {
            self.stage = Stage::End;
        }
        frame.transpose()
    }
}

type Next = Option<(usize, Option<Vec<u8>>)>;

// One page from a table on; a page may span tables. Says where the next one begins.
fn read_page(
    txn: &dyn ReadTxn,
    mut table: usize,
    mut after: Option<Vec<u8>>,
    page_bytes: usize,
) -> Result<(Vec<u8>, u64, Next), StoreError> {
    let mut payload = vec![BATCH_FORMAT];
    let mut entries = 0;
    while let Some(current) = Table::STATE.get(table) {
        let pairs = txn.range(
            *current,
            &Span::after(after.as_deref()),
            Direction::Forward,
            FETCH,
        )?;
        let exhausted = pairs.len() < FETCH;
        for (key, value) in pairs {
            push_change(&mut payload, *current, &key, Some(&value));
            entries += 1;
            after = Some(key);
            if payload.len() >= page_bytes {
                return Ok((payload, entries, Some((table, after))));
            }
        }
        if exhausted {
            table += 1;
            after = None;
        }
    }
    Ok((payload, entries, None))
}

/// Why a checkpoint or dump could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Its bytes are damaged or cut short: take an older one, or another replica.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It has no trailer, or the trailer counts otherwise: its writer did not finish.
    #[error("the checkpoint is incomplete: {detail} (byte {position})")]
    Incomplete {
        /// Where that shows.
        position: u64,
        /// What is missing.
        detail: &'static str,
    },
    /// The engine failed, or the contents make no sense to it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// First frame.
    pub header: CheckpointHeader,
    /// Last frame.
    pub trailer: CheckpointTrailer,
}

/// Checks a checkpoint from end to end without loading it: to choose one before an engine is filled.
pub fn verify(input: &mut dyn Read) -> Result<Loaded, LoadError> {
    read_frames(input, &mut |_piece| Ok(()))
}

/// Writes the catalog into `output` as one checkpoint. Blocking.
pub fn dump(
    engine: Arc<dyn Engine>,
    created: Timestamp,
    output: &mut dyn Write,
) -> Result<u64, StoreError> {
    let mut pages = CheckpointPages::begin(engine, created, PAGE_BYTES)?;
    for frame in &mut pages {
        output.write_all(&frame?).map_err(|source| StoreError::Io {
            doing: "writing the dump",
            source,
        })?;
    }
    Ok(pages.sequence())
}

/// Fills an empty engine from a dump or checkpoint. A failure leaves it marked as partly loaded:
/// [`super::Catalog::open`] refuses it then. Blocking.
pub fn load(engine: &dyn Engine, input: &mut dyn Read) -> Result<Loaded, LoadError> {
    begin_load(engine)?;
    let loaded = load_pieces(engine, input)?;
    end_load(engine)?;
    Ok(loaded)
}

/// Marks an empty engine as being loaded.
pub(super) fn begin_load(engine: &dyn Engine) -> Result<(), StoreError> {
    engine.write(&mut |txn| {
        for table in Table::ALL {
            if !txn
                .range(table, &Span::all(), Direction::Forward, 1)?
                .is_empty()
            {
                return Err(StoreError::NotEmpty);
            }
        }
        keys::put(txn, Table::Meta, keys::LOADING, &true)
    })
}

/// The load has come to its end.
pub(super) fn end_load(engine: &dyn Engine) -> Result<(), StoreError> {
    engine.write(&mut |txn| txn.delete(Table::Meta, keys::LOADING))
}

pub(super) fn load_pieces(engine: &dyn Engine, input: &mut dyn Read) -> Result<Loaded, LoadError> {
    read_frames(input, &mut |piece| match piece.kind {
        PieceKind::Header | PieceKind::Trailer => Ok(()),
        PieceKind::Page => {
            let changes = decode_batch(&piece.payload)?;
            engine.write(&mut |txn| replay(&changes, txn))
        }
        PieceKind::Record => {
            let record: JournalRecord = decode("a journal record", &piece.payload)?;
            let changes = decode_batch(&record.payload)?;
            engine.write(&mut |txn| replay(&changes, txn))
        }
    })
}

type Visit<'a> = dyn FnMut(&Piece) -> Result<(), StoreError> + 'a;

fn read_frames(input: &mut dyn Read, visit: &mut Visit<'_>) -> Result<Loaded, LoadError> {
    let mut frames = FrameReader::new(input);
    let mut header: Option<CheckpointHeader> = None;
    let mut seen = CheckpointTrailer {
        pages: 0,
        entries: 0,
        records: 0,
        crc32c: 0,
        sequence: 0,
    };
    let mut crc = RunningCrc32c::default();
    loop {
        let position = frames.position();
        let incomplete = |detail| LoadError::Incomplete { position, detail };
        let Some(piece) = frames.next_piece()? else {
            return Err(incomplete("its last piece is missing"));
        };
        match (piece.kind, &header) {
            (PieceKind::Header, None) => {
                let found: CheckpointHeader = decode("a checkpoint's header", &piece.payload)?;
                seen.sequence = found.start;
                header = Some(found);
            }
            (PieceKind::Page, Some(_)) => {
                seen.pages += 1;
                seen.entries += decode_batch(&piece.payload)?.len() as u64;
            }
            (PieceKind::Record, Some(_)) => {
                let record: JournalRecord = decode("a journal record", &piece.payload)?;
                if record.sequence != seen.sequence + 1 {
                    return Err(incomplete("a journal record is missing"));
                }
                seen.sequence = record.sequence;
                seen.records += 1;
            }
            (PieceKind::Trailer, Some(header)) => {
                let trailer = decode("a checkpoint's trailer", &piece.payload)?;
                seen.crc32c = crc.value();
                if seen != trailer {
                    return Err(incomplete(
                        "its pieces are not those that its trailer counts",
                    ));
                }
                if frames.next_piece()?.is_some() {
                    return Err(incomplete("more follows behind its last piece"));
                }
                let header = header.clone();
                return Ok(Loaded { header, trailer });
            }
            (PieceKind::Header, Some(_)) => return Err(incomplete("it begins twice")),
            (PieceKind::Page | PieceKind::Record | PieceKind::Trailer, None) => {
                return Err(incomplete("its first piece is missing"));
            }
        }
        crc.push(piece.crc32c, piece.payload.len() as u64);
        visit(&piece)?;
    }
}
