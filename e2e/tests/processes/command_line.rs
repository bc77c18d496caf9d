//! The command line as people and scripts use it, against real processes.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use dfs_e2e::process::{Process, ProcessSpec, binary, free_ports};
use dfs_e2e::store::Store;
use serde_json::Value;

use crate::fleet::{CHUNK, DEADLINE, Fleet, Member, Options, bytes, seeded};

struct Shell<'a> {
    tracker: String,
    dir: &'a Path,
}

impl Shell<'_> {
    fn run(&self, line: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(binary("dfs"))
            .args(line)
            .envs((!self.tracker.is_empty()).then_some(("DFS_TRACKER", &self.tracker)))
            .current_dir(self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that does not read its input may have ended.
        let _written = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// Runs a line that must end with this code; its standard output.
    fn ends(&self, code: i32, line: &str) -> String {
        self.ends_with_input(code, line, b"")
    }

    fn ends_with_input(&self, code: i32, line: &str, input: &[u8]) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let output = self.run(&words, input);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert_eq!(output.status.code(), Some(code), "dfs {line}\n{out}\n{err}");
        // Results go to standard output; what went wrong, and what next, to standard error.
        assert!(
            code == 0 || !err.is_empty() || !out.is_empty(),
            "dfs {line}: silent"
        );
        if code == 0 { out } else { out + &err }
    }

    fn json(&self, line: &str) -> Value {
        let out = self.ends(0, line);
        serde_json::from_str(out.lines().next().unwrap_or_default()).unwrap()
    }
}

fn tree(root: &Path, rng: &mut fastrand::Rng) {
    for (path, size) in [
        ("a/empty", 0),
        ("a/small", 100),
        ("a/b/big", CHUNK * 2 + 7),
        ("top", 5),
    ] {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes(rng, size)).unwrap();
    }
}

