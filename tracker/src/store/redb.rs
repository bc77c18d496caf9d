//! The embedded engine: redb on the disk seam, durable with every transaction.

use std::fmt::Debug;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable,
    StorageBackend, StorageError, TableDefinition, WriteTransaction,
};
use dfs_runtime::disk::{DiskFile, DiskLock, OpenMode, SharedDisk};

use super::error::StoreError;
use super::kv::{Change, Direction, Engine, ReadTxn, Room, See, Span, Table, WriteTxn};
use super::room::RoomKeeper;

const FILE: &str = "catalog.redb";
const STAGED: &str = "catalog.redb.staged";
const LOCK: &str = "catalog.lock";
/// Smaller files are not worth compacting.
const COMPACT_ABOVE: u64 = 64 * 1024 * 1024;

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct RedbConfig {
    /// Where the catalog lives: made when absent, locked for this process.
    pub dir: PathBuf,
    /// Bytes of pages kept in memory.
    pub cache_bytes: usize,
    /// Saves the allocator's state with each commit: restarts are quick, commits cost more.
    pub quick_repair: bool,
    /// Reads and verifies the whole file at start, so that rot is met then and not later (I13).
    pub verify_on_open: bool,
    /// Below so many free bytes nothing that takes room is written.
    pub reserve_bytes: u64,
    /// Bytes kept aside so that deletes still work on a full volume.
    pub ballast_bytes: u64,
}

impl RedbConfig {
    /// The defaults for a directory.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            cache_bytes: 32 * 1024 * 1024,
            quick_repair: false,
            verify_on_open: true,
            reserve_bytes: 64 * 1024 * 1024,
            ballast_bytes: 32 * 1024 * 1024,
        }
    }
}

/// An open redb catalog.
#[derive(Debug)]
pub struct RedbEngine {
    database: Database,
    file: Arc<dyn DiskFile>,
    quick_repair: bool,
    room: RoomKeeper,
    _lock: Box<dyn DiskLock>,
}

impl RedbEngine {
    /// Opens or creates the catalog's file, repairs it after a crash, and compacts it when more
    /// than half of it is waste. Damage is an error that names the way out, never skipped.
    pub fn open(disk: SharedDisk, config: &RedbConfig) -> Result<Self, StoreError> {
        let io = |doing| move |source| StoreError::Io { doing, source };
        disk.create_dir_all(&config.dir)
            .map_err(io("making the catalog's directory"))?;
        let lock = disk.lock(&config.dir.join(LOCK)).map_err(|source| {
            if source.kind() == io::ErrorKind::WouldBlock {
                StoreError::Locked {
                    dir: config.dir.display().to_string(),
                }
            } else {
                io("locking the catalog")(source)
            }
        })?;
        let file = open_file(&disk, config).map_err(io("opening the catalog"))??;
        let room = RoomKeeper::open(
            disk,
            config.dir.clone(),
            config.reserve_bytes,
            config.ballast_bytes,
        )
        .map_err(io("looking for room"))?;
        let database = open_database(&file, config)?;
        Ok(Self {
            database,
            file,
            quick_repair: config.quick_repair,
            room,
            _lock: lock,
        })
    }
}

// The file gets its name once it is whole: a power cut while redb lays it out leaves no file that
// looks like a damaged catalog. For the same reason an empty file is damage, not a new catalog.
fn open_file(
    disk: &SharedDisk,
    config: &RedbConfig,
) -> io::Result<Result<Arc<dyn DiskFile>, StoreError>> {
    let path = config.dir.join(FILE);
    let names = disk.list(&config.dir)?;
    if !names.iter().any(|entry| entry.name == FILE) {
        let staged = config.dir.join(STAGED);
        if names.iter().any(|entry| entry.name == STAGED) {
            disk.remove(&staged)?;
        }
        let file = disk.open(&staged, OpenMode::CreateNew)?;
        if let Err(error) = open_database(&file, config).and_then(close_database) {
            return Ok(Err(error));
        }
        disk.rename(&staged, &path)?;
        disk.sync_dir(&config.dir)?;
    }
    let file = disk.open(&path, OpenMode::ReadWrite)?;
    if file.length()? == 0 {
        return Ok(Err(StoreError::Corrupt {
            detail: format!("{FILE} is empty"),
        }));
    }
    Ok(Ok(file))
}

