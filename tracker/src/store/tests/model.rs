//! Random histories against a model that a reader can check by eye.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use dfs_protocol::upload::{Precondition, TransferMode};
use dfs_protocol::{TrashId, UploadId, VersionId};

use super::support::*;
use crate::model::op::Op;
use crate::store::codec::{decode_batch, replay};
use crate::store::kv::{Engine, Table};
use crate::store::{Catalog, MemoryEngine};

const PATHS: [&str; 8] = ["a", "a/b", "a/b/c", "a/d", "b", "b/c", "b/c/d", "e"];
const DIRECTORIES: [&str; 5] = ["a/", "b/", "a/b/", "b/c/", "new/"];

/// One change, in indices into what is there.
#[derive(Debug, Clone)]
pub(super) enum Act {
    Commit {
        path: usize,
        chunks: u128,
        absent: bool,
        trash: bool,
    },
    Recommit(usize),
    Delete {
        path: usize,
        trash: bool,
    },
    Transfer {
        from: usize,
        to: usize,
        copy: bool,
    },
    MoveDirectory {
        from: usize,
        to: usize,
    },
    Restore {
        entry: usize,
        to: Option<usize>,
    },
    Purge(usize),
    Condemn(u128),
    /// Of a path, or of a directory (behind the paths).
    SetFactor {
        target: usize,
        factor: Option<u32>,
    },
}

pub(super) fn act() -> impl Strategy<Value = Act> {
    let path = || 0..PATHS.len();
    prop_oneof![
        6 => (path(), 0u128..3, any::<bool>(), any::<bool>()).prop_map(
            |(path, chunks, absent, trash)| Act::Commit { path, chunks, absent, trash }
        ),
        1 => (0usize..50).prop_map(Act::Recommit),
        3 => (path(), any::<bool>()).prop_map(|(path, trash)| Act::Delete { path, trash }),
        3 => (path(), path(), any::<bool>())
            .prop_map(|(from, to, copy)| Act::Transfer { from, to, copy }),
        2 => (0..DIRECTORIES.len(), 0..DIRECTORIES.len())
            .prop_map(|(from, to)| Act::MoveDirectory { from, to }),
        2 => (0usize..50, proptest::option::of(path()))
            .prop_map(|(entry, to)| Act::Restore { entry, to }),
        1 => (0usize..50).prop_map(Act::Purge),
        1 => (0u128..200).prop_map(Act::Condemn),
        3 => (0..PATHS.len() + DIRECTORIES.len(), proptest::option::of(1u32..8))
            .prop_map(|(target, factor)| Act::SetFactor { target, factor }),
    ]
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    version: u128,
    chunks: Vec<u128>,
    factor: Option<u32>,
}

/// What the catalog should hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    files: BTreeMap<String, Entry>,
    trash: BTreeMap<u128, (String, Entry)>,
    condemned: BTreeSet<u128>,
    uploads: Vec<(String, u128, Vec<u128>)>,
    applied: BTreeSet<u128>,
    next: u128,
}

impl Model {
    /// The change to submit, and whether it must succeed; the model has changed already.
    // One arm for each kind of change.
    #[allow(clippy::too_many_lines)]
    pub(super) fn step(&mut self, act: &Act) -> (Op, bool) {
        self.next += 10;
        let id = self.next;
        match act.clone() {
            Act::Commit {
                path,
                chunks,
                absent,
                trash,
            } => {
                let path = PATHS[path].to_owned();
                let chunks: Vec<u128> = (0..chunks).map(|i| id + i).collect();
                self.uploads.push((path.clone(), id, chunks.clone()));
                let mut request = request(&path, id, &chunks);
                if absent {
                    request.precondition = Precondition::Absent;
                }
                let trash = trash.then_some(id);
                let fine = !(absent && self.files.contains_key(&path));
                let done = fine && self.commit(&path, id, &chunks, trash);
                (commit_request(request, trash), done)
            }
            Act::Recommit(which) => {
                let Some((path, upload, chunks)) = pick(&self.uploads, which) else {
                    return (purge(0), true);
                };
                let current = self.files.get(&path).map(|entry| entry.version);
                let done = current == Some(upload) || self.commit(&path, upload, &chunks, None);
                (commit(&path, upload, &chunks), done)
            }
            Act::Delete { path, trash } => {
                let trash = trash.then_some(id);
                let gone = self.files.remove(PATHS[path]);
                let done = gone.is_some();
                if let Some(entry) = gone {
                    self.leave(PATHS[path], entry, trash);
                }
                (delete(PATHS[path], trash), done)
            }
            Act::Transfer { from, to, copy } => {
                let mode = if copy {
                    TransferMode::Copy
                } else {
                    TransferMode::Move
                };
                let done = self.transfer(PATHS[from], PATHS[to], mode, id);
                (transfer(PATHS[from], PATHS[to], mode, id), done)
            }
            Act::MoveDirectory { from, to } => {
                let (from, to) = (DIRECTORIES[from], DIRECTORIES[to]);
                let done = self.move_directory(from, to);
                (transfer(from, to, TransferMode::Move, id), done)
            }
            Act::Restore { entry, to } => {
                let entries: Vec<u128> = self.trash.keys().copied().collect();
                let entry = pick(&entries, entry).unwrap_or(1);
                let to = to.map(|to| PATHS[to]);
                let done = self.restore(entry, to, id);
                (restore(entry, to, id), done)
            }
            Act::Purge(which) => {
                let entries: Vec<u128> = self.trash.keys().copied().collect();
                let entry = pick(&entries, which).unwrap_or(1);
                if let Some((_, entry)) = self.trash.remove(&entry) {
                    self.drop_chunks(&entry);
                }
                (purge(entry), true)
            }
            Act::Condemn(chunk) => {
                if !self.named().contains_key(&chunk) {
                    self.condemned.insert(chunk);
                }
                (condemn(chunk), true)
            }
            Act::SetFactor { target, factor } => {
                let target = PATHS.iter().chain(&DIRECTORIES).nth(target).unwrap();
                let is_meant = |path: &String| {
                    path == target || target.ends_with('/') && path.starts_with(target)
                };
                let meant = self.files.iter_mut().filter(|(path, _)| is_meant(path));
                let mut found = false;
                for (_, entry) in meant {
                    entry.factor = factor;
                    found = true;
                }
                (set_factor(target, factor), found)
            }
        }
    }

