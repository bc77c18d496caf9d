//! Two looks make rates.

use proptest::prelude::*;

use super::*;
use crate::verbs::top::model::{Rates, rates_between};

#[test]
fn a_rate_is_what_one_run_of_a_datanode_moved_by_its_own_clock() {
    let picture = busy();
    let rates = Rates {
        read: f64::from(2 << 20),
        written: f64::from(1 << 20),
        copied: 0.0,
    };
    assert_eq!(picture.rates.get(&id(1)), Some(&rates));
    assert_eq!(picture.throughput, Some(rates));
    let files = picture.file_rates.unwrap();
    assert!((files.reads - 5.0).abs() < 1e-9, "{files:?}");
    assert!((files.writes - 0.5).abs() < 1e-9, "{files:?}");
}

#[test]
fn a_datanode_that_started_anew_has_no_rate_until_its_second_telling() {
    let picture = busy();
    assert_eq!(picture.rates.get(&id(2)), None);
    let again = vec![node(2, Some(told(9, 1500, [1034, 10, 0])))];
    let picture = picture.then(sample(4, again));
    let read = picture.rates[&id(2)].read;
    assert!((read - 1024.0).abs() < 1e-9, "{read}");
    // Counters that went on from zero beyond the old ones are of another run all the same.
    let anew = told(10, 2000, [5000, 5000, 5000]);
    assert_eq!(
        rates_between(&told(9, 1500, [1034, 10, 0]), &anew),
        None,
        "no rate over a restart"
    );
}

#[test]
fn without_a_heartbeat_between_two_looks_the_last_rate_stands_and_a_silent_datanode_has_none() {
    let picture = busy();
    let mut same = sample(4, picture.sample.nodes.clone());
    same.nodes[1].traffic = None;
    let later = picture.then(same.clone());
    assert_eq!(later.rates.get(&id(1)), picture.rates.get(&id(1)));
    same.nodes[0].liveness = Liveness::Suspect;
    let silent = later.then(same);
    assert!(silent.rates.is_empty(), "{:?}", silent.rates);
    assert_eq!(silent.throughput, None, "unknown is not zero");
}

#[test]
fn bytes_that_datanodes_copy_from_each_other_are_not_read_by_clients() {
    let looks = |at_ms, [read, copied]: [u64; 2]| {
        vec![
            node(1, Some(told(1, at_ms, [read, 0, 0]))),
            node(2, Some(told(2, at_ms, [0, 0, copied]))),
        ]
    };
    let first = Picture::first(sample(0, looks(0, [0, 0])));
    let sum = first.then(sample(1, looks(1000, [1500, 1000])));
    let sum = sum.throughput.unwrap();
    assert!((sum.read - 500.0).abs() < 1e-9, "{sum:?}");
    assert!((sum.copied - 1000.0).abs() < 1e-9, "{sum:?}");
    // The two are counted at different moments.
    let sum = first.then(sample(1, looks(1000, [900, 1000])));
    assert!(sum.throughput.unwrap().read.abs() < 1e-9);
}

#[test]
fn another_tracker_counts_anew() {
    let picture = busy();
    let mut next = sample(4, Vec::new());
    let mut counted = hot(5000, 1000, 1000);
    counted.fence.epoch.0 += 1;
    next.hot = Some(counted);
    assert_eq!(picture.then(next).file_rates, None);
}

#[test]
fn repair_is_as_far_as_it_came_since_the_most_that_was_seen() {
    let left = |seconds, bytes| {
        let mut sample = sample(seconds, Vec::new());
        sample.status.repair.bytes_remaining = bytes;
        sample
    };
    let picture = Picture::first(left(0, 100)).then(left(1, 400));
    let picture = picture.then(left(2, 100));
    assert_eq!(picture.repair_done(), (300, 400));
    // The next repair begins at its own beginning.
    let picture = picture.then(left(3, 0)).then(left(4, 50));
    assert_eq!(picture.repair_done(), (0, 50));
}

proptest! {
    #[test]
    fn whatever_two_tellings_say_no_rate_is_negative_or_endless(
        instances in (0_u64..3, 0_u64..3),
        times in any::<(u64, u64)>(),
        then in any::<[u64; 3]>(),
        now in any::<[u64; 3]>(),
    ) {
        let found = rates_between(
            &told(instances.0, times.0, then),
            &told(instances.1, times.1, now),
        );
        if let Some(Rates { read, written, copied }) = found {
            prop_assert_eq!(instances.0, instances.1);
            for rate in [read, written, copied] {
                prop_assert!(rate >= 0.0 && rate.is_finite(), "{rate}");
            }
        }
    }
}