/// Whether a directory holds a catalog's file, whatever is in it (blocking).
pub(crate) fn has_catalog(disk: &SharedDisk, dir: &Path) -> io::Result<bool> {
    Ok(disk.list(dir)?.iter().any(|entry| entry.name == FILE))
}

/// Removes the files of a catalog that is not whole (blocking). No tracker may have it open.
pub(crate) fn remove_catalog(disk: &SharedDisk, dir: &Path) -> io::Result<()> {
    for entry in disk.list(dir)? {
        if [FILE, STAGED].contains(&entry.name.as_str()) {
            disk.remove(&dir.join(&entry.name))?;
        }
    }
    disk.sync_dir(dir)
}

fn close_database(database: Database) -> Result<(), StoreError> {
    database.close().map_err(open_error)
}

// redb may panic on a file that was altered behind its back; that is damage like any other.
fn open_database(file: &Arc<dyn DiskFile>, config: &RedbConfig) -> Result<Database, StoreError> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let mut database = Builder::new()
            .set_cache_size(config.cache_bytes)
            .set_check_integrity_on_open(config.verify_on_open)
            .create_with_backend(Backend(Arc::clone(file)))
            .map_err(open_error)?;
        create_tables(&database)?;
        compact_if_wasteful(&mut database, file.as_ref())?;
        Ok(database)
    }));
    opened.unwrap_or_else(|_| {
        Err(StoreError::Corrupt {
            detail: format!("{FILE} cannot be opened: its pages contradict each other"),
        })
    })
}

fn open_error(error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::Storage(error) => storage_error("opening the catalog", error),
        DatabaseError::RepairAborted => StoreError::Corrupt {
            detail: format!("{FILE} could not be repaired"),
        },
        other => StoreError::Engine {
            detail: other.to_string(),
        },
    }
}

fn create_tables(database: &Database) -> Result<(), StoreError> {
    let txn = database
        .begin_write()
        .map_err(|error| engine_error("beginning", error.into()))?;
    for table in Table::ALL {
        txn.open_table(definition(table))
            .map_err(|error| engine_error("making a table", error.into()))?;
    }
    txn.commit()
        .map_err(|error| engine_error("committing", error.into()))
}

fn compact_if_wasteful(database: &mut Database, file: &dyn DiskFile) -> Result<(), StoreError> {
    let length = file.length().map_err(|source| StoreError::Io {
        doing: "measuring the catalog",
        source,
    })?;
    if length < COMPACT_ABOVE {
        return Ok(());
    }
    let txn = database
        .begin_write()
        .map_err(|error| engine_error("beginning", error.into()))?;
    let stats = txn
        .stats()
        .map_err(|error| storage_error("measuring the catalog", error))?;
    txn.abort()
        .map_err(|error| storage_error("measuring the catalog", error))?;
    // Half-filled pages are the price of a tree, not waste: compacting does not fill them.
    let needed = stats.allocated_pages() * stats.page_size() as u64;
    if needed < length / 2 {
        tracing::info!(bytes = length, needed, "compact the catalog");
        database
            .compact()
            .map_err(|error| engine_error("compacting the catalog", error.into()))?;
    }
    Ok(())
}

impl Engine for RedbEngine {
    fn read(&self) -> Result<Box<dyn ReadTxn + '_>, StoreError> {
        let txn = self
            .database
            .begin_read()
            .map_err(|error| engine_error("reading", error.into()))?;
        Ok(Box::new(Reader(txn)))
    }

    fn write(&self, change: &mut Change<'_>) -> Result<(), StoreError> {
        match self.room()? {
            Room::Ample => {}
            Room::Low => self.room.release().map_err(|source| StoreError::Io {
                doing: "giving up the ballast",
                source,
            })?,
            Room::Exhausted => return Err(StoreError::Full),
        }
        let mut txn = self
            .database
            .begin_write()
            .map_err(|error| engine_error("beginning", error.into()))?;
        txn.set_durability(Durability::Immediate)
            .map_err(|error| engine_error("beginning", error.into()))?;
        txn.set_quick_repair(self.quick_repair);
        // With one phase, rot in the newest commit looks like a commit that a crash cut short, and is
        // rolled back without a word: an acknowledged change would be lost (I13).
        txn.set_two_phase_commit(true);
        match run_change(&txn, change) {
            Ok(()) => txn
                .commit()
                .map_err(|error| engine_error("committing", error.into())),
            Err(error) => {
                txn.abort()
                    .map_err(|error| storage_error("giving a transaction up", error))?;
                Err(error)
            }
        }
    }

    fn room(&self) -> Result<Room, StoreError> {
        self.room.room().map_err(|source| StoreError::Io {
            doing: "looking for room",
            source,
        })
    }

    fn size_bytes(&self) -> Result<u64, StoreError> {
        self.file.length().map_err(|source| StoreError::Io {
            doing: "measuring the catalog",
            source,
        })
    }
}

