use dfs_protocol::{ChunkId, ChunkVersion};

use super::*;

fn key(id: u128) -> ReplicaKey {
    (ChunkId::from_u128(id), ChunkVersion(1))
}

fn place(pack: u64, offset: u64) -> Place {
    Place {
        pack,
        offset,
        header: 512,
        length: 5120,
    }
}

fn book(packs: u64) -> Book {
    let mut book = Book::default();
    for number in 1..=packs {
        book.add_pack(number, 512 + 4 * 5120);
    }
    book.open = Some(packs);
    book
}

#[test]
fn i09_a_removal_is_needed_while_another_pack_holds_a_dead_entry_of_its_key() {
    let mut book = book(3);
    book.put(key(1), place(1, 512));
    book.put(key(1), place(2, 512));
    book.remove(key(1), 3);
    assert!(book.needs_removal(key(1), 3));
    let _gone = book.drop_pack(2);
    assert!(
        book.needs_removal(key(1), 3),
        "the first copy still lies in pack 1"
    );
    let _gone = book.drop_pack(1);
    assert!(!book.needs_removal(key(1), 3));
}

#[test]
fn a_later_entry_supersedes_a_removal() {
    let mut book = book(3);
    book.put(key(1), place(1, 512));
    book.remove(key(1), 2);
    book.put(key(1), place(3, 512));
    assert!(!book.needs_removal(key(1), 2));
    assert_eq!(book.totals(), [3, 5120, 3 * (512 + 4 * 5120) - 5120, 0]);
}

#[test]
fn a_pack_is_emptied_of_live_entries_then_of_removals_then_deleted() {
    let mut book = book(4);
    book.put(key(9), place(1, 512));
    for id in 2..=3 {
        book.put(key(9 + id), place(1, 512 * u64::try_from(id).unwrap() * 20));
    }
    book.put(key(1), place(2, 512));
    book.remove(key(9), 2);
    let step = book.next_step(Worth::WithRoom, 1 << 30, 1 << 20);
    // Pack 3 is empty: it is the first to go.
    assert_eq!(step, Some(Step::Unlink(3)));
    let _gone = book.drop_pack(3);
    let step = book.next_step(Worth::WithRoom, 1 << 30, 1 << 20);
    assert_eq!(step, Some(Step::Move(vec![(key(1), place(2, 512))])));
    book.put(key(1), place(4, 512));
    let step = book.next_step(Worth::WithRoom, 1 << 30, 1 << 20);
    assert_eq!(step, Some(Step::Carry(vec![key(9)])));
    book.remove(key(9), 4);
    assert_eq!(
        book.next_step(Worth::WithRoom, 1 << 30, 1 << 20),
        Some(Step::Unlink(2))
    );
}

/// What is on the disk: by pack, entries with their place and removals without.
#[derive(Default)]
struct Log(BTreeMap<u64, Vec<(ReplicaKey, Option<Place>)>>);

impl Log {
    /// Appends an entry, or a removal, and tells the book.
    fn append(&mut self, book: &mut Book, key: ReplicaKey, is_entry: bool) {
        let open = book.open.unwrap();
        let end = book.pack(open).unwrap().end;
        let length = if is_entry { 2048 } else { REMOVAL_LEN };
        let place = Place {
            pack: open,
            offset: end,
            header: 512,
            length,
        };
        book.extend(open, end + length);
        self.0
            .entry(open)
            .or_default()
            .push((key, is_entry.then_some(place)));
        if is_entry {
            book.put(key, place);
        } else {
            book.remove(key, open);
        }
    }

    /// What a start would make of it.
    fn live(&self) -> BTreeSet<ReplicaKey> {
        let mut live = BTreeSet::new();
        for (key, entry) in self.0.values().flatten() {
            if entry.is_some() {
                live.insert(*key);
            } else {
                live.remove(key);
            }
        }
        live
    }
}

/// A datanode's packs, and who seals, removes and compacts there at random.
#[derive(Default)]
struct World {
    book: Book,
    log: Log,
    /// What was sealed and not removed, as far as this run of the datanode knows.
    live: BTreeSet<ReplicaKey>,
    /// What was sealed in this run, and what was removed and not sealed again.
    sealed: BTreeSet<ReplicaKey>,
    removed: BTreeSet<ReplicaKey>,
    last: u64,
    unlinked: u32,
}

