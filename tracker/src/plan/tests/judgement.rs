//! Liveness, partition, safe mode and removal verdicts.

use std::time::Duration;

use dfs_protocol::datanode::{AdminState, DatanodeStats, Liveness};
use dfs_protocol::status::Verdict;
use dfs_protocol::traffic::DatanodeTraffic;
use dfs_protocol::{Fence, InstanceId, LeaseId};
use jiff::Timestamp;

use super::cluster::{Cluster, SECOND, expected, id, node, record, sealed};
use crate::model::datanodes::{Heard, Message, Picture, TooManyDatanodes};
use crate::plan::loss::nothing_only_there;
use crate::plan::removal::{RemovalView, ok_to_stop, safe_to_remove};
use crate::plan::safe_mode::SafeMode;
use crate::plan::{Hold, decommission};

fn stop(cluster: &Cluster, nodes: &[u128]) -> Verdict {
    let nodes: Vec<_> = nodes.iter().map(|n| node(*n)).collect();
    with_view(cluster, |view| ok_to_stop(view, &nodes, cluster.now))
}

fn remove(cluster: &Cluster, n: u128) -> Verdict {
    with_view(cluster, |view| safe_to_remove(view, node(n), cluster.now))
}

fn with_view<T>(cluster: &Cluster, ask: impl Fn(&RemovalView<'_>) -> T) -> T {
    let hold = cluster.hold();
    ask(&RemovalView {
        datanodes: &cluster.table,
        replicas: &cluster.map,
        leases: &cluster.leases,
        tasks: &cluster.tasks,
        hold: hold.as_ref(),
        policy: &cluster.policy,
    })
}

fn message(instance: u64, sequence: u64) -> Message {
    Message {
        instance: InstanceId(instance),
        sequence,
        address: "y:2".into(),
        fence: Fence::default(),
        stats: DatanodeStats::default(),
    }
}

#[test]
fn fault_21_silence_makes_suspect_then_dead_and_a_word_makes_live_again() {
    let mut cluster = Cluster::new(1, 0, 1, 1);
    cluster.down(1);
    let heard = cluster.now;
    for (seconds, expected) in [
        (0, Liveness::Live),
        (2, Liveness::Live),
        (3, Liveness::Suspect),
        (9, Liveness::Suspect),
        (10, Liveness::Dead),
    ] {
        let now = heard + Duration::from_secs(seconds);
        assert_eq!(
            cluster.table.liveness_of(node(1), now),
            expected,
            "{seconds} s"
        );
    }
    cluster.now += 60 * SECOND;
    cluster.up(1);
    cluster.beat();
    assert_eq!(
        cluster.table.liveness_of(node(1), cluster.now),
        Liveness::Live
    );
    assert_eq!(
        cluster.table.liveness_of(node(9), cluster.now),
        Liveness::Dead
    );
}

#[test]
fn fault_24_late_and_repeated_messages_and_other_runs_are_not_applied() {
    let mut cluster = Cluster::new(1, 0, 1, 2);
    let (now, wall) = (cluster.now, Timestamp::UNIX_EPOCH);
    let mut heard = |m| cluster.table.heard(node(1), m, now, wall);
    assert_eq!(heard(message(1, 5)), Heard::Fresh);
    assert_eq!(heard(message(1, 5)), Heard::Late);
    assert_eq!(heard(message(1, 4)), Heard::Late);
    assert_eq!(heard(message(2, 9)), Heard::OtherInstance);
    let table = &mut cluster.table;
    assert_eq!(
        table.register(node(1), message(2, 0), "1".into(), now, wall),
        Heard::Fresh
    );
    assert_eq!(table.get(node(1)).unwrap().picture, Picture::Outdated);
    assert_eq!(
        table.heard(node(1), message(1, 99), now, wall),
        Heard::OtherInstance
    );
    assert_eq!(table.heard(node(1), message(2, 1), now, wall), Heard::Fresh);
    assert_eq!(
        table.heard(node(8), message(2, 1), now, wall),
        Heard::Unknown
    );
}

#[test]
fn traffic_is_the_newest_that_the_registered_run_of_a_datanode_told() {
    let mut cluster = Cluster::new(1, 0, 1, 2);
    cluster.beat();
    let told = |instance, at_ms| DatanodeTraffic {
        instance: InstanceId(instance),
        at_ms,
        read_bytes: at_ms * 10,
        written_bytes: 0,
        copied_bytes: 0,
        write_mode: None,
    };
    for (traffic, stands) in [
        (told(1, 5), told(1, 5)),
        (told(1, 9), told(1, 9)),
        // It was overtaken on its way.
        (told(1, 7), told(1, 9)),
        // Of a run that is over, or that did not register yet.
        (told(2, 50), told(1, 9)),
    ] {
        cluster.table.set_traffic(node(1), traffic);
        let known = cluster.table.get(node(1)).unwrap().traffic;
        assert_eq!(known, Some(stands));
    }
    cluster.table.set_traffic(node(8), told(1, 1));
    assert_eq!(cluster.table.get(node(8)), None);
}

#[test]
fn i31_the_table_takes_a_bounded_number_of_datanodes() {
    let policy = crate::model::datanodes::LivenessPolicy::default();
    let mut table = crate::model::datanodes::DatanodeTable::new(policy, 2);
    let put = |table: &mut crate::model::datanodes::DatanodeTable, n| {
        table.put(node(n), record(n, AdminState::Pending, None, None), SECOND)
    };
    put(&mut table, 1).unwrap();
    put(&mut table, 2).unwrap();
    assert_eq!(put(&mut table, 3), Err(TooManyDatanodes { limit: 2 }));
    put(&mut table, 2).unwrap();
}

#[test]
fn fault_22_a_partition_is_more_than_half_and_more_than_r_less_one_within_a_minute() {
    for (nodes, factor, lost, held) in [
        (5, 3, 3, true),
        (5, 3, 2, false),
        (3, 3, 2, false),
        (10, 3, 5, false),
        (10, 3, 6, true),
        (5, 5, 4, false),
    ] {
        let mut cluster = Cluster::new(nodes, 0, factor, 3);
        for n in 1..=lost {
            cluster.down(n);
            cluster.beats(2);
        }
        cluster.beats(5);
        assert_eq!(
            cluster.hold().is_some(),
            held,
            "{lost} of {nodes}, factor {factor}"
        );
        for n in 1..=lost {
            cluster.up(n);
        }
        cluster.beat();
        assert_eq!(cluster.hold(), None, "they returned");
    }
}

#[test]
fn fault_22_newcomers_that_were_not_heard_yet_did_not_fall_silent() {
    let mut cluster = Cluster::new(0, 0, 3, 3);
    for n in 1..=3 {
        cluster.add(n, AdminState::InService, None, None);
        cluster.table.note_newcomer(node(n));
    }
    assert_eq!(
        cluster.hold(),
        None,
        "they are let in, and speak in a moment"
    );
    cluster.beat();
    for n in 1..=3 {
        cluster.down(n);
    }
    cluster.beats(5);
    assert!(cluster.hold().is_some(), "they were heard, and fell silent");
    // Whom a tracker knew when it started may be cut off from it.
    let mut cluster = Cluster::new(0, 0, 3, 3);
    for n in 1..=3 {
        cluster.add(n, AdminState::InService, None, None);
    }
    assert!(cluster.hold().is_some());
    // Newcomers make no partition of the others look small.
    let mut cluster = Cluster::new(3, 0, 3, 3);
    for n in 4..=6 {
        cluster.add(n, AdminState::InService, None, None);
        cluster.table.note_newcomer(node(n));
        cluster.down(n);
    }
    for n in 1..=3 {
        cluster.down(n);
    }
    cluster.beats(5);
    assert!(cluster.hold().is_some(), "all that were there are silent");
}

#[test]
fn writes_go_on_while_a_newcomer_beside_a_lost_datanode_was_not_heard_yet() {
    let mut cluster = Cluster::new(3, 0, 3, 3);
    cluster.down(3);
    cluster.beats(20);
    cluster.add(4, AdminState::InService, None, None);
    cluster.table.note_newcomer(node(4));
    assert_eq!(cluster.table.writes_refused(cluster.now), None);
    cluster.beat();
    cluster.down(4);
    cluster.beats(20);
    let refused = cluster.table.writes_refused(cluster.now).unwrap();
    assert_eq!(
        (refused.heard, refused.in_service),
        (2, 4),
        "it was heard, and fell silent"
    );
}

#[test]
fn fault_22_losses_over_a_long_time_are_losses() {
    let mut cluster = Cluster::new(5, 0, 3, 4);
    for n in 1..=4 {
        cluster.down(n);
        cluster.beats(61);
        assert_eq!(cluster.hold(), None, "{n} lost");
    }
}

#[test]
fn writes_need_a_majority_of_the_in_service_datanodes() {
    let mut cluster = Cluster::new(4, 0, 3, 5);
    cluster.add(9, AdminState::Pending, None, None);
    cluster.down(1);
    cluster.beats(20);
    assert_eq!(cluster.table.writes_refused(cluster.now), None);
    cluster.down(2);
    cluster.beats(9);
    assert_eq!(
        cluster.table.writes_refused(cluster.now),
        None,
        "within the window"
    );
    cluster.beat();
    let refused = cluster.table.writes_refused(cluster.now).unwrap();
    assert_eq!((refused.heard, refused.in_service), (2, 4));
    assert!(
        Cluster::new(0, 0, 3, 6)
            .table
            .writes_refused(SECOND)
            .is_some()
    );
}

#[test]
fn safe_mode_ends_with_the_last_report_or_ten_missed_heartbeats_and_stays_over() {
    let mut cluster = Cluster::new(1, 0, 1, 7);
    cluster.map.load_chunk(expected(sealed(1, 1), 1));
    cluster.map.load_chunk(expected(sealed(2, 1), 1));
    let mut mode = SafeMode::new();
    cluster.add(2, AdminState::InService, None, None);
    cluster.put(2, sealed(1, 1));
    cluster.down(2);
    cluster.beat();
    let waits = mode
        .waits_for(&cluster.table, &cluster.map, cluster.now)
        .unwrap();
    assert!(
        waits.starts_with("2 chunks") && waits.contains("1 datanodes"),
        "{waits}"
    );
    assert!(!mode.tick(&cluster.table, &cluster.map, cluster.now));
    let mut by_report = mode;
    cluster.up(2);
    cluster.beat();
    assert!(by_report.tick(&cluster.table, &cluster.map, cluster.now));
    assert!(by_report.is_over());

    let mut cluster = Cluster::new(1, 0, 1, 8);
    cluster.map.load_chunk(expected(sealed(1, 1), 1));
    cluster.add(2, AdminState::InService, None, None);
    cluster.down(2);
    cluster.beats(9);
    assert!(!mode.tick(&cluster.table, &cluster.map, cluster.now));
    cluster.beat();
    assert!(mode.tick(&cluster.table, &cluster.map, cluster.now));
    cluster.map.load_chunk(expected(sealed(3, 1), 1));
    assert_eq!(
        mode.waits_for(&cluster.table, &cluster.map, cluster.now),
        None
    );
}

#[test]
fn i29_datanodes_may_stop_while_every_chunk_keeps_enough() {
    let mut cluster = Cluster::new(5, 0, 3, 9);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3]);
    cluster.store(sealed(2, 1), 1, &[4]);
    cluster.beat();
    assert!(stop(&cluster, &[1]).safe);
    assert!(stop(&cluster, &[1, 5]).safe);
    let two = stop(&cluster, &[1, 2]);
    assert_eq!(
        (two.safe, two.chunks, two.chunk_count),
        (false, vec![id(1)], 1)
    );
    assert!(!stop(&cluster, &[4]).safe, "a single copy");
    assert!(!stop(&cluster, &[77]).safe, "unknown means no");
    cluster.down(2);
    cluster.beats(4);
    assert!(!stop(&cluster, &[1]).safe, "one is silent already");
}

