//! `dfs tracker rebuild`: the catalog made anew from what the datanodes keep. A human's decision:
//! it fills an empty directory and touches nothing on the datanodes.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_client::blocks::read_blocks;
use dfs_client::datanode::{DatanodeClient, InventoryEntry};
use dfs_client::{ClientError, HttpClient};
use dfs_protocol::chunk::{ChunkKind, DatanodeAddress, SealedChunk};
use dfs_protocol::datanode::JournalRecord;
use dfs_protocol::{ChunkId, ClusterId, ErrorCode, FileId};
use dfs_runtime::disk::{DiskFile, OpenMode, SharedDisk, replace_durably};

use crate::config::TrackerConfig;
use crate::model::op::Op;
use crate::service::TrackerParts;
use crate::store::checkpoint::{self, Loaded};
use crate::store::lost_found::{self, FoundChunk};
use crate::store::rebuild::{RebuildOptions, RebuildReport, rebuild as replay};
use crate::store::redb::{has_catalog, remove_catalog};
use crate::store::{
    Catalog, CatalogConfig, CatalogLimits, CatalogMetrics, Engine, NullJournal, StoreError,
};
use crate::{decode_journal_page, open_any_engine};

/// A checkpoint while it is read back; lies in the tracker's directory.
const SPOOL: &str = "checkpoint.staged";
/// Lies in the tracker's directory while a rebuild is not finished.
const UNFINISHED: &str = "rebuild.unfinished";

/// What a rebuild did.
#[derive(Debug, Clone)]
pub struct Rebuilt {
    /// Datanodes that answered.
    pub datanodes: usize,
    /// Catalog and journal.
    pub report: RebuildReport,
    /// Files that are back under their paths.
    pub files: u64,
    /// Files put under `lost+found/`.
    pub found: u64,
}

