//! The trash over tables and jumping clocks.

use std::time::Duration;

use dfs_protocol::TrashId;
use jiff::{SignedDuration, Timestamp};

use crate::plan::TrashLimits;
use crate::plan::trash::{TrashTable, Usage, plan};

const HOUR: Duration = Duration::from_hours(1);
const EMPTY: Usage = Usage {
    capacity_bytes: 1000,
    used_bytes: 0,
};
const FULL: Usage = Usage {
    capacity_bytes: 1000,
    used_bytes: 950,
};

fn id(n: u128) -> TrashId {
    TrashId::from_u128(n)
}

fn hours(from: Timestamp, hours: i64) -> Timestamp {
    from.checked_add(SignedDuration::from_hours(hours)).unwrap()
}

#[test]
fn i30_clock_jumps_never_purge_early_within_one_life() {
    let limits = TrashLimits::default();
    let mut trash = TrashTable::new();
    // Wall time is not even asked for.
    trash.insert(id(1), 10, HOUR);
    assert!(plan(&trash, EMPTY, &limits, Duration::from_secs(25 * 3600 - 1)).is_empty());
    assert_eq!(plan(&trash, EMPTY, &limits, 25 * HOUR).expired, [id(1)]);
}

#[test]
fn i30_an_hour_either_way_across_a_restart_never_purges_early() {
    let limits = TrashLimits::default();
    let deleted = Timestamp::from_second(1_700_000_000).unwrap();
    // Deleted with a clock that was an hour late, restarted with one that is an hour early: 22
    // true hours look like 24.
    let mut trash = TrashTable::new();
    trash.load(id(1), deleted, 10, &limits, HOUR, hours(deleted, 24));
    assert_eq!(trash.age(id(1), HOUR), Some(22 * HOUR));
    assert!(plan(&trash, EMPTY, &limits, 2 * HOUR).is_empty());
    assert_eq!(plan(&trash, EMPTY, &limits, 3 * HOUR).expired, [id(1)]);
}

#[test]
fn i30_a_mad_clock_at_start_still_leaves_an_hour_and_one_from_the_past_gives_no_age() {
    let limits = TrashLimits::default();
    let deleted = Timestamp::from_second(1_700_000_000).unwrap();
    let mut trash = TrashTable::new();
    trash.load(
        id(1),
        deleted,
        10,
        &limits,
        Duration::ZERO,
        hours(deleted, 100_000),
    );
    trash.load(
        id(2),
        deleted,
        10,
        &limits,
        Duration::ZERO,
        hours(deleted, -100_000),
    );
    assert!(plan(&trash, EMPTY, &limits, Duration::from_secs(3599)).is_empty());
    assert_eq!(plan(&trash, EMPTY, &limits, HOUR).expired, [id(1)]);
    assert_eq!(trash.age(id(2), HOUR), Some(HOUR));
}

#[test]
fn full_volumes_purge_the_oldest_first_and_only_as_many_as_needed() {
    let limits = TrashLimits::default();
    let mut trash = TrashTable::new();
    for n in 1..=5u32 {
        trash.insert(id(u128::from(n)), 60, HOUR * n);
    }
    let found = plan(&trash, FULL, &limits, 6 * HOUR);
    assert_eq!(found.early, [id(1), id(2)], "100 bytes above 85 percent");
    for id in found.early {
        trash.remove(id);
    }
    trash.purged_early(6 * HOUR);
    assert!(
        plan(&trash, FULL, &limits, 6 * HOUR).is_empty(),
        "until it shows on the volumes"
    );
    assert_eq!(trash.bytes(), 180);
    let later = 6 * HOUR + limits.pressure_pause;
    assert_eq!(plan(&trash, FULL, &limits, later).early, [id(3), id(4)]);
}

#[test]
fn one_plan_purges_a_bounded_number() {
    let limits = TrashLimits {
        purge_per_tick: 3,
        ..TrashLimits::default()
    };
    let mut trash = TrashTable::new();
    for n in 0..10 {
        trash.insert(id(n), 1, Duration::ZERO);
    }
    assert_eq!(plan(&trash, FULL, &limits, 30 * HOUR).expired.len(), 3);
}