#[test]
fn i25_a_datanode_may_go_when_every_chunk_has_its_factor_without_it() {
    let mut cluster = Cluster::new(4, 0, 3, 10);
    for n in 1..=150 {
        cluster.store(sealed(n, 1), 3, &[1, 2, 3]);
    }
    cluster.beat();
    assert!(remove(&cluster, 4).safe);
    let verdict = remove(&cluster, 1);
    assert_eq!(
        (verdict.safe, verdict.chunks.len(), verdict.chunk_count),
        (false, 100, 150)
    );
    cluster.set_admin(1, AdminState::Decommissioning);
    let progress = with_view(&cluster, |view| decommission::plan(view, cluster.now));
    assert_eq!(
        (progress[0].chunks_remaining, progress[0].done()),
        (150, false)
    );
    cluster.settle();
    assert!(remove(&cluster, 1).safe);
    let progress = with_view(&cluster, |view| decommission::plan(view, cluster.now));
    assert!(progress.len() == 1 && progress[0].done());
    cluster.set_admin(1, AdminState::Decommissioned);
    assert!(with_view(&cluster, |view| decommission::plan(view, cluster.now)).is_empty());
}

#[test]
fn i25_unknown_means_no() {
    let mut cluster = Cluster::new(4, 0, 3, 11);
    cluster.store(sealed(1, 1), 3, &[1, 2]);
    cluster.beat();
    assert!(remove(&cluster, 4).safe, "its set is known, and empty");
    cluster.table.set_picture(node(4), false);
    assert!(!remove(&cluster, 4).safe, "it may hold the third replica");
    let hold = Hold::SafeMode("reports".into());
    let view = RemovalView {
        datanodes: &cluster.table,
        replicas: &cluster.map,
        leases: &cluster.leases,
        tasks: &cluster.tasks,
        hold: Some(&hold),
        policy: &cluster.policy,
    };
    assert!(!ok_to_stop(&view, &[node(3)], cluster.now).safe);
    assert!(!safe_to_remove(&view, node(3), cluster.now).safe);
}