    fn commit(&mut self, path: &str, upload: u128, chunks: &[u128], trash: Option<u128>) -> bool {
        let named = self.named();
        let used = |chunk| self.condemned.contains(chunk) || named.contains_key(chunk);
        let had_effect = self.applied.contains(&upload);
        if chunks.iter().any(used) || had_effect || !self.free_of_conflicts(path) {
            return false;
        }
        self.applied.insert(upload);
        if let Some(old) = self.files.remove(path) {
            self.leave(path, old, trash);
        }
        let entry = Entry {
            version: upload,
            chunks: chunks.to_vec(),
            factor: None,
        };
        self.files.insert(path.to_owned(), entry);
        true
    }

    fn transfer(&mut self, from: &str, to: &str, mode: TransferMode, id: u128) -> bool {
        let Some(mut entry) = self.files.get(from).cloned() else {
            return false;
        };
        if from == to || !self.free_of_conflicts(to) {
            return false;
        }
        match mode {
            TransferMode::Copy => entry.version = id,
            TransferMode::Move => drop(self.files.remove(from)),
        }
        let old = self.files.insert(to.to_owned(), entry);
        if let Some(old) = old {
            self.leave(to, old, None);
        }
        true
    }

    fn move_directory(&mut self, from: &str, to: &str) -> bool {
        let sources: Vec<String> = self
            .files
            .keys()
            .filter(|p| p.starts_with(from))
            .cloned()
            .collect();
        let target = |path: &String| format!("{to}{}", &path[from.len()..]);
        let free = |path: &String| {
            let target = target(path);
            !self.files.contains_key(&target) && self.free_of_conflicts(&target)
        };
        if sources.is_empty() || to.starts_with(from) || !sources.iter().all(free) {
            return false;
        }
        let moved: Vec<(String, Entry)> = sources
            .iter()
            .map(|path| (target(path), self.files.remove(path).unwrap()))
            .collect();
        self.files.extend(moved);
        true
    }

    fn restore(&mut self, entry: u128, to: Option<&str>, id: u128) -> bool {
        let Some((origin, _)) = self.trash.get(&entry) else {
            return false;
        };
        let path = to.unwrap_or(origin).to_owned();
        if self.files.contains_key(&path) || !self.free_of_conflicts(&path) {
            return false;
        }
        let (_, mut entry) = self.trash.remove(&entry).unwrap();
        entry.version = id;
        self.files.insert(path, entry);
        true
    }

    fn free_of_conflicts(&self, path: &str) -> bool {
        let above = |file: &String| path.starts_with(&format!("{file}/"));
        let below = |file: &String| file.starts_with(&format!("{path}/"));
        !self.files.keys().any(|file| above(file) || below(file))
    }

    fn leave(&mut self, path: &str, entry: Entry, trash: Option<u128>) {
        match trash {
            Some(id) => drop(self.trash.insert(id, (path.to_owned(), entry))),
            None => self.drop_chunks(&entry),
        }
    }

    fn drop_chunks(&mut self, entry: &Entry) {
        let named = self.named();
        let gone = entry
            .chunks
            .iter()
            .filter(|chunk| !named.contains_key(chunk));
        self.condemned.extend(gone.copied().collect::<Vec<_>>());
    }

    fn named(&self) -> BTreeMap<u128, u32> {
        let mut named = BTreeMap::new();
        let entries = self
            .files
            .values()
            .chain(self.trash.values().map(|(_, entry)| entry));
        for chunk in entries.flat_map(|entry| &entry.chunks) {
            *named.entry(*chunk).or_default() += 1;
        }
        named
    }

