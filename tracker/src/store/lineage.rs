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
/// A later epoch overrules the earlier ones from its first sequence on: what they wrote there had
/// not been confirmed, or the later tracker, which started from the stored catalog, would have had
/// it. Two trackers of one epoch cannot both have had a majority: the one with more copies is
/// taken, the longer one among equals.
pub fn choose(copies: impl IntoIterator<Item = JournalRecord>) -> Lineage {
    let mut lineage = Lineage::default();
    let mut epochs = count(copies, &mut lineage.disputed);
    let mut end = u64::MAX;
    let mut newest_first = Vec::new();
    while let Some((epoch, incarnations)) = epochs.pop_last() {
        let chosen = choose_incarnation(epoch, incarnations, &mut lineage.rivals);
        let first = chosen.keys().next().copied().unwrap_or(end);
        for (sequence, counted) in chosen.into_iter().rev() {
            if sequence < end {
                newest_first.push(counted.record);
            } else {
                lineage.superseded += 1;
            }
        }
        end = end.min(first);
    }
    newest_first.reverse();
    lineage.records = newest_first;
    lineage
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