#[test]
fn a_promised_replica_is_no_proof_for_a_removal_and_enough_for_a_stop() {
    let mut cluster = Cluster::new(4, 0, 2, 12);
    cluster.map.commit_chunk(
        expected(sealed(1, 1), 2),
        &[node(1), node(2), node(3)],
        cluster.now,
    );
    cluster.put(3, sealed(1, 1));
    cluster.beat();
    assert!(!remove(&cluster, 3).safe);
    // A stop takes nothing away: what was acknowledged is on the others, reported or not.
    assert!(stop(&cluster, &[3]).safe && !stop(&cluster, &[1, 2, 3]).safe);
    cluster.put(1, sealed(1, 1));
    cluster.put(2, sealed(1, 1));
    cluster.beat();
    assert!(remove(&cluster, 3).safe);
}

#[test]
fn i25_a_replica_whose_deletion_is_ordered_is_no_proof() {
    let mut cluster = Cluster::new(4, 0, 3, 14);
    cluster.store(sealed(1, 1), 3, &[1, 2, 3, 4]);
    cluster.beat();
    assert!((1..=4).all(|n| remove(&cluster, n).safe));
    let victim = cluster.start_repair().deletes[0].datanode;
    for n in 1..=4 {
        assert_eq!(remove(&cluster, n).safe, node(n) == victim, "{n}");
    }
}