impl World {
    fn act(&mut self, rng: &mut fastrand::Rng) {
        if self.book.open.is_none() || rng.u8(..40) == 0 {
            self.begin_pack();
        }
        let key = key(rng.u128(..60));
        match rng.u8(..10) {
            0..=3 if self.live.insert(key) => {
                self.removed.remove(&key);
                self.sealed.insert(key);
                self.log.append(&mut self.book, key, true);
            }
            4..=6 if self.live.remove(&key) => {
                self.removed.insert(key);
                self.log.append(&mut self.book, key, false);
            }
            7..=9 => self.compact([Worth::WithRoom, Worth::OnAFullVolume][rng.usize(..2)]),
            _ => {}
        }
    }

    fn begin_pack(&mut self) {
        self.last += 1;
        self.book.add_pack(self.last, PACK_HEADER_LEN);
        self.book.open = Some(self.last);
    }

    fn compact(&mut self, worth: Worth) {
        if self.book.open.is_none() {
            self.begin_pack();
        }
        let Self { book, log, .. } = self;
        match book.next_step(worth, 1 << 20, 3 * REMOVAL_LEN) {
            Some(Step::Move(entries)) => {
                for (key, _) in entries {
                    log.append(book, key, true);
                }
            }
            Some(Step::Carry(keys)) => {
                for key in keys {
                    log.append(book, key, false);
                }
            }
            Some(Step::Unlink(number)) => {
                log.0.remove(&number);
                let _gone = book.drop_pack(number);
                self.unlinked += 1;
            }
            Some(Step::Close(number)) => assert_eq!(book.open.take(), Some(number)),
            Some(Step::Weigh) | None => {}
        }
    }

    /// The datanode starts again, and its disk does not give one pack.
    fn restart_without(&mut self, unread: Option<u64>) {
        self.book = Book::default();
        for (number, entries) in &self.log.0 {
            let lengths = entries.iter();
            let lengths = lengths.map(|(_, entry)| entry.map_or(REMOVAL_LEN, |at| at.length));
            let end = PACK_HEADER_LEN + lengths.sum::<u64>();
            self.book.add_pack(*number, end);
            if Some(*number) == unread {
                self.book.keep_unread(*number);
                continue;
            }
            for (key, entry) in entries {
                match entry {
                    Some(place) => self.book.put(*key, *place),
                    None => self.book.remove(*key, *number),
                }
            }
        }
        self.live = self.book.places.keys().copied().collect();
        self.sealed.clear();
        self.removed.clear();
    }
}

#[test]
fn i09_whatever_compaction_takes_a_start_finds_what_is_live_and_nothing_else() {
    let mut unlinked = 0;
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::default();
        for step in 0..400 {
            world.act(&mut rng);
            let World {
                book, log, live, ..
            } = &world;
            assert_eq!(log.live(), *live, "seed {seed}, step {step}");
            let places: BTreeSet<_> = book.places.keys().copied().collect();
            assert_eq!(places, *live, "seed {seed}, step {step}");
        }
        // Nothing is remembered of what is gone, and each removal stands once.
        let book = &world.book;
        let dead = book.graves.values().flatten();
        assert!(dead.copied().all(|pack| book.packs.contains_key(&pack)));
        let removals = book.packs.values().map(|pack| pack.removals.len());
        assert_eq!(removals.sum::<usize>(), book.last_removals.len());
        unlinked += world.unlinked;
    }
    assert!(unlinked > 1000, "{unlinked}");
}