fn same(one: &Path, other: &Path) {
    let ended = Command::new("diff")
        .arg("-r")
        .args([one, other])
        .status()
        .unwrap();
    assert!(
        ended.success(),
        "{} and {} differ",
        one.display(),
        other.display()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_works_against_real_processes_and_ends_with_its_code() {
    let mut rng = seeded();
    let fleet = Fleet::start(Options::calm(4)).await;
    let dir = fleet.root.path().join("client");
    tree(&dir.join("tree"), &mut rng);
    let store = fleet.store();
    let shell = Shell {
        tracker: format!("http://{}", fleet.tracker.address()),
        dir: &dir,
    };
    shell.ends(0, "put -r tree docs/");
    assert_eq!(shell.ends(0, "ls -r -n docs/").lines().count(), 4);
    shell.ends(0, "get -r docs/tree back");
    same(&dir.join("tree"), &dir.join("back"));
    shell.ends_with_input(0, "put - docs/stdin", b"from standard input");
    assert_eq!(shell.ends(0, "get docs/stdin -"), "from standard input");
    shell.ends(4, "put --if-absent tree/top docs/stdin");
    shell.ends(0, "cp docs/stdin copy");
    shell.ends(0, "mv copy moved/there");
    shell.ends(3, "cat copy");
    assert_eq!(shell.ends(0, "cat moved/there"), "from standard input");
    shell.ends(0, "mv docs/ papers");
    shell.ends(3, "stat docs/stdin");
    let stat = shell.json("stat papers/stdin -o json");
    assert_eq!(stat["size"], 19);
    shell.ends(0, "rm papers/stdin");
    shell.ends(3, "rm papers/stdin");
    shell.ends(0, "rm -f papers/stdin");
    let trash = shell.json("trash list -o json");
    let id = trash["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{trash}"))
        .to_owned();
    shell.ends(0, &format!("trash restore {id}"));
    assert_eq!(shell.ends(0, "cat papers/stdin"), "from standard input");
    // Writes are taken before safe mode is over; the whole is healthy after it.
    store.wait_healthy(DEADLINE).await;
    let status = shell.json("status -o json");
    assert_eq!(
        (&status["files"], &status["healthy"]),
        (&6.into(), &true.into())
    );
    let nodes = shell.json("nodes -o json");
    assert_eq!(nodes.as_array().map(Vec::len), Some(4));
    assert!(shell.json("chunks papers/tree/a/b/big -o json")["chunks"].is_array());
    let leaving = fleet.datanodes[0].address();
    shell.ends(0, &format!("decommission --wait-done {leaving}"));
    dfs_e2e::wait::eventually("it is decommissioned", DEADLINE, || async {
        let nodes = store.nodes().await?;
        let left = nodes.iter().find(|node| node.address == leaving).unwrap();
        let is_done = left.admin == dfs_protocol::datanode::AdminState::Decommissioned;
        if is_done {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    shell.ends(0, &format!("recommission {leaving}"));
    shell.ends(0, &format!("maintenance --for 1h {leaving}"));
    assert!(shell.ends(0, "nodes").contains("announced as away"));
    shell.ends(0, &format!("maintenance --end {leaving}"));
    assert!(!shell.ends(0, "nodes").contains("announced as away"));
    shell.ends(0, "rm -r papers/ moved/");
    store.wait_fsck_clean(DEADLINE).await;
    assert!(shell.ends(0, "fsck").contains("Clean"));
    shell.ends(2, "put");
    shell.ends(2, "nonsense");
    let nobody = Shell {
        tracker: "http://127.0.0.1:9".to_owned(),
        dir: &dir,
    };
    shell.ends(1, "put missing-file x");
    assert!(nobody.ends(5, "ls").contains("127.0.0.1:9"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_trackers_directory_deleted_is_rebuilt_on_the_command_line() {
    let mut rng = seeded();
    let mut fleet = Fleet::start(Options::calm(3)).await;
    let store = fleet.store();
    let dir = fleet.root.path().to_path_buf();
    let tracker = format!("http://{}", fleet.tracker.address());
    let shell = Shell { tracker, dir: &dir };
    let body = bytes(&mut rng, CHUNK + 99);
    for path in ["kept", "moved", "deleted", "replaced", "copied"] {
        store.put(path, body.clone()).await;
    }
    store.put("empty", Vec::new()).await;
    shell.ends(0, "mv moved new/name");
    shell.ends(0, "cp copied copy");
    shell.ends(0, "rm deleted");
    let newer = bytes(&mut rng, 1000);
    store.put("replaced", newer.clone()).await;
    let before = store.list("").await;
    fleet.tracker.process.kill_9().unwrap();
    let addresses: Vec<String> = fleet.datanodes.iter().map(Member::address).collect();
    let target = fleet.tracker.dir.display().to_string();
    let line = format!(
        "tracker rebuild --dir {target} --datanode {}",
        addresses.join(",")
    );
    // A directory that still holds a catalog is not overwritten.
    assert!(shell.ends(1, &line).contains("rebuild"));
    fleet.tracker.wipe();
    let told = shell.ends(0, &line);
    eprintln!("{told}");
    assert!(told.contains("rebuilt cluster"));
    fleet.tracker.process.restart().unwrap();
    fleet.wait_ready().await;
    assert_eq!(store.list("").await, before);
    for path in ["kept", "new/name", "copied", "copy"] {
        assert!(store.get(path).await == body, "{path}");
    }
    assert!(store.get("replaced").await == newer);
    assert!(store.get("empty").await.is_empty());
    store.put("after", body.clone()).await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_catalog_dumped_and_loaded_elsewhere_is_the_same_store() {
    let mut rng = seeded();
    let mut fleet = Fleet::start(Options::calm(3)).await;
    let store = fleet.store();
    let dir = fleet.root.path().to_path_buf();
    let shell = Shell {
        tracker: String::new(),
        dir: &dir,
    };
    let body = bytes(&mut rng, CHUNK + 99);
    store.put("docs/kept", body.clone()).await;
    let target = fleet.tracker.dir.display().to_string();
    let locked = shell.run(&["meta", "dump", "--dir", &target], b"");
    assert_eq!(locked.status.code(), Some(1), "a running tracker has it");
    assert!(String::from_utf8_lossy(&locked.stderr).contains("tracker"));
    fleet.tracker.process.terminate().unwrap();
    assert_eq!(fleet.tracker.process.wait(DEADLINE).await.code(), Some(0));
    let dump = shell.run(&["meta", "dump", "--dir", &target], b"");
    assert!(
        dump.status.success(),
        "{}",
        String::from_utf8_lossy(&dump.stderr)
    );
    let loaded = shell.run(&["meta", "load", "--dir", &target], &dump.stdout);
    assert_eq!(loaded.status.code(), Some(1), "it is not empty");
    fleet.tracker.wipe();
    let torn = shell.run(
        &["meta", "load", "--dir", &target],
        &dump.stdout[..dump.stdout.len() - 9],
    );
    assert_eq!(torn.status.code(), Some(1), "a torn dump is no catalog");
    fleet.tracker.wipe();
    let loaded = shell.run(&["meta", "load", "--dir", &target], &dump.stdout);
    assert!(
        loaded.status.success(),
        "{}",
        String::from_utf8_lossy(&loaded.stderr)
    );
    fleet.tracker.process.restart().unwrap();
    fleet.wait_ready().await;
    assert!(store.get("docs/kept").await == body);
    store.wait_fsck_clean(DEADLINE).await;
}

fn member(name: &str, line: &str, dir: &Path) -> Process {
    let mut spec = ProcessSpec::dfs(name, line.split_whitespace());
    // The seed's lines name no directory.
    spec.binary = "/bin/sh".into();
    let run = format!(
        "cd '{}' && exec '{}' \"$@\"",
        dir.display(),
        binary("dfs").display()
    );
    let words = std::mem::take(&mut spec.args);
    spec.args = ["-c".to_owned(), run, "dfs".to_owned()]
        .into_iter()
        .chain(words)
        .collect();
    Process::start(spec, dir).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seeds_command_lines_and_curl_lines_work_to_the_letter() {
    let root = tempfile::tempdir().unwrap();
    // Neighbouring ports, because the admin listener is 1000 above.
    let ports = free_ports(4);
    let [tracker, one, two, three] = ports[..] else {
        unreachable!()
    };
    let _tracker = member("tracker", &format!("tracker --port {tracker}"), root.path());
    let _members = [
        member(
            "one",
            &format!("datanode --port {one} --tracker http://127.0.0.1/:{tracker}"),
            root.path(),
        ),
        member(
            "two",
            &format!("datanode -port {two} -tracker=http://127.0.0.1/:{tracker}"),
            root.path(),
        ),
        member(
            "three",
            &format!("datanode --port {three} --tracker http://127.0.0.1:{tracker}"),
            root.path(),
        ),
    ];
    let store = Store::new(&format!("127.0.0.1:{tracker}"));
    store.wait_ready(3, DEADLINE).await;
    std::fs::write(root.path().join("example.txt"), "an example").unwrap();
    for line in [
        format!("curl -sf -X POST -F \"file=@example.txt\" http://localhost:{tracker}/upload"),
        format!("curl -sf -X GET http://localhost:{tracker}/download/example.txt -o back.txt"),
        "cmp example.txt back.txt".to_owned(),
        format!("curl -sf http://localhost:{tracker}/nodes"),
        format!("curl -sf 'http://localhost:{tracker}/register?port={one}'"),
    ] {
        let ended = Command::new("sh")
            .arg("-c")
            .arg(&line)
            .current_dir(root.path())
            .output();
        let ended = ended.unwrap();
        assert!(
            ended.status.success(),
            "{line}: {}",
            String::from_utf8_lossy(&ended.stdout)
        );
    }
    assert!(
        root.path()
            .join(format!("dfs-data/datanode-{two}/volume.json"))
            .is_file()
    );
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_restarted_on_its_data_has_its_files() {
    let root = tempfile::tempdir().unwrap();
    let port = free_ports(1)[0];
    let mut dev = member(
        "dev",
        &format!("dev --port {port} --dir store"),
        root.path(),
    );
    let store = Store::new(&format!("127.0.0.1:{port}"));
    store.wait_ready(3, DEADLINE).await;
    store.put("kept", vec![7; 100_000]).await;
    dev.kill_9().unwrap();
    dev.restart().unwrap();
    store.wait_ready(3, DEADLINE).await;
    assert!(store.get("kept").await == vec![7; 100_000]);
    store.wait_fsck_clean(DEADLINE).await;
    dev.terminate().unwrap();
    assert_eq!(dev.wait(DEADLINE).await.code(), Some(0));
    assert!(
        dev.log().contains("curl -X POST -F"),
        "the board has lines to paste"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_31_fault_35_what_is_taken_or_foreign_is_refused_with_a_reason() {
    let fleet = Fleet::start(Options::default()).await;
    let dir = fleet.root.path().to_path_buf();
    let shell = Shell {
        tracker: String::new(),
        dir: &dir,
    };
    let (taken, free) = (fleet.tracker.port, free_ports(4));
    let volume = fleet.datanodes[0].dir.display().to_string();
    let catalog = fleet.tracker.dir.display().to_string();
    let listen = |port: u16, admin: u16| format!("--port {port} --admin-port {admin}");
    let told = shell.ends(
        1,
        &format!("tracker {} --dir other", listen(taken, free[0])),
    );
    assert!(told.contains("in use") && told.contains("--port"), "{told}");
    let told = shell.ends(
        1,
        &format!("tracker {} --dir {catalog}", listen(free[1], free[0])),
    );
    assert!(told.contains("another"), "{told}");
    let told = shell.ends(
        1,
        &format!("datanode {} --dir {volume}", listen(free[1], free[0])),
    );
    assert!(
        told.contains("another") || told.contains("in use"),
        "{told}"
    );
    // A volume of another cluster.
    let other = Fleet::start(Options {
        datanodes: 1,
        tracker: ["--replication", "1"].map(str::to_owned).to_vec(),
        ..Options::default()
    })
    .await;
    let mut foreign = other;
    foreign.datanodes[0].process.kill_9().unwrap();
    let volume = foreign.datanodes[0].dir.display().to_string();
    let tracker = fleet.tracker.address();
    let line = format!(
        "datanode {} --dir {volume} --tracker {tracker}",
        listen(free[1], free[0])
    );
    let told = shell.ends(1, &line);
    assert!(told.contains("cluster"), "{told}");
    assert_eq!(fleet.store().nodes().await.unwrap().len(), 3);
}
