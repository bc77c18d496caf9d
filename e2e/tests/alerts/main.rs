//! Each alert is made to fire by what it is there for, in a store of real processes that a real Prometheus scrapes,
//! and to resolve once that is over. Only run when `DFS_ALERTS_PROMETHEUS` names a Prometheus.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

mod fleet;
mod prometheus;

use std::collections::BTreeSet;

use dfs_e2e::http::Http;
use dfs_e2e::net::LinkFault;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::fleet::{Fleet, Member};
use crate::prometheus::{Prometheus, rules};

/// Alerts that this test does not make fire, each with the reason.
const NOT_HERE: &[(&str, &str)] = &[
    (
        "DfsOperatorReconcileErrors",
        "there is no operator without Kubernetes",
    ),
    (
        "DfsClusterNotReconciled",
        "there is no operator without Kubernetes",
    ),
    (
        "DfsOperatorDown",
        "there is no operator without Kubernetes: it would fire all the time",
    ),
    ("DfsRepairBacklogGrowing", "compares with an hour ago"),
    ("DfsDecommissionStalled", "compares with an hour ago"),
    (
        "DfsCapacityForecast",
        "needs half of a volume really taken, at a pace that is steady",
    ),
    (
        "DfsDatanodeFull",
        "the tracker gives no data to a datanode that said it is full: it takes a volume that fills between two heartbeats",
    ),
];

/// Reads and writes all the time, whatever the answers are.
fn load(door: Http, pace: std::time::Duration) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            // What they are answered is for the gateway to count.
            let _deleted = door.delete("/files/never-there").await;
            let _read = door.get("/files/never-there").await;
            tokio::time::sleep(pace).await;
        }
    })
}

/// Uploads all the time, larger than what is packed, whatever the answers are.
fn uploads(door: Http) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let _answer = door.put("/files/again", vec![5; 70_000]).await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
}

async fn budgets_burn(fleet: &Fleet, seen: &mut Prometheus) {
    const BURN: &[&str] = &[
        "DfsReadErrorBudgetBurnFast",
        "DfsReadErrorBudgetBurnSlow",
        "DfsWriteErrorBudgetBurnFast",
        "DfsWriteErrorBudgetBurnSlow",
    ];
    let pace = std::time::Duration::from_millis(50);
    let few = load(fleet.gateway_door(), pace);
    fleet.to_tracker.set(LinkFault::cut());
    seen.fires("the gateway is cut from the tracker", BURN)
        .await;
    fleet.to_tracker.heal();
    few.abort();
    // Enough that succeed to make those that failed few: sooner than the windows pass.
    let many: Vec<_> = (0..16)
        .map(|_| load(fleet.gateway_door(), std::time::Duration::ZERO))
        .collect();
    seen.resolve("the link is back, and many requests succeed", BURN)
        .await;
    many.iter().for_each(JoinHandle::abort);
}

async fn gateway_goes(fleet: &mut Fleet, seen: &mut Prometheus) {
    let down = ["DfsGatewayDown", "DfsMetricsAbsent"];
    fleet.gateway.process.kill_9().unwrap();
    seen.fires("the gateway is killed", &down).await;
    fleet.gateway.process.restart().unwrap();
    seen.resolve("it is started", &down).await;
    for _ in 0..2 {
        fleet.gateway.process.kill_9().unwrap();
        seen.fires("the gateway is killed once more", &["DfsGatewayDown"])
            .await;
        fleet.gateway.process.restart().unwrap();
        seen.resolve("it is started once more", &["DfsGatewayDown"])
            .await;
    }
    seen.fires("the gateway was started three times", &["DfsCrashLooping"])
        .await;
}

async fn datanodes_go(fleet: &mut Fleet, seen: &mut Prometheus) {
    let uploads = uploads(fleet.store().door);
    fleet.datanodes[2].process.pause().unwrap();
    let one = [
        "DfsDatanodeDown",
        "DfsChunksUnderReplicated",
        "DfsRepairStalled",
    ];
    seen.fires("one of three datanodes is frozen", &one).await;
    fleet.datanodes[1].process.kill_9().unwrap();
    let two = ["DfsChunksAtRisk", "DfsWritesRefused"];
    seen.fires("another one is killed", &two).await;
    fleet.datanodes[0].process.kill_9().unwrap();
    let three = ["DfsChunksMissing", "DfsRepairHeld"];
    seen.fires("the last one is killed", &three).await;
    fleet.datanodes[2].process.resume().unwrap();
    fleet.datanodes[1].process.restart().unwrap();
    fleet.datanodes[0].process.restart().unwrap();
    let gone = ["DfsChunksMissing", "DfsChunksAtRisk", "DfsRepairHeld"];
    let gone = [&gone[..], &one[..]].concat();
    seen.resolve("all are back", &gone).await;
    fleet.ready().await;

    let unreachable = ["DfsDatanodeUnreachable"];
    fleet.to_datanodes[0].set(LinkFault::cut());
    seen.fires(
        "nobody can connect to a datanode that goes on with its heartbeats",
        &unreachable,
    )
    .await;
    fleet.to_datanodes[0].heal();
    seen.resolve("connections are let through", &unreachable)
        .await;
    uploads.abort();
}

