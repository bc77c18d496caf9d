//! The number of series is bounded by the datanodes that are known now, and by nothing that clients do.

use std::time::Duration;

use dfs_protocol::chunk::{ChunkKind, SealedChunk};
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::Capacity;
use dfs_protocol::{ChunkId, ChunkVersion, DatanodeId};
use jiff::Timestamp;
use prometheus::Registry;

use super::{EventMetrics, TrackerMetrics};
use crate::model::datanodes::{DatanodeTable, LivenessPolicy};
use crate::model::op::DatanodeRecord;
use crate::model::replicas::{Expected, ReplicaMap};
use crate::store::CatalogMetrics;

/// Series of the tracker's own metrics without any datanode, as docs/metrics.md states them.
const BASE: usize = 400;
/// Series of each datanode that is known.
const EACH: usize = 3;
const DATANODES: u128 = 500;

fn record(admin: AdminState) -> DatanodeRecord {
    DatanodeRecord {
        admin,
        zone: None,
        host: None,
        address: "127.0.0.1:6001".to_owned(),
        registered: Timestamp::UNIX_EPOCH,
        claim: None,
    }
}

fn series(registry: &Registry) -> usize {
    let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
    let text = text.unwrap();
    text.lines().filter(|line| !line.starts_with('#')).count()
}

#[test]
fn series_do_not_grow_with_chunks_nor_with_datanodes_that_were_replaced() {
    let registry = Registry::new();
    let metrics = TrackerMetrics::register(&registry).unwrap();
    let _catalog = CatalogMetrics::register(&registry).unwrap();
    let _events = EventMetrics::register(&registry).unwrap();
    let empty = series(&registry);
    assert!(empty <= BASE, "{empty} series without any datanode");

    let mut table = DatanodeTable::new(LivenessPolicy::default(), 10_000);
    let mut replicas = ReplicaMap::new();
    let publish = |table: &DatanodeTable, replicas: &ReplicaMap, now: Duration| {
        metrics.volumes.set(table, &Capacity::default());
        metrics.shortage.set(replicas.counters());
        metrics.shortage.set_oldest(replicas, now);
        series(&registry)
    };
    let put = |table: &mut DatanodeTable, id: u128, admin| {
        let id = DatanodeId::from_u128(id);
        table.put(id, record(admin), Duration::ZERO).unwrap();
    };
    for id in 0..DATANODES {
        put(&mut table, id, AdminState::InService);
    }
    let full = publish(&table, &replicas, Duration::ZERO);
    assert_eq!(full, empty + EACH * DATANODES as usize);

    replicas.watch_shortages();
    for id in 0..10_000u128 {
        let chunk = SealedChunk {
            id: ChunkId::from_u128(id),
            version: ChunkVersion::FIRST,
            length: 1,
            crc32c: 0,
        };
        replicas.load_chunk(Expected {
            chunk,
            factor: 3,
            kind: ChunkKind::Data,
        });
    }
    // Every datanode is replaced in its turn.
    for id in 0..DATANODES {
        put(&mut table, id, AdminState::Tombstoned);
        put(&mut table, DATANODES + id, AdminState::InService);
        let now = Duration::from_secs(u64::try_from(id).unwrap());
        replicas.sync(&table, now);
        let shown = publish(&table, &replicas, now);
        assert_eq!(shown, full, "after {id} were replaced");
    }
}
