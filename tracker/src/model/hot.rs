//! Which files were read and written most lately, in a memory that does not grow with the files: the
//! space-saving sketch (Metwally, Agrawal, El Abbadi 2005) over counts that decay. With N accesses, old ones
//! counted less, every file with more than N / [`HotSketch::limit`] of them is in it.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_protocol::FilePath;
use dfs_protocol::traffic::HotFile;

/// Files that are counted at once.
pub const HOT_FILES: usize = 64;
/// After so long an access counts half.
pub const HALF_LIFE: Duration = Duration::from_mins(2);
/// Fewer accesses than this are not lately.
const COLD: f64 = 0.05;
/// Half-lives after which the scale begins anew, long before numbers lose digits.
const RESCALE_AFTER: f64 = 32.0;

/// What was done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It was read, or a part of it.
    Read,
    /// It was written.
    Write,
}

/// The sketch. Its memory is at most [`limit`](Self::limit) paths and their counts, whatever is noted.
#[derive(Debug)]
pub struct HotSketch {
    limit: usize,
    half_life: Duration,
    /// An access at this time weighs 1; a later one more, which is the same as that older ones fade.
    landmark: Duration,
    entries: BTreeMap<FilePath, Heat>,
    reads: u64,
    writes: u64,
}

/// One file's counts, in weights of the landmark.
#[derive(Debug, Clone, Copy)]
struct Heat {
    size: u64,
    reads: f64,
    writes: f64,
    /// What the file whose place it took had: its own accesses before may be as many.
    missed: f64,
}

impl Heat {
    fn counted(&self) -> f64 {
        self.reads + self.writes
    }

    fn at_most(&self) -> f64 {
        self.counted() + self.missed
    }
}

impl HotSketch {
    /// An empty sketch of at most `limit` files (at least one), whose accesses count half after `half_life`.
    pub fn new(limit: usize, half_life: Duration, now: Duration) -> Self {
        Self {
            limit: limit.max(1),
            half_life: half_life.max(Duration::from_millis(1)),
            landmark: now,
            entries: BTreeMap::new(),
            reads: 0,
            writes: 0,
        }
    }

    /// Notes one access. True when another file lost its place for it.
    pub fn note(&mut self, path: &FilePath, access: Access, size: u64, now: Duration) -> bool {
        match access {
            Access::Read => self.reads += 1,
            Access::Write => self.writes += 1,
        }
        let weight = self.weight(now);
        let (reads, writes) = match access {
            Access::Read => (weight, 0.0),
            Access::Write => (0.0, weight),
        };
        if let Some(heat) = self.entries.get_mut(path) {
            heat.size = size;
            heat.reads += reads;
            heat.writes += writes;
            return false;
        }
        let missed = self.make_room();
        let heat = Heat {
            size,
            reads,
            writes,
            missed: missed.unwrap_or(0.0),
        };
        self.entries.insert(path.clone(), heat);
        missed.is_some()
    }