#[test]
fn chunks_under_a_write_lease_are_in_the_way() {
    let mut cluster = Cluster::new(4, 0, 3, 13);
    let lease = LeaseId::from_u128(1);
    let placed = vec![(id(1), vec![node(1), node(2), node(3)])];
    cluster
        .leases
        .extend(lease, placed, 3, cluster.now)
        .unwrap();
    assert!(!remove(&cluster, 1).safe && remove(&cluster, 4).safe);
    assert!(stop(&cluster, &[1]).safe && !stop(&cluster, &[1, 2]).safe);
    // Learned by a renewal after a restart: it may be written anywhere.
    cluster.leases.renew(lease, &[id(2)], cluster.now).unwrap();
    assert!(!remove(&cluster, 4).safe && !stop(&cluster, &[4]).safe);
    cluster.beats(60);
    assert!(remove(&cluster, 4).safe, "the lease ran out");
}

/// Under steady writes there always are some.
#[test]
fn i25_placements_ahead_of_need_do_not_keep_a_leaving_datanode_and_commits_under_way_do() {
    let mut cluster = Cluster::new(4, 0, 3, 14);
    let lease = LeaseId::from_u128(1);
    let placed = vec![(id(1), vec![node(1), node(2), node(3)])];
    cluster
        .leases
        .extend(lease, placed, 3, cluster.now)
        .unwrap();
    assert!(
        !remove(&cluster, 1).safe,
        "in service it takes what was placed"
    );
    cluster.set_admin(1, AdminState::Decommissioning);
    assert!(remove(&cluster, 1).safe, "no commit counts it from here on");
    cluster.leases.name(&[id(1)]);
    assert!(!remove(&cluster, 1).safe, "this commit may have counted it");
    cluster.leases.renew(lease, &[id(1)], cluster.now).unwrap();
    assert!(!remove(&cluster, 1).safe, "a renewal changes nothing");
    cluster.leases.committed([id(1)]);
    assert!(
        remove(&cluster, 1).safe,
        "now the chunk itself is looked at"
    );
}

#[test]
fn i01_a_volume_is_lost_without_asking_only_when_every_chunk_is_known_elsewhere() {
    let mut cluster = Cluster::new(4, 0, 2, 1);
    let (both, single, unreported) = (sealed(1, 1), sealed(2, 1), sealed(3, 1));
    cluster.store(both, 2, &[1, 2]);
    cluster.store(single, 1, &[1]);
    cluster.beat();
    let ask = |cluster: &Cluster, n: u128| nothing_only_there(&cluster.map, node(n));
    assert!(ask(&cluster, 2).safe && ask(&cluster, 3).safe);
    let verdict = ask(&cluster, 1);
    assert_eq!((verdict.safe, verdict.chunks), (false, vec![single.id]));
    // One that is silent may come back: it still counts; a tombstoned one does not.
    cluster.down(2);
    for _ in 0..20 {
        cluster.beat();
    }
    assert_eq!(ask(&cluster, 1).chunk_count, 1);
    cluster.set_admin(2, AdminState::Tombstoned);
    cluster.beat();
    assert_eq!(ask(&cluster, 1).chunk_count, 2);
    // What nobody reported may be on any of them.
    cluster.store(unreported, 2, &[]);
    assert_eq!(ask(&cluster, 3).chunks, [unreported.id]);
}
