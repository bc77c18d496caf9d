use std::sync::{Arc, Mutex};
use std::time::Duration;

use dfs_client::write_stream::{WholeBlock, WriteStreams};
use dfs_protocol::checksum::crc32c;
use dfs_protocol::chunk::{BLOCK_SIZE, DatanodeAddress};
use dfs_protocol::frame::{FrameKind, HopFailure, HopFault, OpenChunk, SealedReport};
use dfs_protocol::routes::TAKES_WHOLE_HEADER;
use dfs_protocol::{ChunkId, ClusterId, DatanodeId, Fence, Incarnation};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::store::PackLimits;
use crate::testing::nodes::{
    FENCE, FakeTracker, Node, bytes, client, get, open_on, put, resume, sealed, streams,
};
use crate::testing::{Faults, Held, eventually};

const EIO: i32 = 5;
const LIMIT: Duration = Duration::from_secs(90);

async fn nodes<const N: usize>(packs: PackLimits) -> (FakeTracker, [Node; N]) {
    let tracker = FakeTracker::start().await;
    let mut nodes = Vec::new();
    for _ in 0..N {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let node = Node::on(&tracker, dir, |config| config.packs = packs).await;
        node.wait_admitted(&tracker).await;
        nodes.push(node);
    }
    (tracker, nodes.try_into().unwrap())
}

fn whole(data: &[u8]) -> WholeBlock {
    WholeBlock {
        crc32c: crc32c(data),
        data: data.to_vec().into(),
    }
}

async fn put_whole(
    to: &DatanodeAddress,
    open: &OpenChunk,
    data: &[u8],
) -> Result<SealedReport, HopFailure> {
    streams().put(to, open, &whole(data), LIMIT).await
}

fn putting(
    to: &DatanodeAddress,
    open: OpenChunk,
    data: &[u8],
) -> JoinHandle<Result<SealedReport, HopFailure>> {
    let (to, data) = (to.clone(), data.to_vec());
    tokio::spawn(async move { put_whole(&to, &open, &data).await })
}

