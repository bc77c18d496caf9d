//! What needs root: file systems that really fill up, and the kernel's own limits.

use std::path::{Path, PathBuf};
use std::process::Command;

use dfs_e2e::store::patiently;
use http::StatusCode;

use crate::fleet::{CHUNK, DEADLINE, Fleet, Mount, Options, bytes, seeded};
use crate::kills::begin;

/// A file system of its own for `name`, of so many MiB.
fn mount(root: &Path, name: &str, mib: u32) -> Mount {
    let (image, point) = (root.join(format!("{name}.image")), root.join(name));
    std::fs::create_dir(&point).unwrap();
    let run = |program: &str, args: &[&str]| {
        let ended = Command::new(program).args(args).output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "{program} {args:?}: {told}");
    };
    let (image, at) = (image.display().to_string(), point.display().to_string());
    run("truncate", &["-s", &format!("{mib}M"), &image]);
    run("mkfs.ext4", &["-q", "-F", "-m", "0", &image]);
    run("mount", &["-o", "loop", &image, &at]);
    Mount(point)
}

fn small_datanodes(root: &Path) -> Vec<Mount> {
    (0..3)
        .map(|n| mount(root, &format!("datanode-{n}"), 48))
        .collect()
}

fn one_small_datanode(root: &Path) -> Vec<Mount> {
    vec![mount(root, "datanode-0", 48)]
}

fn small_tracker(root: &Path) -> Vec<Mount> {
    vec![mount(root, "tracker", 256)]
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn root_i15_fault_14_full_datanodes_answer_507_serve_reads_and_recover_by_deletes() {
    let mut rng = seeded();
    let trash = ["--trash-retention", "0s"].map(str::to_owned).to_vec();
    let options = Options {
        tracker: trash,
        furnish: small_datanodes,
        ..Options::calm(3)
    };
    let fleet = Fleet::start(options).await;
    let store = fleet.store();
    let body = bytes(&mut rng, CHUNK * 4);
    let mut stored = 0;
    let refusal = loop {
        let path = format!("f{stored}");
        let reply = patiently(&path, || store.try_put(&path, body.clone())).await;
        if !reply.status.is_success() {
            break reply;
        }
        stored += 1;
        assert!(stored < 100, "48 MiB never fill up");
    };
    eprintln!("{stored} MiB fit on 48 MiB: {}", refusal.text());
    assert_eq!(
        refusal.status,
        StatusCode::INSUFFICIENT_STORAGE,
        "{}",
        refusal.text()
    );
    assert!(stored > 10);
    assert_eq!(store.content(&format!("f{stored}")).await, Ok(None));
    for n in 0..stored {
        assert!(store.get(&format!("f{n}")).await == body, "{n}");
    }
    for n in 0..stored {
        let _ = store.delete(&format!("f{n}")).await;
    }
    dfs_e2e::wait::eventually("there is room again", DEADLINE, || async {
        let reply = store.try_put("again", body.clone()).await.unwrap();
        if reply.status.is_success() {
            Ok(())
        } else {
            Err(reply.text())
        }
    })
    .await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn root_fault_14_one_full_datanode_is_passed_over() {
    let mut rng = seeded();
    let options = Options {
        furnish: one_small_datanode,
        ..Options::calm(4)
    };
    let fleet = Fleet::start(options).await;
    let store = fleet.store();
    let body = bytes(&mut rng, CHUNK * 4);
    for n in 0..80 {
        let stored = store.put(&format!("f{n}"), body.clone()).await;
        assert_eq!(stored.replica_count, 3, "{n}");
    }
    let status = store.status().await.unwrap();
    eprintln!(
        "datanodes after 80 MiB with one of 48 MiB: {:?}",
        status.datanodes
    );
    for n in 0..80 {
        assert!(store.get(&format!("f{n}")).await == body, "{n}");
    }
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn root_i15_fault_14_a_full_tracker_refuses_writes_and_takes_deletes() {
    let fleet = Fleet::start(Options {
        furnish: small_tracker,
        ..Options::calm(3)
    })
    .await;
    let store = fleet.store();
    store.put("kept", "kept").await;
    store.put("deleted", "deleted").await;
    // Somebody else fills the volume.
    let hog = fleet.tracker.dir.join("hog");
    let filled = std::fs::write(&hog, vec![1; 256 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    dfs_e2e::wait::eventually("writes are refused", DEADLINE, || async {
        let reply = store.try_put("late", "late").await.unwrap();
        if reply.status == StatusCode::INSUFFICIENT_STORAGE {
            Ok(())
        } else {
            Err(reply.text())
        }
    })
    .await;
    assert_eq!(&store.get("kept").await[..], b"kept");
    let _ = store.delete("deleted").await;
    assert_eq!(store.content("deleted").await, Ok(None));
    std::fs::remove_file(&hog).unwrap();
    dfs_e2e::wait::eventually("writes are taken again", DEADLINE, || async {
        let reply = store.try_put("late", "late").await.unwrap();
        if reply.status.is_success() {
            Ok(())
        } else {
            Err(reply.text())
        }
    })
    .await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn root_fault_28_a_datanode_out_of_memory_amid_an_upload_costs_nothing() {
    let group = PathBuf::from(format!(
        "/sys/fs/cgroup/memory/dfs-test-{}",
        std::process::id()
    ));
    if std::fs::create_dir(&group).is_err() {
        eprintln!("skipped: no writable memory controller of cgroup v1 here");
        return;
    }
    let mut rng = seeded();
    let mut fleet = Fleet::start(Options::calm(4)).await;
    let store = fleet.store();
    let body = bytes(&mut rng, CHUNK * 8);
    let begun = begin(&fleet, "f", body.slice(..CHUNK / 2)).await;
    let victim = fleet
        .datanodes
        .iter()
        .position(|one| one.files_in("staging") > 0)
        .unwrap();
    let process = &mut fleet.datanodes[victim].process;
    std::fs::write(group.join("cgroup.procs"), process.pid().to_string()).unwrap();
    // Charges follow new pages only: what it allocates from here on has 64 KiB.
    std::fs::write(group.join("memory.limit_in_bytes"), "65536").unwrap();
    begun.sender.send(body.slice(CHUNK / 2..)).await.unwrap();
    drop(begun.sender);
    let reply = begun.answer.await.unwrap().unwrap();
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text());
    let ended = process.wait(DEADLINE).await;
    eprintln!("the datanode ended with {ended}");
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&ended),
        Some(9)
    );
    assert!(store.get("f").await == body);
    process.restart().unwrap();
    fleet.wait_ready().await;
    store.wait_healthy(DEADLINE).await;
    store.wait_fsck_clean(DEADLINE).await;
    std::fs::remove_dir(&group).unwrap();
}
