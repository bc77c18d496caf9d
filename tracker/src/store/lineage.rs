//! Which journal records are history. Datanodes hold copies from several trackers: some of them were
//! deposed while they still wrote, some records reached only a few.

use std::collections::BTreeMap;

use dfs_protocol::checksum::crc32c;
use dfs_protocol::datanode::JournalRecord;
use dfs_protocol::{Epoch, Fence, Incarnation};

/// The records of one history, and what was left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lineage {
    /// Ascending, each sequence at most once; gaps are possible.
    pub records: Vec<JournalRecord>,
    /// Records of deposed trackers that were left out.
    pub superseded: u64,
    /// Trackers that shared an epoch with the chosen one, and were left out with all they wrote.
    pub rivals: Vec<Fence>,
    /// Sequences of which copies of one fence disagreed: the copy that most hold was taken.
    pub disputed: Vec<u64>,
}

/// One record and how many copies of it there are.
struct Counted {
    record: JournalRecord,
    copies: u32,
}

type Incarnations = BTreeMap<u64, BTreeMap<u64, Counted>>;

/// Picks the history out of all copies, in any order, repeated at will.
///
/// A later epoch overrules the earlier ones from the first place on where it has another record:
/// what they wrote there had not been confirmed, or the later tracker, which started from the stored
/// catalog, would have had it. What it has in common with them it was only sending to datanodes that
/// lacked it, and perhaps died before it had sent all. Two trackers of one epoch cannot both have had
/// a majority: the one with more copies is taken, the longer one among equals.
pub fn choose(copies: impl IntoIterator<Item = JournalRecord>) -> Lineage {
    let mut lineage = Lineage::default();
    let mut history: BTreeMap<u64, JournalRecord> = BTreeMap::new();
    for (epoch, incarnations) in count(copies, &mut lineage.disputed) {
        let later = choose_incarnation(epoch, incarnations, &mut lineage.rivals);
        if let Some(from) = overruled_from(&history, &later) {
            let overruled = history.split_off(&from);
            lineage.superseded += overruled.len() as u64;
        }
        let later = later.into_iter();
        history.extend(later.map(|(sequence, counted)| (sequence, counted.record)));
    }
    lineage.records = history.into_values().collect();
    lineage
}

/// Where a later epoch's history leaves the earlier one: behind the last record that it has of those before
/// the first other one, because nobody knows whose the records between are.
fn overruled_from(
    history: &BTreeMap<u64, JournalRecord>,
    later: &BTreeMap<u64, Counted>,
) -> Option<u64> {
    let mut common = None;
    for (sequence, counted) in later {
        match history.get(sequence) {
            Some(earlier) if earlier.payload != counted.record.payload => {
                return Some(common.map_or(*sequence, |common: u64| common + 1));
            }
            Some(_) | None => common = Some(*sequence),
        }
    }
    None
}

fn count(
    copies: impl IntoIterator<Item = JournalRecord>,
    disputed: &mut Vec<u64>,
) -> BTreeMap<u64, Incarnations> {
    // By fence and sequence, the variants by checksum.
    let mut variants: BTreeMap<(u64, u64, u64), BTreeMap<u32, Counted>> = BTreeMap::new();
    for record in copies {
        let key = (
            record.fence.epoch.0,
            record.fence.incarnation.0,
            record.sequence,
        );
        variants
            .entry(key)
            .or_default()
            .entry(crc32c(&record.payload))
            .or_insert(Counted { record, copies: 0 })
            .copies += 1;
    }
    let mut epochs: BTreeMap<u64, Incarnations> = BTreeMap::new();
    for ((epoch, incarnation, sequence), variants) in variants {
        if variants.len() > 1 {
            disputed.push(sequence);
        }
        let held_by_most = variants.into_values().max_by_key(|counted| counted.copies);
        if let Some(counted) = held_by_most {
            epochs
                .entry(epoch)
                .or_default()
                .entry(incarnation)
                .or_default()
                .insert(sequence, counted);
        }
    }
    epochs
}

