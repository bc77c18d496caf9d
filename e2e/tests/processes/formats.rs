//! What an earlier program wrote is read and gone on with; what a later one wrote is refused and left alone.

use std::path::Path;
use std::process::Command;

use dfs_e2e::process::{Process, ProcessSpec, free_ports};

use crate::fleet::{DEADLINE, Fleet, Mount, Options};

/// A tracker's directory and a datanode's volume of the oldest format that is read: a file with metadata, one of two
/// chunks that was moved, an empty one, one in the trash, and a checkpoint. Written by a program; never edited.
const OLDEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/format-1");

fn copy_oldest(root: &Path) -> Vec<Mount> {
    let from = format!("{OLDEST}/.");
    let copied = Command::new("cp").arg("-R").arg(from).arg(root).status();
    assert!(copied.unwrap().success());
    Vec::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_the_oldest_format_is_read_checked_and_gone_on_with() {
    let tracker = ["--replication", "1"].map(str::to_owned).to_vec();
    let options = Options {
        tracker,
        furnish: copy_oldest,
        ..Options::calm(1)
    };
    let fleet = Fleet::start(options).await;
    let store = fleet.store();
    let before = store.list("").await;
    assert_eq!(before, ["dir/empty", "hello.txt", "moved/two"]);
    let hello = store.try_get("hello.txt").await.unwrap().ok();
    assert_eq!(&hello.body[..], b"hello\n");
    assert_eq!(hello.header("content-type"), "text/plain");
    assert_eq!(hello.header("x-dfs-meta-color"), "blue");
    let pattern = |n: u32| (n * 7 + n / 251).to_le_bytes()[0];
    let two: Vec<u8> = (0..70_000).map(pattern).collect();
    assert!(store.get("moved/two").await == two);
    assert!(store.get("dir/empty").await.is_empty());
    let _stored = store.put("more", two.clone()).await;
    let _deleted = store.delete("hello.txt").await;
    assert!(store.get("more").await == two);
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_of_a_later_format_is_refused_by_name_and_left_as_it_is() {
    let root = tempfile::tempdir().unwrap();
    copy_oldest(root.path());
    let dir = root.path().join("datanode-0");
    let identity = dir.join("volume.json");
    let text = std::fs::read_to_string(&identity).unwrap();
    let later = text.replace("\"format\": 1", "\"format\": 3");
    assert_ne!(later, text);
    std::fs::write(&identity, &later).unwrap();
    let volume = dir.display().to_string();
    let free = free_ports(2);
    let [port, admin] = [0, 1].map(|n| free[n].to_string());
    let ports = ["--port", &port, "--admin-port", &admin];
    let more = ["--dir", &volume, "--tracker", "http://127.0.0.1:9"];
    let args = std::iter::once("datanode").chain(ports).chain(more);
    let spec = ProcessSpec::dfs("later", args);
    let mut process = Process::start(spec, root.path()).unwrap();
    let ended = process.wait(DEADLINE).await;
    assert!(!ended.success());
    let said = process.log();
    assert!(
        said.contains("layout 3") && said.contains("use a later one"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&identity).unwrap(), later);
    let chunk = "chunks/01/01339b89f58f0580b7ced15651eb8fa6.v1.chunk";
    assert!(dir.join(chunk).exists());
}
