//! The container image: what is in it, that building it twice gives the same bytes, and that the
//! binary finds names from inside it. Made of the test's own binary by the script that `make image`
//! runs; no container engine is needed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod names;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dfs_e2e::http::Http;
use dfs_e2e::process::{Process, ProcessSpec, binary, free_ports};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(90);

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Runs a command to its end and gives its output; a failure ends the test.
fn run(command: &mut Command) -> String {
    let ended = command.output().unwrap();
    let (stdout, stderr) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    assert!(ended.status.success(), "{command:?}: {stdout}{stderr}");
    stdout.into_owned()
}

fn image(args: &[&str]) -> String {
    let mut command = Command::new(tree().join("scripts/image.sh"));
    command.arg("--binary").arg(binary("dfs")).args(args);
    run(&mut command)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The file that a descriptor points to.
fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().unwrap();
    let path = layout
        .join("blobs/sha256")
        .join(digest.strip_prefix("sha256:").unwrap());
    let size = fs::metadata(&path).unwrap().len();
    assert_eq!(descriptor["size"].as_u64(), Some(size), "{digest}");
    let told = run(Command::new("sha256sum").arg(&path));
    assert!(digest.ends_with(&told[..64]), "{digest} is {told}");
    path
}

#[test]
fn the_image_is_the_same_each_time_and_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("1.tar"), dir.path().join("2.tar"));
    let told = image(&["--out", first.to_str().unwrap()]);
    image(&["--out", second.to_str().unwrap()]);
    assert!(fs::read(&first).unwrap() == fs::read(&second).unwrap());
    assert!(told.contains("MiB unpacked"), "{told}");

    let layout = dir.path().join("layout");
    fs::create_dir(&layout).unwrap();
    run(Command::new("tar")
        .arg("-xf")
        .arg(&first)
        .arg("-C")
        .arg(&layout));
    assert_eq!(
        json(&layout.join("oci-layout"))["imageLayoutVersion"],
        "1.0.0"
    );
    let index = json(&layout.join("index.json"));
    let version = env!("CARGO_PKG_VERSION");
    let reference = format!("docker.io/library/dfs:{version}");
    let entry = &index["manifests"][0];
    assert_eq!(
        entry["annotations"]["org.opencontainers.image.ref.name"],
        version
    );
    assert_eq!(
        entry["annotations"]["io.containerd.image.name"],
        reference.as_str()
    );
    let manifest = json(&blob(&layout, entry));
    let config = json(&blob(&layout, &manifest["config"]));
    let process = &config["config"];
    assert_eq!(process["User"], "65532:65532");
    assert_eq!(process["Entrypoint"], serde_json::json!(["/dfs"]));
    for (label, value) in [("version", version), ("licenses", "Apache-2.0")] {
        let name = format!("org.opencontainers.image.{label}");
        assert_eq!(process["Labels"][&name], value, "{name}");
    }
    let revision = &process["Labels"]["org.opencontainers.image.revision"];
    assert!(revision.as_str().is_some_and(|it| !it.is_empty()));
    // What older tools read names the same blobs.
    let docker = json(&layout.join("manifest.json"));
    assert_eq!(docker[0]["RepoTags"], serde_json::json!([reference]));

    let layer = blob(&layout, &manifest["layers"][0]);
    let unpacked = run(Command::new("sh")
        .arg("-c")
        .arg("gzip -dc \"$0\" | sha256sum")
        .arg(&layer));
    let diff_id = config["rootfs"]["diff_ids"][0].as_str().unwrap();
    assert!(diff_id.ends_with(&unpacked[..64]));
    let names = run(Command::new("tar").arg("-tzf").arg(&layer));
    for wanted in [
        "dfs",
        "etc/ssl/certs/ca-certificates.crt",
        "etc/nsswitch.conf",
        "tmp/",
    ] {
        assert!(
            names.lines().any(|name| name == wanted),
            "{wanted} in {names}"
        );
    }
    for shell in ["bin/sh", "bin/bash", "busybox"] {
        assert!(!names.contains(shell), "{names}");
    }
}

#[test]
fn the_containerfile_and_the_script_say_the_same() {
    let containerfile = fs::read_to_string(tree().join("deploy/Containerfile")).unwrap();
    let script = fs::read_to_string(tree().join("scripts/image.sh")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    for wanted in [
        format!("ARG VERSION={version}\n"),
        "USER 65532:65532\n".to_owned(),
        "ENTRYPOINT [\"/dfs\"]\n".to_owned(),
        "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt\n".to_owned(),
    ] {
        assert!(containerfile.contains(&wanted), "{wanted}");
    }
    let toolchain = fs::read_to_string(tree().join("rust-toolchain.toml")).unwrap();
    let pinned = toolchain.split('"').nth(1).unwrap();
    let minor = pinned.rsplit_once('.').unwrap().0;
    assert!(
        containerfile.contains(&format!("/rust:{minor}-")),
        "the builder is not {pinned}"
    );
    for line in containerfile
        .lines()
        .filter(|line| line.contains("org.opencontainers"))
    {
        let label = line.split('=').next().unwrap().rsplit(' ').next().unwrap();
        assert!(
            script.contains(label),
            "{label} is only in the Containerfile"
        );
    }
}

/// glibc opens its resolver's parts by name while the program runs: only a run shows that they are there.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root"]
async fn root_the_binary_finds_names_from_inside_the_image() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let root = dir.path().join("root");
    image(&["--root", root.to_str().unwrap()]);
    let dns = names::Server::start([("tracker.dfs.test", [127, 0, 0, 1])]).await;
    fs::write(
        root.join("etc/resolv.conf"),
        format!("nameserver {}\n", dns.address),
    )
    .unwrap();
    fs::write(root.join("etc/hosts"), "127.0.0.1 by-hosts.test\n").unwrap();

    let port = free_ports(2)[0];
    let store = dir.path().join("store").display().to_string();
    let args = ["dev", "--port", &port.to_string(), "--dir", &store];
    let mut dev = Process::start(ProcessSpec::dfs("dev", args), dir.path()).unwrap();
    let door = Http::new(&format!("127.0.0.1:{port}"));
    dev.wait_ready(&door, "/readyz", DEADLINE).await;

    let inside = |args: &[&str]| {
        let mut command = Command::new("chroot");
        command
            .arg("--userspec=65532:65532")
            .arg(&root)
            .arg("/dfs")
            .args(args);
        // No variable of the test's, except the one that finds chroot itself.
        let path = std::env::var_os("PATH").unwrap_or_default();
        command.env_clear().env("PATH", path).output().unwrap()
    };
    for name in ["tracker.dfs.test", "by-hosts.test"] {
        let url = format!("http://{name}:{port}");
        let put = inside(&["put", "/dfs", "inside", "--tracker", &url]);
        let told = String::from_utf8_lossy(&put.stderr);
        assert!(put.status.success(), "{name}: {told}");
        let same = inside(&["cmp", "/dfs", "inside", "--tracker", &url]);
        let told = String::from_utf8_lossy(&same.stderr);
        assert!(same.status.success(), "{name}: {told}");
    }
    assert!(dns.asked() > 0, "the name server was never asked");
    // And a name that is not there is an answer, not a crash.
    let url = format!("http://nobody.dfs.test:{port}");
    let nobody = inside(&["status", "--retries", "0", "--tracker", &url]);
    assert_eq!(nobody.status.code(), Some(5), "{nobody:?}");
}