#[test]
fn i01_i09_whatever_is_done_while_a_pack_is_unread_a_later_start_has_what_was_sealed() {
    let mut unlinked = 0;
    for seed in 0..600 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::default();
        for _ in 0..400 {
            world.act(&mut rng);
        }
        let sealed = world.live.clone();
        let packs: Vec<_> = world.log.0.keys().copied().collect();
        let unread = packs[rng.usize(..packs.len())];
        world.restart_without(Some(unread));
        let before = world.unlinked;
        for _ in 0..rng.usize(..60) {
            world.act(&mut rng);
            // More of this than of that: what is sealed again hides what was lost.
            for _ in 0..5 {
                world.compact(Worth::OnAFullVolume);
            }
        }
        unlinked += world.unlinked - before;
        let sealed: BTreeSet<_> = sealed.union(&world.sealed).copied().collect();
        let removed = world.removed.clone();
        world.restart_without(None);
        // A removal in the unread pack may have been out of sight meanwhile: more may be live than that.
        let mut lost: Vec<_> = sealed.difference(&removed).collect();
        lost.retain(|key| !world.live.contains(*key));
        assert!(lost.is_empty(), "seed {seed}: {lost:?} is lost");
        let back: Vec<_> = removed.intersection(&world.live).collect();
        assert!(back.is_empty(), "seed {seed}: {back:?} came back");
    }
    assert!(unlinked > 500, "{unlinked}");
}

#[test]
fn on_a_full_volume_less_is_worth_it() {
    let mut book = book(2);
    for entry in 0..4 {
        let place = place(1, 512 + 5120 * entry);
        book.put(key(u128::from(entry)), place);
    }
    book.remove(key(0), 2);
    assert_eq!(book.next_step(Worth::WithRoom, 1 << 30, 1 << 20), None);
    let step = book.next_step(Worth::OnAFullVolume, 1 << 30, 1 << 20);
    assert!(
        matches!(&step, Some(Step::Move(moved)) if moved.len() == 3),
        "{step:?}"
    );
}

#[test]
fn many_removals_are_weighed_a_few_at_a_time() {
    let mut book = book(3);
    book.extend(2, 1 << 20);
    for id in 0..100 {
        book.put(key(id), place(1, 512 + 5120 * u64::try_from(id).unwrap()));
        book.remove(key(id), 2);
    }
    book.extend(1, 1 << 20);
    let mut step = || book.next_step(Worth::WithRoom, 1 << 30, 45 * REMOVAL_LEN);
    assert_eq!(step(), Some(Step::Unlink(1)), "it has no removals");
    let _gone = book.drop_pack(1);
    let mut weighed = 0;
    let mut step = || book.next_step(Worth::WithRoom, 1 << 30, 45 * REMOVAL_LEN);
    let unlinked = loop {
        match step() {
            Some(Step::Weigh) => weighed += 1,
            other => break other,
        }
    };
    assert_eq!(unlinked, Some(Step::Unlink(2)), "none is needed");
    assert!((1..=6).contains(&weighed), "{weighed}");
}

#[test]
fn i01_a_removal_is_not_repeated_behind_a_pack_that_nobody_read() {
    let mut book = book(5);
    book.put(key(1), place(1, 512));
    book.remove(key(1), 2);
    // Sealed again in the third, as far as anybody who could read it knows.
    book.keep_unread(3);
    let packs = book.numbers();
    while let Some(step) = book.next_step(Worth::OnAFullVolume, 1 << 30, 1 << 20) {
        match step {
            Step::Unlink(number) => drop(book.drop_pack(number)),
            Step::Weigh => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(packs, [1, 2, 3, 4, 5]);
    assert_eq!(book.numbers(), [2, 3, 5], "the removal stays where it is");
    assert!(book.needs_removal(key(9), 4), "it may lie in the third");
    assert!(!book.needs_removal(key(9), 2));
}

#[test]
fn many_small_packs_are_joined() {
    let mut book = book(SMALL_PACKS as u64 + 1);
    for number in 1..=SMALL_PACKS as u64 {
        for entry in 0..4 {
            let id = u128::from(number) * 10 + entry;
            let offset = 512 + 5120 * u64::try_from(entry).unwrap();
            book.put(key(id), place(number, offset));
        }
    }
    let limit = 1 << 20;
    assert!(matches!(
        book.next_step(Worth::WithRoom, 1 << 20, limit),
        Some(Step::Move(_))
    ));
    assert_eq!(
        book.next_step(Worth::WithRoom, 4096, limit),
        None,
        "they are not small"
    );
    let _gone = book.drop_pack(5);
    assert_eq!(
        book.next_step(Worth::WithRoom, 1 << 20, limit),
        None,
        "they are not many"
    );
}