async fn is_sealed(node: &Node, chunk: u128) -> bool {
    let state = client()
        .chunk_state(&node.address, ChunkId::from_u128(chunk))
        .await;
    state.unwrap().sealed.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_sent_whole_is_on_each_hop_in_both_layouts_and_streams_are_used_again() {
    for packs in [PackLimits::default(), PackLimits::NONE] {
        let (_tracker, [a, b, c]) = nodes(packs).await;
        let chain = [&a, &b, &c];
        let writers = streams();
        for (chunk, length) in [(1u128, 1usize), (2, 4096), (3, BLOCK_SIZE)] {
            let data = bytes(length);
            let open = open_on(&chain, chunk, 1);
            let written = writers.put(&a.address, &open, &whole(&data), LIMIT).await;
            let chunk = sealed(chunk, 1, &data);
            let report = written.unwrap();
            assert_eq!(report.replicas, chain.map(|n| n.address.id));
            assert_eq!((report.chunk, report.failed.len()), (chunk, 0));
            for node in chain {
                assert_eq!(get(node, &chunk).await.unwrap(), data);
            }
        }
        // The same streams carry a chunk that comes in steps.
        put(&chain, 4, &bytes(3 * BLOCK_SIZE)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i02_a_chunk_sent_whole_is_not_answered_before_the_last_hop_has_it_durable() {
    let (_tracker, [a, b, c]) = nodes(PackLimits::default()).await;
    c.disk.hold_at(Held::Syncs("packs"));
    let put = putting(&a.address, open_on(&[&a, &b, &c], 1, 1), &bytes(4096));
    eventually("the last hop writes", async || c.disk.began_write("packs")).await;
    eventually("the others have it", async || {
        is_sealed(&a, 1).await && is_sealed(&b, 1).await
    })
    .await;
    // Long enough for an answer that waits for nobody.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let early = put.is_finished();
    // First: a thread that waits for the disk would keep a test from failing.
    c.disk.release();
    assert!(!early);
    let report = put.await.unwrap().unwrap();
    assert_eq!(report.replicas, [&a, &b, &c].map(|n| n.address.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_02_a_hop_that_is_gone_before_a_whole_chunk_comes_is_named_and_the_first_stands() {
    let (_tracker, [a, b, c]) = nodes(PackLimits::default()).await;
    let open = open_on(&[&a, &b, &c], 1, 1);
    let lost = b.address.id;
    b.kill().await;
    let report = put_whole(&a.address, &open, &bytes(4096)).await.unwrap();
    assert_eq!(report.replicas, [a.address.id]);
    let failed = &report.failed[0];
    assert_eq!(
        (failed.datanode, failed.cause),
        (lost, HopFault::Unreachable)
    );
    assert!(!is_sealed(&c, 1).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_02_a_hop_that_breaks_while_it_makes_a_whole_chunk_durable_is_named() {
    let (_tracker, [a, b]) = nodes(PackLimits::default()).await;
    b.disk.hold_at(Held::Syncs("packs"));
    let put = putting(&a.address, open_on(&[&a, &b], 1, 1), &bytes(4096));
    eventually("the hop writes", async || b.disk.began_write("packs")).await;
    let (lost, disk) = (b.address.id, b.disk.clone());
    b.ended.abort();
    let report = put.await.unwrap().unwrap();
    disk.release();
    assert_eq!(report.replicas, [a.address.id]);
    let failed = &report.failed[0];
    assert_eq!(
        (failed.datanode, failed.cause),
        (lost, HopFault::Unreachable)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_02_a_first_hop_that_is_gone_fails_a_whole_chunk_and_the_survivors_take_the_next_version()
 {
    let (_tracker, [a, b, c]) = nodes(PackLimits::default()).await;
    let writers = streams();
    let data = bytes(4096);
    let open = open_on(&[&a, &b, &c], 1, 1);
    // The stream to it idles when it goes.
    let first = writers.put(&a.address, &open, &whole(&data), LIMIT).await;
    first.unwrap();
    let (gone, open) = (a.address.clone(), open_on(&[&a, &b, &c], 2, 1));
    a.kill().await;
    let failed = writers.put(&gone, &open, &whole(&data), LIMIT).await;
    let failed = failed.unwrap_err();
    assert_eq!(
        (failed.datanode, failed.cause),
        (gone.id, HopFault::Unreachable)
    );
    let again = put_whole(&b.address, &open_on(&[&b, &c], 2, 2), &data).await;
    assert_eq!(again.unwrap().replicas, [b.address.id, c.address.id]);
    assert_eq!(get(&c, &sealed(2, 2, &data)).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn i14_a_hop_whose_fsync_fails_does_not_count_for_a_whole_chunk_and_its_process_stops() {
    let (_tracker, [a, b]) = nodes(PackLimits::default()).await;
    b.disk.set(Faults {
        sync: true,
        ..Faults::default()
    });
    let put = put_whole(&a.address, &open_on(&[&a, &b], 1, 1), &bytes(4096)).await;
    let report = put.unwrap();
    assert_eq!(report.replicas, [a.address.id]);
    assert_eq!(report.failed[0].datanode, b.address.id);
    let ended = tokio::time::timeout(LIMIT, b.ended).await.unwrap().unwrap();
    assert!(matches!(ended, Err(crate::DatanodeError::FailStop(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_12_a_write_error_fails_every_whole_chunk_of_its_batch_and_no_other() {
    let (_tracker, [a]) = nodes(PackLimits::default()).await;
    a.disk.hold_at(Held::Syncs("packs"));
    let first = putting(&a.address, open_on(&[&a], 1, 1), &bytes(4096));
    eventually("the first is being written", async || {
        a.disk.began_write("packs")
    })
    .await;
    let next = [2u128, 3, 4].map(|n| putting(&a.address, open_on(&[&a], n, 1), &bytes(100)));
    eventually("the others wait", async || {
        a.metric("dfs_datanode_write_streams") == 4
    })
    .await;
    a.disk.set(Faults {
        write: Some(EIO),
        ..Faults::default()
    });
    a.disk.release();
    assert_eq!(first.await.unwrap().unwrap().replicas, [a.address.id]);
    for put in next {
        assert_eq!(put.await.unwrap().unwrap_err().cause, HopFault::Disk);
    }
    a.disk.set(Faults::default());
    assert!(is_sealed(&a, 1).await);
    for chunk in [2, 3, 4] {
        assert!(!is_sealed(&a, chunk).await);
        let again = put_whole(&a.address, &open_on(&[&a], chunk, 2), &bytes(100)).await;
        again.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_chunks_that_wait_for_a_place_take_none_from_chunks_that_come_in_steps() {
    let (_tracker, [a]) = nodes(PackLimits::default()).await;
    a.disk.hold_at(Held::Syncs("packs"));
    // As many as have places, and some who wait for one all the time.
    let small = (1..=140u128).map(|chunk| {
        let (address, open) = (a.address.clone(), open_on(&[&a], chunk, 1));
        tokio::spawn(async move {
            loop {
                match put_whole(&address, &open, &bytes(100)).await {
                    Err(failed) if failed.cause == HopFault::Busy => {}
                    other => return other,
                }
            }
        })
    });
    let small: Vec<_> = small.collect();
    eventually("some wait for a place", async || {
        a.metric("dfs_datanode_waiting_writes") > 0
    })
    .await;
    let opened = streams().open(&a.address, &open_on(&[&a], 1000, 1)).await;
    let waiting = a.metric("dfs_datanode_waiting_writes");
    // First: threads that wait for the disk would keep a test from failing.
    a.disk.release();
    assert!(opened.is_ok(), "{:?}", opened.err());
    assert!(waiting > 0, "nobody waited any more");
    for put in small {
        put.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i08_i20_i21_whole_chunks_of_deposed_trackers_and_for_others_are_refused_and_not_sent_on() {
    let (_tracker, [a, b]) = nodes(PackLimits::default()).await;
    let base = open_on(&[&a, &b], 1, 1);
    let later = Fence {
        incarnation: Incarnation(FENCE.incarnation.0 + 1),
        ..FENCE
    };
    let fenced = |fence| OpenChunk {
        fence,
        ..base.clone()
    };
    let cases = [
        (fenced(later), HopFault::Fenced),
        (fenced(Fence::default()), HopFault::Fenced),
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
        (resume(open_on(&[&a, &b], 1, 2), 1, 0), HopFault::Protocol),
    ];
    for (wrong, cause) in cases {
        let put = put_whole(&a.address, &wrong, &bytes(100)).await;
        assert_eq!(put.unwrap_err().cause, cause);
        assert!(!is_sealed(&a, 1).await && !is_sealed(&b, 1).await);
    }
    put_whole(&a.address, &base, &bytes(100)).await.unwrap();
    let again = put_whole(&a.address, &base, &bytes(100)).await;
    assert_eq!(again.unwrap_err().cause, HopFault::AlreadySealed);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_25_a_whole_chunk_damaged_on_the_wire_is_nowhere() {
    let (_tracker, [a, b]) = nodes(PackLimits::default()).await;
    let damaged = WholeBlock {
        crc32c: 12345,
        data: bytes(100).into(),
    };
    let open = open_on(&[&a, &b], 1, 1);
    let put = streams().put(&a.address, &open, &damaged, LIMIT).await;
    assert_eq!(put.unwrap_err().cause, HopFault::Corrupt);
    assert!(!is_sealed(&a, 1).await && !is_sealed(&b, 1).await);
}

/// A datanode as an older one looks: its upgrade answer does not say that it takes whole chunks. Notes
/// the kind of the first frame of each connection.
async fn older(node: &Node) -> (DatanodeAddress, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = DatanodeAddress {
        id: node.address.id,
        address: listener.local_addr().unwrap().to_string(),
    };
    let kinds: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (behind, seen) = (node.address.address.clone(), Arc::clone(&kinds));
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(&behind).await.unwrap();
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            let seen = Arc::clone(&seen);
            tokio::spawn(carry(far_read, near_write, |head, _| {
                let says = head.replace(TAKES_WHOLE_HEADER, "x-dfs-knows-less!");
                assert_eq!(says.len(), head.len());
                says
            }));
            tokio::spawn(carry(near_read, far_write, move |head, first| {
                seen.lock().unwrap().extend(first);
                head
            }));
        }
    });
    (address, kinds)
}

/// Copies bytes; the head of the first message is changed, and the byte behind it is shown.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    change: impl FnOnce(String, Option<u8>) -> String,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match from.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let request = head.starts_with(b"GET");
    let head = String::from_utf8(head).unwrap();
    if !request {
        let head = change(head, None);
        let _gone = to.write_all(head.as_bytes()).await;
        let _gone = tokio::io::copy(&mut from, &mut to).await;
        return;
    }
    let _gone = to.write_all(head.as_bytes()).await;
    if let Ok(first) = from.read_u8().await {
        let _same = change(head, Some(first));
        let _gone = to.write_u8(first).await;
        let _gone = tokio::io::copy(&mut from, &mut to).await;
    }
}

async fn older_takes(chain: [&DatanodeAddress; 2], open: OpenChunk, writers: &WriteStreams) {
    let data = bytes(4096);
    let put = writers.put(chain[0], &open, &whole(&data), LIMIT).await;
    assert_eq!(put.unwrap().replicas, chain.map(|at| at.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn i29_an_older_datanode_gets_a_small_chunk_in_steps_as_first_hop_and_behind_a_newer_one() {
    let (_tracker, [a, b]) = nodes(PackLimits::default()).await;
    let writers = streams();
    let (old_a, kinds) = older(&a).await;
    for chunk in [1u128, 2] {
        let open = open_on(&[&a, &b], chunk, 1);
        older_takes([&old_a, &b.address], open, &writers).await;
    }
    assert_eq!(*kinds.lock().unwrap(), [FrameKind::Open as u8]);
    let (old_b, kinds) = older(&b).await;
    let open = OpenChunk {
        downstream: vec![old_b.clone()],
        ..open_on(&[&a], 3, 1)
    };
    older_takes([&a.address, &old_b], open, &writers).await;
    assert_eq!(*kinds.lock().unwrap(), [FrameKind::Open as u8]);
    assert!(is_sealed(&a, 3).await && is_sealed(&b, 3).await);
}
