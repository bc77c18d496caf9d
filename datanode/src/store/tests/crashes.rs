//! The store over a disk that loses its power, at every change of the disk and by seeds: what was
//! acknowledged is there, what was removed stays gone, nothing is ever half there (I2, I9).

use std::collections::BTreeMap;

use super::*;
use crate::testing::sim::SimDisk;

/// Packs so small that chunks, removals and compactions meet in every run.
const LIMITS: PackLimits = PackLimits {
    chunk: 6 * 1024,
    pack: 12 * 1024,
};

/// What may be found of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    There,
    Gone,
    /// The power went during the order.
    Either,
}

struct World {
    root: PathBuf,
    disk: SimDisk,
    opened: Option<Opened>,
    known: BTreeMap<u128, Known>,
}

/// The bytes of a chunk, told by its id.
fn content(id: u128) -> Vec<u8> {
    let length = [0, 10, 700, 3000, 5000, 8000][usize::try_from(id % 6).unwrap()];
    let first = u8::try_from(id % 251).unwrap();
    std::iter::successors(Some(first), |byte| {
        Some(byte.wrapping_mul(5).wrapping_add(1))
    })
    .take(length)
    .collect()
}

impl World {
    fn new() -> Self {
        let root = PathBuf::from("/v");
        let disk = SimDisk::default();
        let opened = Some(open(disk.shared(), &root, LIMITS));
        Self {
            root,
            disk,
            opened,
            known: BTreeMap::new(),
        }
    }

    fn store(&self) -> &FileChunkStore {
        &self.opened.as_ref().unwrap().store
    }

    /// Whether the process is dead, or about to stop.
    fn is_over(&self) -> bool {
        self.disk.is_off() || self.store().fail_stop().is_failed()
    }

    fn put(&mut self, id: u128) {
        if self.is_over() {
            return;
        }
        let data = content(id);
        let chunk = sealed(id, &data);
        let outcome = self.store().begin(&new_chunk(id, data.len() as u64));
        let outcome = outcome.and_then(|mut staged| {
            append(staged.as_mut(), 0, &data)?;
            staged.seal(&chunk)
        });
        let known = match outcome {
            Ok(_) => Known::There,
            Err(_) => Known::Either,
        };
        self.known.insert(id, known);
    }

    fn remove(&mut self, id: u128) {
        if self.is_over() {
            return;
        }
        let id_of = ChunkId::from_u128(id);
        let removed = self
            .store()
            .remove(id_of, ChunkVersion::FIRST, ChunkKind::Data);
        let known = match removed {
            Ok(_) => Known::Gone,
            Err(_) => Known::Either,
        };
        self.known.insert(id, known);
    }

    fn compact(&self) {
        while let Ok(Some(_)) = self.store().compact() {}
    }

    /// Does one of the orders that may come.
    fn step(&mut self, rng: &mut fastrand::Rng) {
        let id = u128::from(rng.u32(0..18));
        match rng.u32(0..10) {
            0..=4
                if self
                    .known
                    .get(&id)
                    .is_none_or(|known| *known == Known::Gone) =>
            {
                self.put(id);
            }
            0..=7 => self.remove(id),
            8 => self.compact(),
            _ => {
                let _one = self.store().compact();
            }
        }
    }

    fn restart(&mut self) {
        drop(self.opened.take());
        self.opened = Some(open(self.disk.shared(), &self.root, LIMITS));
    }

    /// The process dies, the machine goes on.
    fn death(&mut self) {
        let next = self.disk.after_death();
        drop(self.opened.take());
        self.disk = next;
        self.opened = Some(open(self.disk.shared(), &self.root, LIMITS));
    }

    fn power_cut(&mut self, rng: &mut fastrand::Rng) {
        let next = self.disk.after_power_cut(rng);
        drop(self.opened.take());
        self.disk = next;
        self.opened = Some(open(self.disk.shared(), &self.root, LIMITS));
    }

    /// Compares the store with what it answered. What a crash left open is known from here on.
    fn check(&mut self, what: &str) {
        let mut count = 0;
        for (id, known) in &mut self.known {
            let key = (ChunkId::from_u128(*id), ChunkVersion::FIRST);
            let opened = self.opened.as_ref().unwrap();
            let held = opened.store.index().get(key).is_some();
            match known {
                Known::There => assert!(held, "{what}: chunk {id} is lost"),
                Known::Gone => assert!(!held, "{what}: chunk {id} came back"),
                Known::Either => *known = if held { Known::There } else { Known::Gone },
            }
            if held {
                count += 1;
                let data = content(*id);
                let read = opened.read(&sealed(*id, &data));
                assert_eq!(read.expect(what), data, "{what}: chunk {id}");
            }
        }
        let store = self.store();
        assert_eq!(store.index().totals().0, count, "{what}");
        let told = store.index().delta().corrupt;
        assert!(told.is_empty(), "{what}: {told:?}");
        assert_eq!(store.set_aside_count(), SetAside::default(), "{what}");
    }
}

/// Random orders, restarts and power cuts.
fn run(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::new();
    for round in 0..6 {
        let cut = rng.u64(1..60);
        world.disk.cut_after(cut);
        for _ in 0..rng.u32(1..40) {
            if world.disk.is_off() {
                break;
            }
            world.step(&mut rng);
        }
        match rng.u32(0..4) {
            0 => world.death(),
            1 if !world.disk.is_off() => {
                world.disk.cut_after(u64::MAX);
                world.restart();
            }
            _ => world.power_cut(&mut rng),
        }
        world.check(&format!("seed {seed}, round {round}"));
    }
}

#[test]
fn i02_i09_whatever_order_the_power_cuts_what_was_answered_holds() {
    for seed in 0..400 {
        run(seed);
    }
}