async fn tracker_goes(fleet: &mut Fleet, seen: &mut Prometheus) {
    fleet.tracker.process.kill_9().unwrap();
    seen.fires("the tracker is killed", &["DfsTrackerDown"])
        .await;
    for datanode in &mut fleet.datanodes {
        datanode.process.kill_9().unwrap();
    }
    fleet.tracker.process.restart().unwrap();
    seen.resolve("it is started", &["DfsTrackerDown"]).await;
    seen.fires("the tracker started, and no datanode did", &["DfsSafeMode"])
        .await;
    for datanode in &mut fleet.datanodes {
        datanode.process.restart().unwrap();
    }
    seen.resolve("the datanodes are started", &["DfsSafeMode"])
        .await;

    fleet.ready().await;
    let cluster = fleet.store().status().await.unwrap().cluster.to_string();
    fleet.tracker.process.kill_9().unwrap();
    let volume = fleet.root.path().join("tracker-0");
    let kept = fleet.root.path().join("kept");
    std::fs::rename(&volume, &kept).unwrap();
    let expected = ["--expect-cluster", cluster.as_str()];
    fleet.tracker.start_with(&fleet.root, &expected);
    seen.fires(
        "the tracker is started on an empty volume",
        &["DfsCatalogLost"],
    )
    .await;
    fleet.tracker.process.kill_9().unwrap();
    std::fs::remove_dir_all(&volume).unwrap();
    std::fs::rename(&kept, &volume).unwrap();
    fleet.tracker.start_with(&fleet.root, &[]);
    seen.resolve("it is started on its own volume", &["DfsCatalogLost"])
        .await;
    fleet.ready().await;
}

/// What succeeded within the hour before keeps this alert still: a Prometheus that begins now knows of nothing.
async fn checkpoints_fail(fleet: &mut Fleet, program: &str, seen: &mut Prometheus) {
    let failing = ["DfsCheckpointsFailing"];
    let staging = |number| fleet.root.path().join(format!("datanode-{number}/staging"));
    let staging: Vec<_> = (0..fleet.datanodes.len()).map(staging).collect();
    for dir in &staging {
        std::fs::rename(dir, dir.with_extension("aside")).unwrap();
    }
    changes(fleet, 5).await;
    // Its first checkpoint is due at once.
    fleet.tracker.start_with(&fleet.root, &[]);
    let mut fresh = Prometheus::start(program, fleet).await;
    let cause = "no datanode can create files, and the tracker is started anew";
    fresh.fires(cause, &failing).await;
    for dir in &staging {
        std::fs::rename(dir.with_extension("aside"), dir).unwrap();
    }
    fresh.resolve("they can", &failing).await;
    seen.join(&fresh);
    fleet.ready().await;
}

/// Journals that answers do not wait for. The least of ten minutes counts: again for one that begins now.
async fn journals_lag(fleet: &mut Fleet, program: &str, seen: &mut Prometheus) {
    let lagging = ["DfsJournalLagging"];
    fleet
        .tracker
        .start_with(&fleet.root, &["--journal", "async"]);
    fleet.ready().await;
    for link in &fleet.to_datanodes {
        link.set(LinkFault::cut());
    }
    changes(fleet, 150).await;
    let mut fresh = Prometheus::start(program, fleet).await;
    let cause = "the tracker is cut from all journals, and answers 150 changes without them";
    fresh.fires(cause, &lagging).await;
    for link in &fleet.to_datanodes {
        link.heal();
    }
    fresh.resolve("connections are let through", &lagging).await;
    seen.join(&fresh);
    fleet.tracker.start_with(&fleet.root, &[]);
    fleet.ready().await;
}

/// So many empty files, which need no datanode.
async fn changes(fleet: &Fleet, count: usize) {
    let door = fleet.store().door;
    for number in 0..count {
        let path = format!("/files/empty-{number}");
        let _made = door.put(&path, Vec::new()).await.unwrap().ok();
    }
}

