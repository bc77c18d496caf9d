//! The volatile disk loses what was not synced, and nothing else: checked against a model.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dfs_e2e::disk::VolatileDisk;
use dfs_runtime::disk::{Disk, OpenMode, read_whole, replace_durably};
use proptest::prelude::*;

const LIMIT: u64 = 1 << 30;

fn fresh() -> (tempfile::TempDir, PathBuf, Arc<VolatileDisk>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_path_buf();
    (dir, path, VolatileDisk::new())
}

fn seen(disk: &dyn Disk, dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = disk.list(dir).unwrap().into_iter();
    entries
        .map(|entry| {
            let bytes = read_whole(disk, &dir.join(&entry.name), LIMIT).unwrap();
            (entry.name, bytes)
        })
        .collect()
}

#[test]
fn unsynced_bytes_die_with_the_power_and_synced_ones_survive() {
    let (_guard, dir, disk) = fresh();
    let path = dir.join("f");
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    file.write_all_at(&[1; 10_000], 0).unwrap();
    file.sync().unwrap();
    disk.sync_dir(&dir).unwrap();
    file.write_all_at(&[2; 100], 0).unwrap();
    file.set_length(50_000).unwrap();
    disk.power_cut().unwrap();
    file.sync().unwrap_err();
    file.write_all_at(&[3], 0).unwrap_err();
    disk.list(&dir).unwrap_err();
    let disk = VolatileDisk::new();
    assert_eq!(
        read_whole(disk.as_ref(), &path, LIMIT).unwrap(),
        vec![1; 10_000]
    );
}

#[test]
fn an_unsynced_name_dies_even_when_its_bytes_were_synced() {
    let (_guard, dir, disk) = fresh();
    let file = disk.open(&dir.join("f"), OpenMode::CreateNew).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync().unwrap();
    disk.power_cut().unwrap();
    assert!(seen(VolatileDisk::new().as_ref(), &dir).is_empty());
}

#[test]
fn a_pending_rename_and_removal_are_undone_by_a_power_cut() {
    let (_guard, dir, disk) = fresh();
    for name in ["a", "b", "c"] {
        replace_durably(disk.as_ref(), &dir, name, name.as_bytes()).unwrap();
    }
    disk.rename(&dir.join("a"), &dir.join("b")).unwrap();
    disk.remove(&dir.join("c")).unwrap();
    assert_eq!(seen(disk.as_ref(), &dir).len(), 1);
    disk.power_cut().unwrap();
    let left = seen(VolatileDisk::new().as_ref(), &dir);
    let wanted = ["a", "b", "c"].map(|name| (name.to_owned(), name.as_bytes().to_vec()));
    assert_eq!(left, BTreeMap::from(wanted));
}

#[test]
fn the_real_directory_holds_only_what_kill_9_may_leave() {
    let (_guard, dir, disk) = fresh();
    let file = disk.open(&dir.join("f"), OpenMode::CreateNew).unwrap();
    file.write_all_at(&vec![1; 100_000], 0).unwrap();
    assert_eq!(std::fs::metadata(dir.join("f")).unwrap().len(), 0);
    file.sync().unwrap();
    assert_eq!(std::fs::read(dir.join("f")).unwrap(), vec![1; 100_000]);
    disk.rename(&dir.join("f"), &dir.join("g")).unwrap();
    assert!(dir.join("f").exists() && !dir.join("g").exists());
    disk.sync_dir(&dir).unwrap();
    assert!(!dir.join("f").exists() && dir.join("g").exists());
}

#[test]
fn a_lock_is_released_by_a_power_cut_whoever_holds_it() {
    let (_guard, dir, disk) = fresh();
    let held = disk.lock(&dir.join("lock")).unwrap();
    disk.power_cut().unwrap();
    VolatileDisk::new().lock(&dir.join("lock")).unwrap();
    drop(held);
}

#[test]
fn bytes_lost_by_a_failed_sync_are_read_but_no_later_sync_saves_them() {
    let (_guard, dir, disk) = fresh();
    let path = dir.join("f");
    let file = disk.open_volatile(&path, OpenMode::CreateNew).unwrap();
    disk.sync_dir(&dir).unwrap();
    let file: &dyn dfs_runtime::disk::DiskFile = {
        file.write_all(&[1; 9000]);
        file.lose_unsynced();
        file.as_ref()
    };
    file.write_all_at(&[2; 4096], 12_288).unwrap();
    file.sync().unwrap();
    let mut buffer = [0; 9000];
    file.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(buffer, [1; 9000]);
    disk.power_cut().unwrap();
    let left = read_whole(VolatileDisk::new().as_ref(), &path, LIMIT).unwrap();
    assert_eq!(left[..12_288], vec![0; 12_288]);
    assert_eq!(left[12_288..], vec![2; 4096]);
}