// The open tables borrow the transaction: they must be gone before it ends.
fn run_change(txn: &WriteTransaction, change: &mut Change<'_>) -> Result<(), StoreError> {
    let mut tables = Vec::with_capacity(Table::ALL.len());
    for table in Table::ALL {
        tables.push(
            txn.open_table(definition(table))
                .map_err(|error| engine_error("opening a table", error.into()))?,
        );
    }
    change(&mut Writer(tables))
}

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.as_str())
}

struct Reader(ReadTransaction);

impl ReadTxn for Reader {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let table = self
            .0
            .open_table(definition(table))
            .map_err(|error| engine_error("opening a table", error.into()))?;
        get_from(&table, key)
    }

    fn walk(
        &self,
        table: Table,
        span: &Span,
        direction: Direction,
        see: &mut See<'_>,
    ) -> Result<(), StoreError> {
        let table = self
            .0
            .open_table(definition(table))
            .map_err(|error| engine_error("opening a table", error.into()))?;
        walk(&table, span, direction, see)
    }
}

struct Writer<'t>(Vec<::redb::Table<'t, &'static [u8], &'static [u8]>>);

impl ReadTxn for Writer<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        get_from(&self.0[table.index()], key)
    }

    fn walk(
        &self,
        table: Table,
        span: &Span,
        direction: Direction,
        see: &mut See<'_>,
    ) -> Result<(), StoreError> {
        walk(&self.0[table.index()], span, direction, see)
    }
}

impl WriteTxn for Writer<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.0[table.index()]
            .insert(key, value)
            .map(|_old| ())
            .map_err(|error| storage_error("writing", error))
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError> {
        self.0[table.index()]
            .remove(key)
            .map(|_old| ())
            .map_err(|error| storage_error("writing", error))
    }
}

fn get_from(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StoreError> {
    let found = table
        .get(key)
        .map_err(|error| storage_error("reading", error))?;
    Ok(found.map(|value| value.value().to_vec()))
}

fn walk(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    span: &Span,
    direction: Direction,
    see: &mut See<'_>,
) -> Result<(), StoreError> {
    if span.is_empty() {
        return Ok(());
    }
    let mut range = table
        .range::<&[u8]>(span.as_bounds())
        .map_err(|error| storage_error("reading", error))?;
    loop {
        let next = match direction {
            Direction::Forward => range.next(),
            Direction::Backward => range.next_back(),
        };
        let Some(pair) = next else { return Ok(()) };
        let (key, value) = pair.map_err(|error| storage_error("reading", error))?;
        if see(key.value(), value.value())?.is_break() {
            return Ok(());
        }
    }
}

fn engine_error(doing: &'static str, error: ::redb::Error) -> StoreError {
    match error {
        ::redb::Error::Io(source) => io_error(doing, source),
        ::redb::Error::Corrupted(detail) => StoreError::Corrupt { detail },
        other => StoreError::Engine {
            detail: format!("{doing}: {other}"),
        },
    }
}

fn storage_error(doing: &'static str, error: StorageError) -> StoreError {
    engine_error(doing, error.into())
}

// redb says `InvalidData` and `UnexpectedEof` of a file that is none of its own, or cut short.
fn io_error(doing: &'static str, source: io::Error) -> StoreError {
    match source.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => StoreError::Corrupt {
            detail: format!("{FILE}: {source}"),
        },
        _ => StoreError::Io { doing, source },
    }
}

/// The file as redb sees it.
#[derive(Debug)]
struct Backend(Arc<dyn DiskFile>);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_length(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }
}
