//! Rates, frames and keys; then the whole against a door that falls silent.

mod drawing;
mod live;
mod rates;

use dfs_protocol::datanode::Liveness;
use dfs_protocol::status::DatanodeStatus;
use dfs_protocol::traffic::{DatanodeTraffic, HotFile, HotFiles};
use dfs_protocol::{DatanodeId, FilePath, InstanceId};
use jiff::Timestamp;

use super::model::{Picture, Sample};
use crate::testing::datanode;
use crate::verbs::status::tests::healthy;

/// Seconds after a moment that all these tests have.
fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_777_777_777 + seconds).unwrap()
}

fn id(number: u128) -> DatanodeId {
    DatanodeId::from_u128(number << 96)
}

fn told(instance: u64, at_ms: u64, [read, written, copied]: [u64; 3]) -> DatanodeTraffic {
    DatanodeTraffic {
        instance: InstanceId(instance),
        at_ms,
        read_bytes: read,
        written_bytes: written,
        copied_bytes: copied,
        write_mode: None,
    }
}

fn node(number: u128, traffic: Option<DatanodeTraffic>) -> DatanodeStatus {
    DatanodeStatus {
        traffic,
        ..datanode(number << 96, "10.0.0.1:6001")
    }
}

fn hot(at_ms: u64, reads: u64, writes: u64) -> HotFiles {
    let file = |path: &str, reads: f64| HotFile {
        path: FilePath::parse(path).unwrap(),
        size: 5 << 20,
        reads,
        writes: 0.5,
        missed: 0.0,
    };
    HotFiles {
        fence: dfs_protocol::Fence::default(),
        at_ms,
        reads,
        writes,
        half_life_seconds: 120,
        limit: 64,
        files: vec![file("films/hot one.mkv", 12.0), file("b", 1.5)],
    }
}

fn sample(seconds: i64, nodes: Vec<DatanodeStatus>) -> Sample {
    Sample {
        taken: at(seconds),
        status: healthy(),
        nodes,
        hot: None,
    }
}

/// Two looks two seconds apart: one datanode serves, one started anew, one is dead.
fn busy() -> Picture {
    let first = vec![
        node(1, Some(told(7, 1000, [0, 0, 0]))),
        node(2, Some(told(8, 9000, [1 << 40, 1 << 40, 0]))),
    ];
    let mut second = vec![
        node(1, Some(told(7, 3000, [4 << 20, 2 << 20, 0]))),
        node(2, Some(told(9, 500, [10, 10, 0]))),
        node(3, None),
    ];
    second[0].stats.used_bytes = 3 << 30;
    second[0].stats.free_bytes = 7 << 30;
    second[0].stats.chunks = 1234;
    second[2].liveness = Liveness::Dead;
    let mut first = sample(0, first);
    first.hot = Some(hot(1000, 10, 2));
    let mut second = sample(2, second);
    second.hot = Some(hot(3000, 20, 3));
    Picture::first(first).then(second)
}