fn choose_incarnation(
    epoch: u64,
    mut incarnations: Incarnations,
    rivals: &mut Vec<Fence>,
) -> BTreeMap<u64, Counted> {
    let weight = |records: &BTreeMap<u64, Counted>| {
        let copies = records.values().map(|counted| counted.copies).max();
        (copies, records.keys().next_back().copied())
    };
    let best = incarnations
        .iter()
        .max_by_key(|(_, records)| weight(records))
        .map(|(incarnation, _)| *incarnation);
    let chosen = best.and_then(|best| incarnations.remove(&best));
    rivals.extend(incarnations.keys().map(|incarnation| Fence {
        epoch: Epoch(epoch),
        incarnation: Incarnation(*incarnation),
    }));
    chosen.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: u64, incarnation: u64, sequence: u64) -> JournalRecord {
        JournalRecord {
            fence: Fence {
                epoch: Epoch(epoch),
                incarnation: Incarnation(incarnation),
            },
            sequence,
            payload: vec![
                u8::try_from(epoch).unwrap(),
                u8::try_from(sequence).unwrap(),
            ],
        }
    }

    fn chosen(copies: Vec<JournalRecord>) -> Vec<(u64, u64)> {
        choose(copies)
            .records
            .iter()
            .map(|record| (record.fence.epoch.0, record.sequence))
            .collect()
    }

    #[test]
    fn i20_a_later_epoch_overrules_an_earlier_one_from_its_first_sequence_on() {
        let copies = vec![
            record(1, 7, 3),
            record(2, 8, 3),
            record(1, 7, 2),
            record(1, 7, 1),
            record(1, 7, 4),
            record(2, 8, 3),
            record(1, 7, 5),
            record(2, 8, 4),
        ];
        let lineage = choose(copies.clone());
        assert_eq!(lineage.superseded, 3);
        assert_eq!(chosen(copies), [(1, 1), (1, 2), (2, 3), (2, 4)]);
    }

    /// What a tracker sends again of what was before it.
    fn again(epoch: u64, of: &JournalRecord) -> JournalRecord {
        JournalRecord {
            fence: record(epoch, 7, 1).fence,
            ..of.clone()
        }
    }

    #[test]
    fn i02_a_tracker_that_died_while_it_sent_old_records_again_takes_nothing_away() {
        let before: Vec<_> = (1..=9).map(|sequence| record(1, 7, sequence)).collect();
        let mut copies = before.clone();
        copies.extend(before[2..5].iter().map(|one| again(2, one)));
        let lineage = choose(copies.clone());
        let sequences: Vec<_> = lineage.records.iter().map(|one| one.sequence).collect();
        assert_eq!(sequences, (1..=9).collect::<Vec<_>>());
        assert_eq!(lineage.superseded, 0);
        // Others had all of it, and went on with the new tracker.
        copies.extend([record(2, 7, 10), record(2, 7, 11)]);
        let lineage = choose(copies);
        let sequences: Vec<_> = lineage.records.iter().map(|one| one.sequence).collect();
        assert_eq!(sequences, (1..=11).collect::<Vec<_>>());
    }

    #[test]
    fn i20_what_was_written_beside_a_later_tracker_goes_from_the_first_other_record_on() {
        let before: Vec<_> = (1..=9).map(|sequence| record(1, 7, sequence)).collect();
        let mut copies = before.clone();
        copies.extend(before[2..5].iter().map(|one| again(2, one)));
        copies.push(record(2, 7, 6));
        assert_eq!(
            chosen(copies),
            [(1, 1), (1, 2), (2, 3), (2, 4), (2, 5), (2, 6)]
        );
        // Between what both have and the first other record nobody knows whose records are: a gap is told.
        let mut copies = before.clone();
        copies.extend(before[2..5].iter().map(|one| again(2, one)));
        copies.push(record(2, 7, 8));
        assert_eq!(
            chosen(copies),
            [(1, 1), (1, 2), (2, 3), (2, 4), (2, 5), (2, 8)]
        );
    }

    #[test]
    fn i20_of_two_trackers_in_one_epoch_the_one_that_more_datanodes_confirmed_is_taken() {
        let copies = vec![
            record(1, 7, 1),
            record(1, 7, 1),
            record(1, 9, 1),
            record(1, 9, 2),
        ];
        let lineage = choose(copies);
        assert_eq!(lineage.records, [record(1, 7, 1)]);
        assert_eq!(lineage.rivals, [record(1, 9, 1).fence]);
    }

    #[test]
    fn copies_that_disagree_are_reported_and_the_common_one_is_taken() {
        let mut odd = record(1, 7, 1);
        odd.payload = vec![99];
        let lineage = choose(vec![record(1, 7, 1), odd, record(1, 7, 1)]);
        assert_eq!(lineage.records, [record(1, 7, 1)]);
        assert_eq!(lineage.disputed, [1]);
    }
}
