//! Every row of `make bench` produces its line: sizes of kilobytes, two rounds, figures that mean nothing.
// A step that fails must end the test, with the reason at hand.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;

use dfs_e2e::process::binary;
use serde_json::Value;

/// Rows that need nothing but the store itself.
const ROWS: [&str; 13] = [
    "dev", "W1", "W2", "W3", "W8", "memory", "W4", "W5", "W6", "W7", "W9", "W10", "sight",
];

fn lines(only: &str, dir: &std::path::Path) -> (Vec<Value>, String) {
    let output = Command::new(binary("dfs-bench"))
        .env("DFS_BENCH_SMOKE", "1")
        .env("DFS_BENCH_ONLY", only)
        .env("DFS_BENCH_DIR", dir)
        .env("DFS_BENCH_DFS", binary("dfs"))
        .env_remove("DFS_BENCH_OTHER")
        .env_remove("DFS_BENCH_PEERS")
        .env_remove("FULL")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{told}");
    let json = text.lines().filter(|line| line.starts_with('{'));
    let parsed = json.filter_map(|line| serde_json::from_str(line).ok());
    (parsed.collect(), text)
}

fn scratch() -> tempfile::TempDir {
    // O_DIRECT and fsync are asked for: the file system of the build, not one in memory.
    tempfile::tempdir_in(binary("dfs").parent().unwrap_or(&PathBuf::from("."))).unwrap()
}

#[test]
fn every_row_of_the_bench_produces_its_line_and_leaves_nothing_behind() {
    let dir = scratch();
    let only =
        "dev,write,read,small,lookup,names,list,repair,mixed,herd,catalog,sight,synced,memory";
    let (lines, text) = lines(only, dir.path());
    let ids: Vec<&str> = lines
        .iter()
        .filter_map(|line| line["id"].as_str())
        .collect();
    for row in ROWS.iter().chain(&["D2", "RSS slope"]) {
        assert!(ids.contains(row), "no line of {row}: {text}");
    }
    let measured = lines.iter().filter(|line| line.get("rate").is_some());
    assert!(
        measured
            .clone()
            .all(|line| line["rate"].as_f64() > Some(0.0))
    );
    assert!(measured.clone().all(|line| line["class"].is_string()));
    assert!(measured.clone().all(|line| line["cpu"].is_object()));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_workload_that_does_not_exist_is_refused_with_those_that_do() {
    let output = Command::new(binary("dfs-bench"))
        .env("DFS_BENCH_ONLY", "write,wirte")
        .env("DFS_BENCH_DFS", binary("dfs"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        told.contains("`wirte`") && told.contains("write,read"),
        "{told}"
    );
}
