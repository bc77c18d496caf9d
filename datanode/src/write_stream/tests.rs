use std::sync::Arc;
use std::time::Duration;

use dfs_client::write_stream::{ChunkEvent, ChunkWriter};
use dfs_protocol::chunk::{BLOCK_SIZE, BLOCK_SIZE_U64};
use dfs_protocol::datanode::CopyRequest;
use dfs_protocol::frame::{HopFailure, HopFault, OpenChunk, SealedReport};
use dfs_protocol::{ChunkId, ClusterId, DatanodeId, Epoch, Fence, Incarnation};

use crate::config::DatanodeConfig;
use crate::testing::nodes::{
    FENCE, FakeTracker, Node, blocks, bytes, client, get, open_on, put, resume, sealed, streams,
};
use crate::testing::{ENOSPC, Faults, eventually};

async fn nodes<const N: usize>() -> (FakeTracker, [Node; N]) {
    let tracker = FakeTracker::start().await;
    let mut nodes = Vec::new();
    for _ in 0..N {
        nodes.push(Node::admitted(&tracker).await);
    }
    (tracker, nodes.try_into().unwrap())
}

async fn open(chain: &[&Node], open: &OpenChunk) -> Result<ChunkWriter, HopFailure> {
    streams().open(&chain[0].address, open).await
}

/// Sends blocks until the stream no longer takes them.
async fn send(writer: &mut ChunkWriter, data: &[u8], from: usize) -> bool {
    for (offset, crc, part) in blocks(data, from) {
        if writer.sender.block(offset, crc, part).await.is_err() {
            return false;
        }
    }
    true
}