/// A run of orders during which packs begin, empty and go.
fn busy(world: &mut World) {
    for id in 0..12 {
        world.put(id);
    }
    for id in (0..12).filter(|id| id % 3 != 1) {
        world.remove(id);
    }
    world.compact();
    for id in [2, 3, 20, 21] {
        world.put(id);
    }
    world.remove(1);
    world.compact();
}

#[test]
fn i02_i09_the_power_may_go_at_every_step_of_seals_removals_and_compaction() {
    let mut whole = World::new();
    let before = whole.disk.changes();
    busy(&mut whole);
    let changes = whole.disk.changes() - before;
    assert!(changes > 60, "{changes}");
    assert!(whole.store().compact().unwrap().is_none());
    whole.check("without a crash");
    for cut in 1..=changes {
        for seed in 0..8 {
            let mut rng = fastrand::Rng::with_seed(cut * 8 + seed);
            let mut world = World::new();
            world.disk.cut_after(cut);
            busy(&mut world);
            world.power_cut(&mut rng);
            world.check(&format!("cut {cut}, seed {seed}"));
            // A second crash, during what follows the first.
            world.disk.cut_after(1 + rng.u64(0..20));
            world.compact();
            world.power_cut(&mut rng);
            world.check(&format!("cut {cut}, seed {seed}, again"));
        }
    }
}

/// What a start found is what counts: it may be reported, so nothing less may be there later. The
/// power goes at once, or after compaction and more work.
fn works_on_and_loses_power(world: &mut World, seed: u64, what: &str) {
    let mut rng = fastrand::Rng::with_seed(seed);
    world.check(what);
    let work = seed % 3;
    if work > 0 {
        world.compact();
    }
    if work > 1 {
        world.remove(30);
        for id in [4, 31, 32, 33] {
            world.put(id);
        }
        world.compact();
    }
    world.power_cut(&mut rng);
    world.check(&format!("{what}, then the power"));
}

#[test]
fn i02_i09_what_a_start_finds_after_the_process_died_alone_outlives_a_power_cut() {
    let mut whole = World::new();
    let before = whole.disk.changes();
    busy(&mut whole);
    let changes = whole.disk.changes() - before;
    for death in 1..=changes {
        for seed in 0..9 {
            let mut world = World::new();
            world.disk.cut_after(death);
            busy(&mut world);
            world.death();
            let what = format!("death {death}, seed {seed}");
            works_on_and_loses_power(&mut world, death * 9 + seed, &what);
        }
    }
}

#[test]
fn i14_what_a_start_finds_after_a_failed_fsync_outlives_a_power_cut() {
    let begun = || {
        let mut world = World::new();
        // The volume is marked.
        world.put(30);
        world
    };
    let mut whole = begun();
    let before = whole.disk.changes();
    busy(&mut whole);
    let mut failed = 0;
    for at in before + 1..=whole.disk.changes() {
        for seed in 0..6 {
            let mut world = begun();
            world.disk.fail_sync_at(at);
            busy(&mut world);
            if !world.store().fail_stop().is_failed() {
                break;
            }
            failed += 1;
            world.death();
            let what = format!("fsync {at}, seed {seed}");
            works_on_and_loses_power(&mut world, at * 6 + seed, &what);
        }
    }
    assert!(failed > 60, "{failed}");
}

#[test]
fn i02_a_start_makes_the_directories_durable_in_which_it_finds_chunks() {
    for seed in 0..8 {
        let mut world = World::new();
        // In a file of its own.
        world.put(5);
        for dir in ["/v/chunks", "/v/chunks/00"] {
            world.disk.unsync_dir(Path::new(dir));
        }
        world.death();
        let what = format!("seed {seed}");
        world.check(&what);
        world.power_cut(&mut fastrand::Rng::with_seed(seed));
        world.check(&format!("{what}, then the power"));
    }
}

#[test]
fn i02_a_start_may_die_or_lose_power_at_every_change_that_it_makes() {
    for death in 1..=60 {
        for at in 1..=8 {
            let mut rng = fastrand::Rng::with_seed(death * 8 + at);
            let mut world = World::new();
            world.disk.cut_after(death);
            busy(&mut world);
            let next = world.disk.after_death();
            drop(world.opened.take());
            world.disk = next;
            world.disk.cut_after(at);
            world.opened = try_open(world.disk.shared(), &world.root, LIMITS).ok();
            if death % 2 == 0 {
                world.death();
                world.check(&format!("death {death}, start {at}"));
            }
            world.power_cut(&mut rng);
            world.check(&format!("death {death}, start {at}, power"));
        }
    }
}

#[test]
fn i04_fault_07_rot_anywhere_in_packs_is_never_served_and_never_spreads() {
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        for _ in 0..40 {
            world.step(&mut rng);
        }
        let packs = world.disk.files(&world.root.join("packs"));
        let Some(pack) = rng.choice(&packs) else {
            continue;
        };
        world.disk.edit(pack, |bytes| {
            let at = rng.usize(0..bytes.len());
            bytes[at] ^= 1 << rng.u32(0..8);
        });
        world.restart();
        let mut lost = 0;
        let mut back = 0;
        for (id, known) in &world.known {
            let data = content(*id);
            let read = world.opened.as_ref().unwrap().read(&sealed(*id, &data));
            match (read, known) {
                (Ok(read), Known::There) => assert_eq!(read, data, "seed {seed}"),
                (Ok(_), _) => back += 1,
                (Err(_), Known::There) => lost += 1,
                (Err(_), _) => {}
            }
        }
        // A removal that rots lets one chunk come back, which the tracker does not know any more.
        assert!(
            lost + back <= 1,
            "seed {seed}: {lost} lost, {back} came back"
        );
    }
}