/// Why a rebuild stopped. Nothing on the datanodes was touched; empty the directory and try again.
#[derive(Debug, thiserror::Error)]
pub enum RebuildFailure {
    /// A datanode cannot be asked: bring it back, or leave it out and lose what only it has.
    #[error("datanode at {address} cannot be asked: {source}")]
    Datanode {
        /// Which.
        address: String,
        /// Why.
        source: ClientError,
    },
    /// Damage took the end of a journal, and nobody else has it: the newest changes may be lost.
    #[error(
        "the journal of the datanode at {address} lost its records from {from} on, and no other has any: \
         bring back another datanode, or allow the gap and lose what they changed"
    )]
    LostEnd {
        /// Whose.
        address: String,
        /// The first that is lost.
        from: u64,
    },
    /// A datanode's answer makes no sense.
    #[error("datanode at {address} answered what cannot be read: {what}")]
    Malformed {
        /// Which.
        address: String,
        /// What.
        what: &'static str,
    },
    /// The datanodes belong to different clusters, or to none.
    #[error("the datanodes do not belong to one cluster: {found:?}")]
    Clusters {
        /// What they say.
        found: Vec<Option<ClusterId>>,
    },
    /// The datanodes belong to another cluster than the tracker does.
    #[error("the datanodes belong to cluster {found}, and {expected} is to be rebuilt")]
    OtherCluster {
        /// What they say.
        found: ClusterId,
        /// What was expected.
        expected: ClusterId,
    },
    /// The spool file failed.
    #[error("the directory cannot be written: {0}")]
    Io(#[from] io::Error),
    /// The catalog failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Checkpoint or journal cannot be used.
    #[error(transparent)]
    Replay(#[from] crate::store::rebuild::RebuildError),
    /// A change was refused.
    #[error(transparent)]
    Submit(#[from] crate::store::SubmitError),
    /// A metric was registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// A task of ours failed.
    #[error("a task failed: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// Rebuilds the catalog into `config.dir`, which must be empty, from the datanodes at `addresses`.
///
/// Errors: [`RebuildFailure`].
pub async fn rebuild(
    disk: SharedDisk,
    config: &TrackerConfig,
    addresses: &[String],
    options: RebuildOptions,
    parts: TrackerParts,
) -> Result<Rebuilt, RebuildFailure> {
    let http = HttpClient::new(parts.connector.clone()).with_tokens(config.tokens.clone());
    let client = DatanodeClient::new(http);
    let datanodes = identify(&client, addresses, config.expect_cluster).await?;
    begin(disk.clone(), config.dir.clone()).await?;
    let engine = open_any_engine(disk.clone(), config).await?;
    let checkpoint = newest_checkpoint(&client, &datanodes, &disk, &config.dir).await?;
    let from = checkpoint
        .as_ref()
        .map_or(1, |(loaded, _)| loaded.trailer.sequence + 1);
    let Journals { records, damage } = journals(&client, &datanodes, from).await?;
    tracing::info!(records = records.len(), from, "journals were read");
    if !options.allow_gap {
        refuse_lost_end(&records, &damage)?;
    }
    let filling = engine.clone();
    let report = tokio::task::spawn_blocking(move || {
        let mut spool = checkpoint.map(|(_, file)| Spool { file, position: 0 });
        let input = spool.as_mut().map(|spool| -> &mut dyn Read { spool });
        replay(filling.as_ref(), input, records, options)
    })
    .await??;
    let found = adopt_unexplained(&client, &datanodes, engine.clone(), config, parts).await?;
    let files = {
        let txn = engine.read()?;
        crate::store::Snapshot::new(txn.as_ref())
            .meta()?
            .counters
            .files
    };
    finish(disk, config.dir.clone()).await?;
    Ok(Rebuilt {
        datanodes: datanodes.len(),
        report,
        files: files - found,
        found,
    })
}

/// Marks the directory: a catalog is not whole until every chunk that nothing explains has its name,
/// or collection would take it for an orphan. One that is there already is not marked: it is not filled.
async fn begin(disk: SharedDisk, dir: PathBuf) -> Result<(), RebuildFailure> {
    let marking = move || {
        disk.create_dir_all(&dir)?;
        if has_catalog(&disk, &dir)? {
            return Ok(());
        }
        replace_durably(disk.as_ref(), &dir, UNFINISHED, b"a rebuild is under way\n")
    };
    Ok(tokio::task::spawn_blocking(marking).await??)
}

async fn finish(disk: SharedDisk, dir: PathBuf) -> Result<(), RebuildFailure> {
    let unmarking = move || remove_leftovers(&disk, &dir);
    Ok(tokio::task::spawn_blocking(unmarking).await??)
}

fn remove_leftovers(disk: &SharedDisk, dir: &Path) -> io::Result<()> {
    for name in [SPOOL, UNFINISHED] {
        match disk.remove(&dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    disk.sync_dir(dir)
}

/// Empties a directory of a catalog that is not whole, and of what a rebuild left there (blocking).
pub(crate) fn clear(disk: &SharedDisk, dir: &Path) -> io::Result<()> {
    // The mark goes last.
    remove_catalog(disk, dir)?;
    remove_leftovers(disk, dir)
}

/// Refuses a catalog whose rebuild was not finished.
pub(crate) async fn refuse_unfinished(disk: SharedDisk, dir: PathBuf) -> Result<(), StoreError> {
    let looking = move || match disk.list(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(entries) => Ok(entries.iter().any(|entry| entry.name == UNFINISHED)),
    };
    let found = tokio::task::spawn_blocking(looking).await;
    let found = found.unwrap_or_else(|error| Err(io::Error::other(error)));
    match found {
        Ok(false) => Ok(()),
        Ok(true) => Err(StoreError::PartlyLoaded),
        Err(source) => Err(StoreError::Io {
            doing: "looking at the catalog's directory",
            source,
        }),
    }
}

async fn identify(
    client: &DatanodeClient,
    addresses: &[String],
    expected: Option<ClusterId>,
) -> Result<Vec<DatanodeAddress>, RebuildFailure> {
    let mut datanodes = Vec::new();
    let mut clusters = Vec::new();
    for address in addresses {
        let identity =
            client
                .identity(address)
                .await
                .map_err(|source| RebuildFailure::Datanode {
                    address: address.clone(),
                    source,
                })?;
        datanodes.push(DatanodeAddress {
            id: identity.datanode,
            address: address.clone(),
        });
        clusters.push(identity.cluster);
    }
    clusters.sort_unstable();
    clusters.dedup();
    match clusters.as_slice() {
        [Some(cluster)] => match expected {
            Some(expected) if expected != *cluster => Err(RebuildFailure::OtherCluster {
                found: *cluster,
                expected,
            }),
            _ => Ok(datanodes),
        },
        _ => Err(RebuildFailure::Clusters { found: clusters }),
    }
}

type Found = BTreeMap<
    ChunkId,
    (
        SealedChunk,
        dfs_protocol::chunk::ChunkOrigin,
        Vec<DatanodeAddress>,
    ),
>;

/// Every chunk of one kind that some datanode has, in its newest version, and who has it.
async fn inventory(
    client: &DatanodeClient,
    datanodes: &[DatanodeAddress],
    kind: ChunkKind,
) -> Result<Found, RebuildFailure> {
    let mut found = Found::new();
    for at in datanodes {
        let address = at.address.clone();
        let bytes =
            client
                .inventory(at, kind)
                .await
                .map_err(|source| RebuildFailure::Datanode {
                    address: address.clone(),
                    source,
                })?;
        let entries: Vec<InventoryEntry> =
            postcard::from_bytes(&bytes).map_err(|_| RebuildFailure::Malformed {
                address,
                what: "its inventory",
            })?;
        for (replica, origin) in entries {
            let chunk = replica.chunk;
            let known = found
                .entry(chunk.id)
                .or_insert_with(|| (chunk, origin.clone(), Vec::new()));
            if chunk.version > known.0.version {
                *known = (chunk, origin, Vec::new());
            }
            if chunk == known.0 {
                known.2.push(at.clone());
            }
        }
    }
    Ok(found)
}

/// The newest checkpoint that is whole, spooled into the tracker's directory.
async fn newest_checkpoint(
    client: &DatanodeClient,
    datanodes: &[DatanodeAddress],
    disk: &SharedDisk,
    dir: &Path,
) -> Result<Option<(Loaded, Arc<dyn DiskFile>)>, RebuildFailure> {
    let mut files: BTreeMap<FileId, BTreeMap<u32, (SealedChunk, Vec<DatanodeAddress>)>> =
        BTreeMap::new();
    for (chunk, origin, holders) in inventory(client, datanodes, ChunkKind::Checkpoint)
        .await?
        .into_values()
    {
        files
            .entry(origin.file)
            .or_default()
            .insert(origin.index, (chunk, holders));
    }
    let mut best: Option<(Loaded, FileId)> = None;
    for (file, chunks) in &files {
        match spool_and_verify(client, chunks, disk, dir).await {
            Ok((loaded, _)) => {
                let rank = |l: &Loaded| (l.header.fence.epoch, l.trailer.sequence);
                if best
                    .as_ref()
                    .is_none_or(|(old, _)| rank(old) < rank(&loaded))
                {
                    best = Some((loaded, *file));
                }
            }
            Err(reason) => tracing::warn!(%file, reason, "a checkpoint cannot be used"),
        }
    }
    let Some((loaded, file)) = best else {
        return Ok(None);
    };
    tracing::info!(
        sequence = loaded.trailer.sequence,
        "the newest whole checkpoint was found"
    );
    let chunks = files.remove(&file).unwrap_or_default();
    let (loaded, spool) = spool_and_verify(client, &chunks, disk, dir)
        .await
        .map_err(|reason| {
            io::Error::other(format!("the checkpoint was lost meanwhile: {reason}"))
        })?;
    Ok(Some((loaded, spool)))
}

async fn spool_and_verify(
    client: &DatanodeClient,
    chunks: &BTreeMap<u32, (SealedChunk, Vec<DatanodeAddress>)>,
    disk: &SharedDisk,
    dir: &Path,
) -> Result<(Loaded, Arc<dyn DiskFile>), String> {
    let path = dir.join(SPOOL);
    let opening = disk.clone();
    let file = tokio::task::spawn_blocking(move || {
        let file = opening.open(&path, OpenMode::OpenOrCreate)?;
        file.set_length(0)?;
        Ok::<_, io::Error>(file)
    })
    .await
    .map_err(|error| error.to_string())?
    .map_err(|error| error.to_string())?;
    let mut position = 0;
    for (expected, (index, (chunk, holders))) in (0u32..).zip(chunks) {
        if *index != expected {
            return Err(format!("chunk {expected} is missing"));
        }
        spool_chunk(client, chunk, holders, &file, position).await?;
        position += chunk.length;
    }
    let reading = file.clone();
    let verified = tokio::task::spawn_blocking(move || {
        checkpoint::verify(&mut Spool {
            file: reading,
            position: 0,
        })
    })
    .await
    .map_err(|error| error.to_string())?;
    verified
        .map(|loaded| (loaded, file))
        .map_err(|error| error.to_string())
}

/// Copies one chunk into the spool from whoever can give all of it.
async fn spool_chunk(
    client: &DatanodeClient,
    chunk: &SealedChunk,
    holders: &[DatanodeAddress],
    file: &Arc<dyn DiskFile>,
    position: u64,
) -> Result<(), String> {
    let mut reason = "nobody has it".to_owned();
    for holder in holders {
        let copy = async {
            let mut blocks = read_blocks(client.http(), holder, chunk, 0..chunk.length).await?;
            while let Some(block) = blocks.next().await? {
                let file = file.clone();
                let written = tokio::task::spawn_blocking(move || {
                    file.write_all_at(&block.data, position + block.offset)
                })
                .await;
                written
                    .map_err(io::Error::other)
                    .flatten()
                    .map_err(|error| ClientError::Malformed {
                        address: "spool".to_owned(),
                        detail: error.to_string(),
                    })?;
            }
            Ok::<(), ClientError>(())
        };
        match copy.await {
            Ok(()) => return Ok(()),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(format!("chunk {}: {reason}", chunk.id))
}

/// All copies of all records that can be read.
#[derive(Debug, Default)]
struct Journals {
    records: Vec<JournalRecord>,
    /// Whose journal lost records, and from which sequence on.
    damage: Vec<(String, u64)>,
}

async fn journals(
    client: &DatanodeClient,
    datanodes: &[DatanodeAddress],
    from: u64,
) -> Result<Journals, RebuildFailure> {
    let mut found = Journals::default();
    for at in datanodes {
        let (mut next, mut damaged) = (from, false);
        loop {
            let address = at.address.clone();
            let page = if damaged {
                client.journal_page_past_damage(at, next).await
            } else {
                client.journal_page(at, next).await
            };
            let page = match page {
                Ok(page) => page,
                // The other journals may have what is lost here: the gap check decides.
                Err(error) if error.is(ErrorCode::DataUnavailable) && !damaged => {
                    tracing::warn!(address, %error, "a damaged journal is read past its damage");
                    found.damage.push((address, next));
                    damaged = true;
                    continue;
                }
                Err(source) => return Err(RebuildFailure::Datanode { address, source }),
            };
            let page = decode_journal_page(&page).ok_or(RebuildFailure::Malformed {
                address,
                what: "its journal",
            })?;
            let Some(last) = page.iter().map(|record| record.sequence).max() else {
                break;
            };
            next = last + 1;
            found.records.extend(page);
        }
    }
    Ok(found)
}

/// A hole in the middle shows as a gap; one at the very end would not: somebody else must have a
/// record from there on.
fn refuse_lost_end(
    records: &[JournalRecord],
    damage: &[(String, u64)],
) -> Result<(), RebuildFailure> {
    let newest = records.iter().map(|record| record.sequence).max();
    let lost = damage
        .iter()
        .find(|(_, from)| newest.is_none_or(|newest| newest < *from));
    lost.map_or(Ok(()), |(address, from)| {
        Err(RebuildFailure::LostEnd {
            address: address.clone(),
            from: *from,
        })
    })
}

/// Puts chunks that nothing explains under `lost+found/`; returns how many files that makes.
async fn adopt_unexplained(
    client: &DatanodeClient,
    datanodes: &[DatanodeAddress],
    engine: Arc<dyn Engine>,
    config: &TrackerConfig,
    parts: TrackerParts,
) -> Result<u64, RebuildFailure> {
    let TrackerParts {
        clock,
        rng,
        connector: _,
        registry,
    } = parts;
    let found = inventory(client, datanodes, ChunkKind::Data).await?;
    let (factor, now) = (config.replication_factor, clock.wall());
    let reading = engine.clone();
    let plan = tokio::task::spawn_blocking(move || {
        let inventory = found
            .into_values()
            .map(|(chunk, origin, _)| FoundChunk { chunk, origin });
        let txn = reading.read()?;
        lost_found::plan(txn.as_ref(), inventory, factor, now)
    })
    .await??;
    let count = plan.files.len() as u64;
    let catalog = Catalog::open(
        engine,
        CatalogConfig {
            journal: Arc::new(NullJournal),
            mode: crate::store::JournalMode::Async,
            clock,
            rng,
            limits: CatalogLimits::default(),
            metrics: CatalogMetrics::register(&registry)?,
        },
    )
    .await?;
    for file in plan.files {
        catalog
            .submit(Op::Adopt {
                file: Box::new(file),
            })
            .await?;
    }
    catalog.close().await;
    Ok(count)
}

struct Spool {
    file: Arc<dyn DiskFile>,
    position: u64,
}

impl Read for Spool {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}