/// Changes a byte in the middle of each file of chunks.
fn damage(dir: &std::path::Path) -> usize {
    let mut damaged = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damaged += damage(&path);
        } else if path.metadata().unwrap().len() > 100_000 {
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    damaged
}

async fn volumes_suffer(fleet: &mut Fleet, seen: &mut Prometheus) {
    let volume = fleet.root.path().join("datanode-1");
    assert!(
        damage(&volume.join("chunks")) > 0,
        "there are chunks to damage"
    );
    let door = fleet.gateway_door();
    let reads = tokio::spawn(async move {
        loop {
            let _answer = door.get("/files/large").await;
        }
    });
    seen.fires(
        "a byte of each chunk on a volume is changed, and they are read",
        &["DfsCorruptionDetected"],
    )
    .await;
    reads.abort();
    let anew = |members: &mut Vec<Member>, root: &tempfile::TempDir, more: &[&str]| {
        for member in members {
            member.start_with(root, more);
        }
    };
    let reserve = ["--reserve", "100TiB"];
    anew(&mut fleet.datanodes, &fleet.root, &reserve);
    seen.fires("all room of the volumes is set aside", &["DfsCapacityLow"])
        .await;
    anew(&mut fleet.datanodes, &fleet.root, &[]);
    seen.resolve("it is given back", &["DfsCapacityLow"]).await;
}

async fn staging_is_lost(fleet: &Fleet, seen: &mut Prometheus) {
    let refuses = ["DfsDiskRefusesWrites"];
    let staging = fleet.root.path().join("datanode-2/staging");
    let aside = staging.with_extension("aside");
    std::fs::rename(&staging, &aside).unwrap();
    let uploads = uploads(fleet.store().door);
    seen.fires("a datanode cannot create files", &refuses).await;
    std::fs::rename(&aside, &staging).unwrap();
    seen.resolve("it can", &refuses).await;
    uploads.abort();
}

/// More uploads than a gateway takes, none of which goes on.
async fn uploads_hang(fleet: &Fleet, seen: &mut Prometheus) {
    const UPLOADS: usize = 160;
    let door = fleet.gateway_door();
    let mut hanging = Vec::new();
    for number in 0..UPLOADS {
        let mut stream = TcpStream::connect(&door.address).await.unwrap();
        let head = format!(
            "PUT /files/hangs-{number} HTTP/1.1\r\nhost: store\r\ncontent-length: 9\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        hanging.push(stream);
    }
    let more = uploads(door);
    seen.fires(
        "160 uploads hang at a gateway that takes 128",
        &["DfsLimitReached"],
    )
    .await;
    more.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_alert_fires_for_its_cause_and_resolves_or_is_listed_with_a_reason() {
    let Ok(program) = std::env::var("DFS_ALERTS_PROMETHEUS") else {
        eprintln!("skipped: DFS_ALERTS_PROMETHEUS names no Prometheus");
        return;
    };
    eprintln!("each `for` is cut to nothing, the windows of rates stay");
    let mut fleet = Fleet::start().await;
    for number in 0..8 {
        let path = format!("kept-{number}");
        fleet.store().put(&path, &b"small"[..]).await;
    }
    fleet.store().put("large", vec![7; 1_000_000]).await;
    let mut seen = Prometheus::start(&program, &fleet).await;
    seen.resolve("all are scraped", &["DfsTrackerDown", "DfsGatewayDown"])
        .await;

    budgets_burn(&fleet, &mut seen).await;
    gateway_goes(&mut fleet, &mut seen).await;
    // Before anything is copied: half an hour of copying keeps a stall from being told.
    datanodes_go(&mut fleet, &mut seen).await;
    staging_is_lost(&fleet, &mut seen).await;
    tracker_goes(&mut fleet, &mut seen).await;
    checkpoints_fail(&mut fleet, &program, &mut seen).await;
    journals_lag(&mut fleet, &program, &mut seen).await;
    volumes_suffer(&mut fleet, &mut seen).await;
    uploads_hang(&fleet, &mut seen).await;

    for (name, reason) in NOT_HERE {
        eprintln!("NOT HERE | {name} | {reason}");
    }
    let rules = rules();
    let named = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let named: BTreeSet<&str> = named.collect();
    let listed = NOT_HERE.iter().map(|(name, _)| *name);
    let accounted: BTreeSet<&str> = seen
        .fired
        .iter()
        .map(String::as_str)
        .chain(listed)
        .collect();
    assert_eq!(
        named, accounted,
        "alerts, and those that fired or are listed"
    );
    assert!(seen.failures.is_empty(), "{:#?}", seen.failures);
}