    /// Files with accesses lately, those with the most first.
    pub fn hottest(&self, now: Duration) -> Vec<HotFile> {
        let scale = self.half_lives(now).exp2();
        let mut files: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, heat)| heat.counted() / scale >= COLD)
            .map(|(path, heat)| HotFile {
                path: path.clone(),
                size: heat.size,
                reads: heat.reads / scale,
                writes: heat.writes / scale,
                missed: heat.missed / scale,
            })
            .collect();
        let heat = |file: &HotFile| file.reads + file.writes;
        // Stable: what is as hot stays in the order of its names.
        files.sort_by(|a, b| heat(b).total_cmp(&heat(a)));
        files
    }

    /// Reads and writes noted since it was made.
    pub fn totals(&self) -> (u64, u64) {
        (self.reads, self.writes)
    }

    /// Files that are counted at once, at most.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Files that are counted.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was noted.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// After how long an access counts half.
    pub fn half_life(&self) -> Duration {
        self.half_life
    }

    /// What an access weighs now.
    fn weight(&mut self, now: Duration) -> f64 {
        let past = self.half_lives(now);
        if past < RESCALE_AFTER {
            return past.exp2();
        }
        for heat in self.entries.values_mut() {
            let fade = (-past).exp2();
            heat.reads *= fade;
            heat.writes *= fade;
            heat.missed *= fade;
        }
        self.landmark = now;
        1.0
    }

    fn half_lives(&self, now: Duration) -> f64 {
        now.saturating_sub(self.landmark).as_secs_f64() / self.half_life.as_secs_f64()
    }

    /// Takes the coldest file out where the sketch is full; what it may have had.
    fn make_room(&mut self) -> Option<f64> {
        if self.entries.len() < self.limit {
            return None;
        }
        let coldest = self
            .entries
            .iter()
            .min_by(|(_, a), (_, b)| a.at_most().total_cmp(&b.at_most()));
        let (path, heat) = coldest.map(|(path, heat)| (path.clone(), *heat))?;
        self.entries.remove(&path);
        Some(heat.at_most())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(name: u32) -> FilePath {
        FilePath::parse(&format!("dir/{name}")).unwrap()
    }

    proptest! {
        #[test]
        fn files_with_more_than_their_share_are_always_in_it_and_its_memory_is_bounded(
            limit in 1_usize..12,
            accesses in prop::collection::vec((0_u32..40, 0_u64..90, any::<bool>()), 1..400),
        ) {
            let half_life = Duration::from_secs(7);
            let mut sketch = HotSketch::new(limit, half_life, Duration::ZERO);
            let mut now = Duration::ZERO;
            let mut noted: Vec<(u32, Duration)> = Vec::new();
            for (name, pause, write) in accesses {
                // Most pauses are none; now and then the scale begins anew.
                now += Duration::from_secs(if pause > 80 { (pause - 80) * 30 } else { 0 });
                let access = if write { Access::Write } else { Access::Read };
                sketch.note(&path(name), access, 1, now);
                noted.push((name, now));
                prop_assert!(sketch.len() <= limit, "{} of {limit}", sketch.len());
            }
            let mut truth: BTreeMap<FilePath, f64> = BTreeMap::new();
            for (name, at) in &noted {
                let age = now.saturating_sub(*at).as_secs_f64() / half_life.as_secs_f64();
                *truth.entry(path(*name)).or_default() += (-age).exp2();
            }
            let all: f64 = truth.values().sum();
            let found = sketch.hottest(now);
            for file in &found {
                let counted = file.reads + file.writes;
                let real = truth[&file.path];
                prop_assert!(counted <= real + 1e-6, "{file:?} had {real}");
                prop_assert!(counted + file.missed >= real - 1e-6, "{file:?} had {real}");
            }
            for (path, count) in &truth {
                let share = all / limit as f64;
                let is_in = sketch.entries.contains_key(path);
                prop_assert!(is_in || *count <= share + 1e-6, "{path} has {count} of {all}");
            }
        }
    }

    #[test]
    fn a_hundred_thousand_names_take_no_more_memory_than_the_limit_and_hide_no_hot_file() {
        let mut sketch = HotSketch::new(8, HALF_LIFE, Duration::ZERO);
        let hot = FilePath::parse("hot").unwrap();
        let mut evicted = 0_u32;
        for name in 0..100_000 {
            sketch.note(&hot, Access::Read, 7, Duration::ZERO);
            evicted += u32::from(sketch.note(&path(name), Access::Read, 1, Duration::ZERO));
            assert!(sketch.len() <= 8, "{} files after {name}", sketch.len());
        }
        assert_eq!(sketch.len(), 8);
        assert_eq!(evicted, 100_000 - 7);
        let hottest = sketch.hottest(Duration::ZERO);
        assert_eq!((hottest[0].path.as_str(), hottest[0].size), ("hot", 7));
        assert!(hottest[0].reads > 99_999.0, "{:?}", hottest[0]);
        assert_eq!(sketch.totals(), (200_000, 0));
    }

    #[test]
    fn accesses_count_half_after_the_half_life_and_are_forgotten_in_the_end() {
        let mut sketch = HotSketch::new(4, Duration::from_mins(2), Duration::from_secs(1000));
        for _ in 0..8 {
            sketch.note(&path(1), Access::Write, 5, Duration::from_secs(1000));
        }
        sketch.note(&path(2), Access::Read, 5, Duration::from_secs(1120));
        let found = sketch.hottest(Duration::from_secs(1120));
        let writes: Vec<_> = found.iter().map(|file| (file.writes, file.reads)).collect();
        assert_eq!(writes, [(4.0, 0.0), (0.0, 1.0)]);
        let later = Duration::from_hours(2);
        assert!(sketch.hottest(later).is_empty());
        // The scale begins anew, and what is old does not come back with it.
        sketch.note(&path(3), Access::Read, 5, later);
        let found = sketch.hottest(later);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path, path(3));
    }
}
