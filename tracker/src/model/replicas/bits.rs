//! A set of slot numbers, the smallest that a datanode or a queue can keep: numbers come in blocks, and a
//! block is a sorted list while it has few of them (two bytes each: a thousand datanodes hold a
//! three-hundredth of the chunks each) and a map of bits when it has many.

/// Numbers of one block.
const BLOCK: usize = 1 << 16;
/// A list with more becomes a map of bits, which is no larger than what the list has allocated then.
const MOST_LISTED: usize = 2048;
/// A map of bits with fewer becomes a list again; far enough below that a set does not go to and fro.
const LEAST_MAPPED: usize = 1024;
const WORDS: usize = BLOCK / 64;

/// A growing set of numbers.
#[derive(Debug, Clone, Default)]
pub(super) struct BitSet {
    blocks: Vec<Block>,
    count: u64,
}

#[derive(Debug, Clone)]
enum Block {
    /// Ascending.
    Few(Vec<u16>),
    /// A bit for each number, and how many are set.
    Many(Box<[u64; WORDS]>, usize),
}

impl BitSet {
    /// Whether it was absent before.
    pub(super) fn insert(&mut self, at: u32) -> bool {
        let (block, low) = place(at);
        if block >= self.blocks.len() {
            let empty = || Block::Few(Vec::new());
            self.blocks.resize_with(block + 1, empty);
        }
        let fresh = self.blocks[block].insert(low);
        self.count += u64::from(fresh);
        fresh
    }

    /// Whether it was present before.
    pub(super) fn remove(&mut self, at: u32) -> bool {
        let (block, low) = place(at);
        let present = self.blocks.get_mut(block).is_some_and(|b| b.remove(low));
        self.count -= u64::from(present);
        present
    }

    pub(super) fn contains(&self, at: u32) -> bool {
        let (block, low) = place(at);
        self.blocks.get(block).is_some_and(|b| b.contains(low))
    }

    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// Members from `start` upwards.
    pub(super) fn iter_from(&self, start: u32) -> impl Iterator<Item = u32> + '_ {
        let (first, low) = place(start);
        let blocks = (0u32..).zip(&self.blocks).skip(first);
        blocks.flat_map(move |(number, block)| {
            let from = if number as usize == first { low } else { 0 };
            block.iter_from(from).map(move |low| (number << 16) | low)
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.iter_from(0)
    }
}

impl Block {
    fn insert(&mut self, low: u16) -> bool {
        match self {
            Self::Few(list) => {
                let Err(at) = list.binary_search(&low) else {
                    return false;
                };
                list.insert(at, low);
                if list.len() > MOST_LISTED {
                    *self = mapped(list);
                }
                true
            }
            Self::Many(words, count) => {
                let (word, bit) = bit_of(low);
                let fresh = words[word] & bit == 0;
                words[word] |= bit;
                *count += usize::from(fresh);
                fresh
            }
        }
    }

    fn remove(&mut self, low: u16) -> bool {
        let present = self.contains(low);
        match self {
            Self::Few(list) => {
                if let Ok(at) = list.binary_search(&low) {
                    list.remove(at);
                }
            }
            Self::Many(words, count) if present => {
                let (word, bit) = bit_of(low);
                words[word] &= !bit;
                *count -= 1;
                if *count < LEAST_MAPPED {
                    *self = Self::Few(listed(words));
                }
            }
            Self::Many(..) => {}
        }
        present
    }

    fn contains(&self, low: u16) -> bool {
        match self {
            Self::Few(list) => list.binary_search(&low).is_ok(),
            Self::Many(words, _) => {
                let (word, bit) = bit_of(low);
                words[word] & bit != 0
            }
        }
    }

    fn iter_from(&self, from: u16) -> impl Iterator<Item = u32> + '_ {
        let (list, words): (&[u16], &[u64]) = match self {
            Self::Few(list) => (&list[list.partition_point(|low| *low < from)..], &[]),
            Self::Many(words, _) => (&[], &words[..]),
        };
        let listed = list.iter().map(|low| u32::from(*low));
        listed.chain(ones(words, from))
    }
}

fn mapped(list: &[u16]) -> Block {
    let mut words = Box::new([0; WORDS]);
    for low in list {
        let (word, bit) = bit_of(*low);
        words[word] |= bit;
    }
    Block::Many(words, list.len())
}

// A block's numbers fit u16.
#[allow(clippy::cast_possible_truncation)]
fn listed(words: &[u64; WORDS]) -> Vec<u16> {
    ones(words, 0).map(|low| low as u16).collect()
}

/// Set bits from one on.
fn ones(words: &[u64], from: u16) -> impl Iterator<Item = u32> + '_ {
    let (first, _) = bit_of(from);
    let words = (0u32..).zip(words).skip(first);
    words
        .flat_map(|(word, bits)| Ones(*bits).map(move |bit| word * 64 + bit))
        .skip_while(move |low| *low < u32::from(from))
}

struct Ones(u64);

impl Iterator for Ones {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

// Cutting the number into block and place is the point.
#[allow(clippy::cast_possible_truncation)]
fn place(at: u32) -> (usize, u16) {
    ((at >> 16) as usize, at as u16)
}

fn bit_of(low: u16) -> (usize, u64) {
    (usize::from(low / 64), 1 << (low % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_come_back_in_order_from_any_start() {
        let mut set = BitSet::default();
        for at in [200, 3, 64, 63, 3] {
            set.insert(at);
        }
        assert_eq!(set.iter().collect::<Vec<_>>(), [3, 63, 64, 200]);
        assert_eq!(set.iter_from(64).collect::<Vec<_>>(), [64, 200]);
        assert_eq!(set.iter_from(201).count(), 0);
        assert!(set.remove(63) && !set.remove(63) && !set.remove(9999));
        assert_eq!(set.len(), 3);
    }

    proptest! {
        /// Runs of numbers, so that blocks become maps of bits and lists again.
        #[test]
        fn a_set_equals_a_plain_one_while_its_blocks_fill_and_empty(
            runs in prop::collection::vec((0u32..180_000, 1u32..5_000, 1u32..4, any::<bool>()), 1..12),
            starts in prop::collection::vec(0u32..200_000, 1..8),
        ) {
            let (mut set, mut plain) = (BitSet::default(), BTreeSet::new());
            for (start, length, step, adds) in runs {
                for at in (start..start + length * step).step_by(step as usize) {
                    if adds {
                        prop_assert_eq!(set.insert(at), plain.insert(at));
                    } else {
                        prop_assert_eq!(set.remove(at), plain.remove(&at));
                    }
                }
                prop_assert_eq!(set.len(), plain.len() as u64);
                prop_assert!(set.iter().eq(plain.iter().copied()));
            }
            for start in starts {
                prop_assert!(set.iter_from(start).eq(plain.range(start..).copied()));
                prop_assert_eq!(set.contains(start), plain.contains(&start));
            }
        }
    }
}