/// Bytes for the tests above.
trait WriteAll {
    fn write_all(&self, bytes: &[u8]);
}

impl WriteAll for dfs_e2e::disk::VolatileFile {
    fn write_all(&self, bytes: &[u8]) {
        dfs_runtime::disk::DiskFile::write_all_at(self, bytes, 0).unwrap();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Create(usize),
    Write {
        name: usize,
        offset: u16,
        length: u16,
        byte: u8,
    },
    SetLength {
        name: usize,
        length: u16,
    },
    Sync(usize),
    Rename(usize, usize),
    Remove(usize),
    SyncDir,
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    prop_oneof![
        2 => name.clone().prop_map(Step::Create),
        5 => (name.clone(), 0..20_000_u16, 1..9000_u16, 1..=255_u8).prop_map(
            |(name, offset, length, byte)| Step::Write { name, offset, length, byte }),
        1 => (name.clone(), 0..25_000_u16).prop_map(|(name, length)| Step::SetLength { name, length }),
        2 => name.clone().prop_map(Step::Sync),
        2 => (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => name.prop_map(Step::Remove),
        1 => Just(Step::SyncDir),
    ]
}

/// A file in the model: what readers see, and what the platter holds. Files are shared by names
/// seen and names durable, hence the ids.
#[derive(Debug, Clone, Default)]
struct ModelFile {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Every byte value that this offset has had since the last sync, besides the durable one.
    since: BTreeMap<usize, Vec<u8>>,
    /// The largest length since the last sync.
    longest: usize,
}

#[derive(Debug, Default)]
struct Model {
    files: Vec<ModelFile>,
    seen: BTreeMap<usize, usize>,
    durable: BTreeMap<usize, usize>,
}

impl Model {
    fn file(&mut self, name: usize) -> Option<&mut ModelFile> {
        let id = *self.seen.get(&name)?;
        self.files.get_mut(id)
    }

    fn durable_bytes(&self) -> BTreeMap<String, Vec<u8>> {
        let named = |(name, id): (&usize, &usize)| {
            (NAMES[*name].to_owned(), self.files[*id].durable.clone())
        };
        self.durable.iter().map(named).collect()
    }

    fn seen_bytes(&self) -> BTreeMap<String, Vec<u8>> {
        let named =
            |(name, id): (&usize, &usize)| (NAMES[*name].to_owned(), self.files[*id].seen.clone());
        self.seen.iter().map(named).collect()
    }
}

/// Does a step on the disk and on the model.
fn apply(step: &Step, disk: &VolatileDisk, dir: &Path, model: &mut Model) {
    let path = |name: usize| dir.join(NAMES[name]);
    match *step {
        Step::Create(name) => {
            let made = disk.open(&path(name), OpenMode::CreateNew).is_ok();
            assert_eq!(made, !model.seen.contains_key(&name));
            if made {
                // A creation over a pending name settles it: then it is as if synced.
                model.files.push(ModelFile::default());
                model.seen.insert(name, model.files.len() - 1);
            }
        }
        Step::Write {
            name,
            offset,
            length,
            byte,
        } => {
            let Some(file) = model.file(name) else { return };
            let (from, until) = (
                usize::from(offset),
                usize::from(offset) + usize::from(length),
            );
            if file.seen.len() < until {
                file.seen.resize(until, 0);
            }
            file.seen[from..until].fill(byte);
            file.longest = file.longest.max(until);
            for at in from..until {
                file.since.entry(at).or_default().push(byte);
            }
            let handle = disk.open(&path(name), OpenMode::ReadWrite).unwrap();
            handle
                .write_all_at(&vec![byte; usize::from(length)], offset.into())
                .unwrap();
        }
        Step::SetLength { name, length } => {
            let Some(file) = model.file(name) else { return };
            file.seen.resize(length.into(), 0);
            file.longest = file.longest.max(length.into());
            let handle = disk.open(&path(name), OpenMode::ReadWrite).unwrap();
            handle.set_length(length.into()).unwrap();
        }
        Step::Sync(name) => {
            let Some(file) = model.file(name) else { return };
            file.durable.clone_from(&file.seen);
            file.longest = file.seen.len();
            file.since.clear();
            disk.open(&path(name), OpenMode::ReadWrite)
                .unwrap()
                .sync()
                .unwrap();
        }
        Step::Rename(from, to) => {
            let done = disk.rename(&path(from), &path(to)).is_ok();
            assert_eq!(done, model.seen.contains_key(&from));
            if done && from != to {
                let id = model.seen.remove(&from).unwrap();
                model.seen.insert(to, id);
            }
        }
        Step::Remove(name) => {
            let done = disk.remove(&path(name)).is_ok();
            assert_eq!(done, model.seen.remove(&name).is_some());
        }
        Step::SyncDir => {
            disk.sync_dir(dir).unwrap();
            model.durable.clone_from(&model.seen);
        }
    }
}

/// Whether bytes found after a partial loss are a mixture of what the file held since its sync.
fn may_be_left(file: &ModelFile, left: &[u8]) -> bool {
    left.len() <= file.longest.max(file.durable.len())
        && left.iter().enumerate().all(|(at, byte)| {
            *byte == 0
                || file.durable.get(at) == Some(byte)
                || file
                    .since
                    .get(&at)
                    .is_some_and(|bytes| bytes.contains(byte))
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_readers_see_is_what_was_done_whatever_was_synced(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (_guard, dir, disk) = fresh();
        let mut model = Model::default();
        for step in &steps {
            apply(step, &disk, &dir, &mut model);
        }
        prop_assert_eq!(seen(disk.as_ref(), &dir), model.seen_bytes());
    }

    /// Names end with a sync of the directory, so that the model knows them; bytes do not.
    #[test]
    fn a_power_cut_leaves_exactly_the_synced_bytes(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let (_guard, dir, disk) = fresh();
        let mut model = Model::default();
        for step in &steps {
            apply(step, &disk, &dir, &mut model);
        }
        apply(&Step::SyncDir, &disk, &dir, &mut model);
        disk.power_cut().unwrap();
        prop_assert_eq!(seen(VolatileDisk::new().as_ref(), &dir), model.durable_bytes());
    }

    /// Without name changes after the last directory sync, names survive any cut.
    #[test]
    fn a_partial_power_cut_leaves_old_or_new_bytes_and_synced_files_whole(
        before in prop::collection::vec(step(), 1..30),
        after in prop::collection::vec(step(), 1..30),
        seed in any::<u64>(),
    ) {
        let (_guard, dir, disk) = fresh();
        let mut model = Model::default();
        for step in &before {
            apply(step, &disk, &dir, &mut model);
        }
        apply(&Step::SyncDir, &disk, &dir, &mut model);
        for step in &after {
            if matches!(step, Step::Write { .. } | Step::SetLength { .. } | Step::Sync(_)) {
                apply(step, &disk, &dir, &mut model);
            }
        }
        disk.power_cut_keeping(&mut fastrand::Rng::with_seed(seed)).unwrap();
        let left = seen(VolatileDisk::new().as_ref(), &dir);
        prop_assert_eq!(left.len(), model.durable.len());
        for (name, id) in &model.durable {
            let file = &model.files[*id];
            let bytes = &left[NAMES[*name]];
            prop_assert!(may_be_left(file, bytes), "seed {}: {}", seed, NAMES[*name]);
            if file.seen == file.durable && file.since.is_empty() && file.longest == file.seen.len() {
                prop_assert_eq!(bytes, &file.durable);
            }
        }
    }

    /// Whatever part of the names survives, a durable replacement leaves the old or the new bytes.
    #[test]
    fn a_durable_replacement_is_old_or_new_at_every_cut(seed in any::<u64>(), late in any::<bool>()) {
        let (_guard, dir, disk) = fresh();
        replace_durably(disk.as_ref(), &dir, "f", &[1; 5000]).unwrap();
        if late {
            replace_durably(disk.as_ref(), &dir, "f", &[2; 6000]).unwrap();
        } else {
            // The same steps, cut before the directory is synced.
            let staged = dir.join("f.staged");
            let file = disk.open(&staged, OpenMode::OpenOrCreate).unwrap();
            file.write_all_at(&[2; 6000], 0).unwrap();
            file.sync().unwrap();
            disk.rename(&staged, &dir.join("f")).unwrap();
        }
        disk.power_cut_keeping(&mut fastrand::Rng::with_seed(seed)).unwrap();
        let left = read_whole(VolatileDisk::new().as_ref(), &dir.join("f"), LIMIT).unwrap();
        prop_assert!(left == vec![2; 6000] || (!late && left == vec![1; 5000]));
    }
}

#[test]
fn partial_cuts_really_differ_and_a_seed_repeats_one() {
    let cut = |seed| {
        let (_guard, dir, disk) = fresh();
        for name in ["a", "b", "c"] {
            let file = disk.open(&dir.join(name), OpenMode::CreateNew).unwrap();
            file.write_all_at(&vec![1; 40_000], 0).unwrap();
        }
        disk.power_cut_keeping(&mut fastrand::Rng::with_seed(seed))
            .unwrap();
        seen(VolatileDisk::new().as_ref(), &dir)
    };
    let outcomes: std::collections::BTreeSet<_> = (0..40).map(cut).collect();
    assert!(outcomes.len() > 10, "{}", outcomes.len());
    assert_eq!(cut(7), cut(7));
}