async fn progress_to(writer: &mut ChunkWriter, at_least: u64) -> u64 {
    loop {
        match writer.receiver.next().await.unwrap() {
            ChunkEvent::Progress(offset) if offset >= at_least => return offset,
            ChunkEvent::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn outcome(writer: &mut ChunkWriter) -> Result<SealedReport, HopFailure> {
    loop {
        match writer.receiver.next().await? {
            ChunkEvent::Progress(_) => {}
            ChunkEvent::Sealed(report) => return Ok(report),
            ChunkEvent::Failed(failed) => return Err(failed),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_written_over_a_chain_of_three_is_whole_on_each_and_streams_are_used_again() {
    let (_tracker, [a, b, c]) = nodes().await;
    let chain = [&a, &b, &c];
    let writers = streams();
    for (chunk, length) in [(1u128, 0usize), (2, 1), (3, 70_000), (4, 5 << 20)] {
        let data = bytes(length);
        let open = open_on(&chain, chunk, 1);
        let mut writer = writers.open(&a.address, &open).await.unwrap();
        assert!(send(&mut writer, &data, 0).await);
        let chunk = sealed(chunk, 1, &data);
        writer.sender.seal(&chunk).await.unwrap();
        let report = outcome(&mut writer).await.unwrap();
        assert_eq!(report.replicas, chain.map(|n| n.address.id));
        assert_eq!((report.chunk, report.failed.len()), (chunk, 0));
        writers.put_back(writer.sender, writer.receiver);
        for node in chain {
            assert_eq!(get(node, &chunk).await.unwrap(), data);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i31_a_write_stream_without_work_is_ended_and_the_next_chunk_is_written_over_another() {
    let tracker = FakeTracker::start().await;
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let soon = |config: &mut DatanodeConfig| config.stream_idle = Duration::from_secs(2);
    let a = Node::on(&tracker, dir, soon).await;
    a.wait_admitted(&tracker).await;
    let data = bytes(70_000);
    let writers = streams();
    for id in [1, 2] {
        let open = open_on(&[&a], id, 1);
        let mut writer = writers.open(&a.address, &open).await.unwrap();
        assert!(send(&mut writer, &data, 0).await);
        let chunk = sealed(id, 1, &data);
        writer.sender.seal(&chunk).await.unwrap();
        outcome(&mut writer).await.unwrap();
        // It ends although nobody closes it here.
        let ended = tokio::time::timeout(Duration::from_mins(1), writer.receiver.next()).await;
        let ended = ended.expect("the stream is still open").unwrap_err();
        assert_eq!(ended.cause, HopFault::Unreachable, "{ended:?}");
        // Kept all the same, as by a writer that has not heard.
        writers.put_back(writer.sender, writer.receiver);
        assert_eq!(get(&a, &chunk).await.unwrap(), data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_says_what_every_hop_has() {
    let (_tracker, [a, b]) = nodes().await;
    let data = bytes(6 << 20);
    let mut writer = open(&[&a, &b], &open_on(&[&a, &b], 1, 1)).await.unwrap();
    assert!(send(&mut writer, &data, 0).await);
    let confirmed = progress_to(&mut writer, 5 << 20).await;
    assert_eq!(confirmed % BLOCK_SIZE_U64, 0);
    for node in [&a, &b] {
        let state = client()
            .chunk_state(&node.address, ChunkId::from_u128(1))
            .await;
        let open = state.unwrap().open.unwrap();
        assert!(open.length >= confirmed, "{open:?} {confirmed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_02_a_hop_that_breaks_mid_body_is_named_and_the_survivors_go_on() {
    let (_tracker, [a, b, c]) = nodes().await;
    let data = bytes(8 << 20);
    let chain = [&a, &b, &c];
    let mut writer = open(&chain, &open_on(&chain, 1, 1)).await.unwrap();
    assert!(send(&mut writer, &data[..4 << 20], 0).await);
    let confirmed = progress_to(&mut writer, 3 << 20).await;
    let broken = b.address.id;
    b.kill().await;
    send(&mut writer, &data[..6 << 20], 4 << 20).await;
    let failed = outcome(&mut writer).await.unwrap_err();
    assert_eq!(
        (failed.datanode, failed.cause),
        (broken, HopFault::Unreachable)
    );

    let survivors = [&a, &c];
    let again = resume(open_on(&survivors, 1, 2), 1, confirmed);
    let mut writer = open(&survivors, &again).await.unwrap();
    let from = usize::try_from(confirmed).unwrap();
    assert!(send(&mut writer, &data, from).await);
    let chunk = sealed(1, 2, &data);
    writer.sender.seal(&chunk).await.unwrap();
    let report = outcome(&mut writer).await.unwrap();
    assert_eq!(report.replicas, survivors.map(|n| n.address.id));
    for node in survivors {
        assert_eq!(get(node, &chunk).await.unwrap(), data);
        let state = client().chunk_state(&node.address, chunk.id).await.unwrap();
        assert_eq!((state.sealed.unwrap().chunk, state.open), (chunk, None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_comes_back_takes_over_from_its_own_stale_stream() {
    let (_tracker, [a]) = nodes().await;
    let data = bytes(4 << 20);
    let mut stale = open(&[&a], &open_on(&[&a], 1, 1)).await.unwrap();
    assert!(send(&mut stale, &data[..2 << 20], 0).await);
    progress_to(&mut stale, 2 << 20).await;
    // The first stream stays connected, as one does behind a cut network.
    let again = resume(open_on(&[&a], 1, 2), 1, 1 << 20);
    let mut writer = open(&[&a], &again).await.unwrap();
    assert!(send(&mut writer, &data, 1 << 20).await);
    let chunk = sealed(1, 2, &data);
    writer.sender.seal(&chunk).await.unwrap();
    outcome(&mut writer).await.unwrap();
    assert_eq!(get(&a, &chunk).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_15_a_copy_takes_the_place_of_a_stream_that_stays_open_behind_a_silent_hop() {
    let (_tracker, [a, b]) = nodes().await;
    let data = bytes(2 << 20);
    let chunk = put(&[&a], 1, &data).await;
    // The hop before it was stopped: nothing comes any more, and nothing breaks.
    let mut stale = open(&[&b], &open_on(&[&b], 1, 1)).await.unwrap();
    assert!(send(&mut stale, &data[..1 << 20], 0).await);
    progress_to(&mut stale, 1 << 20).await;
    let request = CopyRequest {
        fence: FENCE,
        chunk,
        sources: vec![a.address.clone()],
    };
    let copied = client().copy(&b.address, &request).await.unwrap();
    assert_eq!(copied.replica.chunk, chunk);
    assert_eq!(get(&b, &chunk).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_writer_is_gone_is_removed_when_its_lease_is_over() {
    let tracker = FakeTracker::start().await;
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let a = Node::on(&tracker, dir, |c| {
        c.resume_lease = std::time::Duration::ZERO;
    })
    .await;
    a.wait_admitted(&tracker).await;
    let mut writer = open(&[&a], &open_on(&[&a], 1, 1)).await.unwrap();
    assert!(send(&mut writer, &bytes(2 << 20), 0).await);
    progress_to(&mut writer, 1 << 20).await;
    drop(writer);
    let staging = a.root().join("staging");
    eventually("the staged file is gone", async || {
        std::fs::read_dir(&staging).unwrap().count() == 0
    })
    .await;
    let failed = open(&[&a], &resume(open_on(&[&a], 1, 2), 1, 0)).await;
    assert_eq!(failed.unwrap_err().cause, HopFault::CannotResume);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_chunk_leaves_nothing_anywhere() {
    let (_tracker, [a, b]) = nodes().await;
    let mut writer = open(&[&a, &b], &open_on(&[&a, &b], 1, 1)).await.unwrap();
    assert!(send(&mut writer, &bytes(1 << 20), 0).await);
    writer.sender.abort().await.unwrap();
    for node in [&a, &b] {
        let staging = node.root().join("staging");
        eventually("the staged file is gone", async || {
            std::fs::read_dir(&staging).unwrap().count() == 0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_a_full_hop_is_named_as_such_and_the_others_are_not() {
    let (_tracker, [a, b]) = nodes().await;
    b.disk.set(Faults {
        write: Some(ENOSPC),
        ..Faults::default()
    });
    let mut writer = open(&[&a, &b], &open_on(&[&a, &b], 1, 1)).await.unwrap();
    send(&mut writer, &bytes(4 << 20), 0).await;
    let failed = outcome(&mut writer).await.unwrap_err();
    assert_eq!(
        (failed.datanode, failed.cause),
        (b.address.id, HopFault::NoSpace)
    );
    let staging = b.root().join("staging");
    assert_eq!(std::fs::read_dir(&staging).unwrap().count(), 0);
    let large = OpenChunk {
        expected: 1 << 50,
        ..open_on(&[&b], 2, 1)
    };
    let full = open(&[&b], &large).await;
    assert_eq!(full.unwrap_err().cause, HopFault::NoSpace);
}

#[tokio::test(flavor = "multi_thread")]
async fn i14_a_hop_whose_fsync_fails_is_not_counted_and_its_process_stops() {
    let (_tracker, [a, b]) = nodes().await;
    let data = bytes(100_000);
    b.disk.set(Faults {
        sync: true,
        ..Faults::default()
    });
    let mut writer = open(&[&a, &b], &open_on(&[&a, &b], 1, 1)).await.unwrap();
    assert!(send(&mut writer, &data, 0).await);
    let chunk = sealed(1, 1, &data);
    writer.sender.seal(&chunk).await.unwrap();
    let report = outcome(&mut writer).await.unwrap();
    assert_eq!(report.replicas, [a.address.id]);
    assert_eq!(report.failed[0].datanode, b.address.id);
    let limit = std::time::Duration::from_secs(90);
    let ended = tokio::time::timeout(limit, b.ended).await.unwrap().unwrap();
    assert!(matches!(ended, Err(crate::DatanodeError::FailStop(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_a_whole_that_differs_from_the_writers_is_never_sealed() {
    let (_tracker, [a]) = nodes().await;
    let mut writer = open(&[&a], &open_on(&[&a], 1, 1)).await.unwrap();
    assert!(send(&mut writer, &bytes(1000), 0).await);
    let mut other = sealed(1, 1, &bytes(1000));
    other.crc32c ^= 1;
    writer.sender.seal(&other).await.unwrap();
    let failed = outcome(&mut writer).await.unwrap_err();
    assert_eq!(failed.cause, HopFault::Corrupt);
    let state = client().chunk_state(&a.address, other.id).await.unwrap();
    assert_eq!((state.sealed, state.open), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_25_a_block_damaged_on_the_wire_fails_the_chunk() {
    let (_tracker, [a]) = nodes().await;
    let mut writer = open(&[&a], &open_on(&[&a], 1, 1)).await.unwrap();
    writer.sender.block(0, 12345, b"damaged").await.unwrap();
    assert_eq!(
        outcome(&mut writer).await.unwrap_err().cause,
        HopFault::Corrupt
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn i08_i20_i21_streams_of_deposed_trackers_and_for_others_are_refused() {
    let (_tracker, [a]) = nodes().await;
    let base = open_on(&[&a], 1, 1);
    let deposed = Fence {
        epoch: Epoch(FENCE.epoch.0),
        incarnation: Incarnation(FENCE.incarnation.0 + 1),
    };
    let cases = [
        (
            OpenChunk {
                fence: deposed,
                ..base.clone()
            },
            HopFault::Fenced,
        ),
        (
            OpenChunk {
                fence: Fence::default(),
                ..base.clone()
            },
            HopFault::Fenced,
        ),
        (
            OpenChunk {
                cluster: ClusterId::from_u128(9),
                ..base.clone()
            },
            HopFault::WrongDatanode,
        ),
        (
            OpenChunk {
                datanode: DatanodeId::from_u128(9),
                ..base.clone()
            },
            HopFault::WrongDatanode,
        ),
    ];
    for (wrong, cause) in cases {
        assert_eq!(open(&[&a], &wrong).await.unwrap_err().cause, cause);
    }
    let mut elsewhere = a.address.clone();
    elsewhere.id = DatanodeId::from_u128(9);
    let refused = streams().open(&elsewhere, &base).await;
    assert_eq!(refused.unwrap_err().cause, HopFault::WrongDatanode);
    assert!(open(&[&a], &base).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_chunk_is_not_written_again_nor_resumed() {
    let (_tracker, [a]) = nodes().await;
    let data = bytes(3 * BLOCK_SIZE);
    put(&[&a], 1, &data).await;
    let again = open(&[&a], &open_on(&[&a], 1, 1)).await.unwrap_err();
    assert_eq!(again.cause, HopFault::AlreadySealed);
    let resumed = resume(open_on(&[&a], 1, 2), 1, BLOCK_SIZE_U64);
    let resumed = open(&[&a], &resumed).await.unwrap_err();
    assert_eq!(resumed.cause, HopFault::AlreadySealed);
}