    fn wanted(&self, cluster: u32) -> BTreeMap<u128, u32> {
        let mut wanted: BTreeMap<u128, u32> = BTreeMap::new();
        let trashed = self.trash.values().map(|(_, entry)| entry);
        for entry in self.files.values().chain(trashed) {
            for chunk in &entry.chunks {
                let known = wanted.entry(*chunk).or_default();
                *known = (*known).max(entry.factor.unwrap_or(cluster));
            }
        }
        wanted
    }

    /// The engine holds what the model holds.
    pub(super) fn assert_matches(&self, engine: &dyn Engine) {
        let txn = engine.read().unwrap();
        let snapshot = crate::store::Snapshot::new(txn.as_ref());
        let files = snapshot.scan_files(None, 1000).unwrap();
        let found: BTreeMap<String, Entry> = files
            .iter()
            .map(|file| {
                let entry = Entry {
                    version: file.version.as_u128(),
                    chunks: file.chunks.iter().map(|c| c.id.as_u128()).collect(),
                    factor: file.own_factor.then_some(file.factor),
                };
                (file.path.to_string(), entry)
            })
            .collect();
        assert_eq!(found, self.files);
        let trash = snapshot.scan_trash(None, 1000).unwrap();
        let found: Vec<(TrashId, VersionId)> =
            trash.iter().map(|e| (e.id, e.file.version)).collect();
        let wanted: Vec<(TrashId, VersionId)> = self
            .trash
            .iter()
            .map(|(id, (_, e))| {
                (
                    TrashId::from_u128(*id),
                    UploadId::from_u128(e.version).into(),
                )
            })
            .collect();
        assert_eq!(found, wanted);
        let chunks = snapshot.scan_chunks(None, 1000).unwrap();
        let found: BTreeMap<u128, u32> = chunks
            .iter()
            .map(|(id, c)| (id.as_u128(), c.references))
            .collect();
        assert_eq!(found, self.named());
        // Whatever the cluster's factor is: the largest of those that name the chunk.
        for cluster in [2, 5] {
            let found: BTreeMap<u128, u32> = chunks
                .iter()
                .map(|(id, c)| (id.as_u128(), c.wanted(cluster)))
                .collect();
            assert_eq!(found, self.wanted(cluster));
        }
        let condemned = snapshot.scan_condemned(None, 1000).unwrap();
        let found: BTreeSet<u128> = condemned.iter().map(|(id, _)| id.as_u128()).collect();
        assert_eq!(found, self.condemned);
    }
}

fn condemn(chunk: u128) -> Op {
    Op::Condemn {
        chunks: vec![(
            super::support::chunk(chunk).id,
            dfs_protocol::ChunkVersion::FIRST,
            dfs_protocol::chunk::ChunkKind::Data,
        )],
        now: at(7),
    }
}

fn pick<T: Clone>(from: &[T], which: usize) -> Option<T> {
    (!from.is_empty()).then(|| from[which % from.len()].clone())
}

pub(super) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Submits a change; the catalog must decide as the model did.
pub(super) async fn submit_checked(catalog: &Catalog, model: &mut Model, act: &Act) {
    let (op, must_succeed) = model.step(act);
    let text = format!("{op:?}");
    let outcome = catalog.submit(op).await;
    assert_eq!(outcome.is_ok(), must_succeed, "{text}: {outcome:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i12_every_history_equals_the_model_and_every_prefix_of_its_replay(
        acts in proptest::collection::vec(act(), 1..60)
    ) {
        runtime().block_on(async {
            let engine = Arc::new(MemoryEngine::default());
            let journal = Arc::new(KeepingJournal::default());
            let catalog = catalog_on(engine.clone(), journal.clone()).await;
            let mut model = Model::default();
            let mut states = BTreeMap::new();
            for act in &acts {
                submit_checked(&catalog, &mut model, act).await;
                model.assert_matches(engine.as_ref());
                assert_consistent(engine.as_ref());
                let sequence = catalog.meta().await.unwrap().sequence;
                states.insert(sequence, state(engine.as_ref()));
            }
            let replayed = MemoryEngine::default();
            for record in journal.take() {
                let changes = decode_batch(&record.payload).unwrap();
                // Twice: replay is idempotent (I13).
                for _ in 0..2 {
                    replayed.write(&mut |txn| replay(&changes, txn)).unwrap();
                }
                if let Some(wanted) = states.get(&record.sequence) {
                    assert_eq!(&state(&replayed), wanted);
                }
            }
            prop_assert!(!state(&replayed).is_empty());
            Ok(())
        })?;
    }
}

#[test]
fn the_tables_of_the_state_are_all_but_the_journal() {
    let all: BTreeSet<Table> = Table::ALL.into_iter().collect();
    let mut state: BTreeSet<Table> = Table::STATE.into_iter().collect();
    state.insert(Table::Journal);
    assert_eq!(all, state);
}
