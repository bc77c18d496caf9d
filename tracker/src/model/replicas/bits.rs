//! A set of small numbers, one bit each: chunk slots are dense, so this is the smallest set of
//! chunks that a datanode or a queue can keep.

/// A growing bit set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BitSet {
    words: Vec<u64>,
    count: u64,
}

impl BitSet {
    /// Whether it was absent before.
    pub(super) fn insert(&mut self, at: u32) -> bool {
        let (word, bit) = place(at);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let fresh = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.count += u64::from(fresh);
        fresh
    }

    /// Whether it was present before.
    pub(super) fn remove(&mut self, at: u32) -> bool {
        let (word, bit) = place(at);
        let present = self.contains(at);
        if present {
            self.words[word] &= !bit;
            self.count -= 1;
        }
        present
    }

    pub(super) fn contains(&self, at: u32) -> bool {
        let (word, bit) = place(at);
        self.words.get(word).is_some_and(|bits| bits & bit != 0)
    }

    pub(super) fn len(&self) -> u64 {
        self.count
    }

    /// Members from `start` upwards.
    pub(super) fn iter_from(&self, start: u32) -> impl Iterator<Item = u32> + '_ {
        let (first, _) = place(start);
        let words = self.words.iter().enumerate().skip(first);
        words
            .flat_map(|(word, bits)| Ones(*bits).map(move |bit| number(word, bit)))
            .skip_while(move |at| *at < start)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.iter_from(0)
    }
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

fn place(at: u32) -> (usize, u64) {
    ((at / 64) as usize, 1 << (at % 64))
}

// Slots are numbered in u32, so the word index times 64 fits.
#[allow(clippy::cast_possible_truncation)]
fn number(word: usize, bit: u32) -> u32 {
    word as u32 * 64 + bit
}

#[cfg(test)]
mod tests {
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
}
