//! Verbs against a small door in this process.

pub(crate) mod fake;
mod look;
mod nodes;

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dfs_runtime::net::TcpConnector;

use super::*;
use crate::retry::RetryPolicy;
use crate::testing::Captured;
use fake::Fake;

/// Runs `dfs LINE` against the door; `{dir}` is replaced.
async fn dfs(fake: &Fake, dir: &Path, line: &str, stdin: &[u8]) -> (Exit, Captured) {
    let captured = Captured::default();
    let line = line.replace("{dir}", dir.to_str().unwrap());
    let mut argv: Vec<_> = line.split(' ').map(std::ffi::OsString::from).collect();
    argv.push("--tracker".into());
    argv.push(fake.address.clone().into());
    let command = crate::args::parse(argv).unwrap().command;
    let client = client_of(&command).unwrap();
    let retry = RetryPolicy {
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(20),
        ..RetryPolicy::new(client.retries)
    };
    let connector = TcpConnector::shared();
    let session = Session::with_retry(client, connector, captured.output(), retry);
    let stdin = Box::new(Cursor::new(stdin.to_vec()));
    let ended = dispatch(&session, command, stdin).await;
    let out = session.out.clone();
    (finish(&out, ended), captured)
}

pub(crate) async fn run(fake: &Fake, dir: &Path, line: &str) -> (Exit, Captured) {
    dfs(fake, dir, line, b"").await
}

fn data(length: usize) -> Bytes {
    (0..=250).cycle().take(length).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn i06_a_file_comes_back_as_it_went_whatever_its_size_and_name() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    for (name, length) in [("empty", 0), ("small%2f é#?", 5), ("large", 3_000_001)] {
        // Spaces would split the test's command line.
        let name = name.replace(' ', "_");
        fs::write(dir.path().join(&name), data(length)).unwrap();
        let line = format!("dfs put {{dir}}/{name} in/");
        let (exit, captured) = run(&fake, dir.path(), &line).await;
        assert_eq!(exit, Exit::Done, "{}", captured.stderr());
        assert!(
            captured.stdout().contains("3 replicas"),
            "{}",
            captured.stdout()
        );
        assert!(fake.content(&format!("in/{name}")).unwrap() == data(length));
        let line = format!("dfs get in/{name} {{dir}}/out/{name}");
        let (exit, captured) = run(&fake, dir.path(), &line).await;
        assert_eq!(exit, Exit::Done, "{}", captured.stderr());
        assert!(captured.stdout().contains("verified"));
        assert!(fs::read(dir.path().join("out").join(&name)).unwrap() == data(length));
    }
    assert_eq!(names(&dir.path().join("out")).len(), 3);
}

#[tokio::test]
async fn trees_go_in_and_out_and_what_cannot_go_is_counted() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    for name in ["1", "2", "a/3", "a/b/4", "a/b/5"] {
        fs::write(tree.join(name), name).unwrap();
    }
    let (exit, _) = run(&fake, dir.path(), "dfs put -r {dir}/tree keep/").await;
    assert_eq!(exit, Exit::Done);
    assert_eq!(fake.paths().len(), 5);
    assert_eq!(fake.content("keep/tree/a/b/4").unwrap(), "a/b/4");
    let (exit, _) = run(&fake, dir.path(), "dfs get -r keep/tree {dir}/back").await;
    assert_eq!(exit, Exit::Done);
    assert_eq!(
        fs::read_to_string(dir.path().join("back/a/b/5")).unwrap(),
        "a/b/5"
    );
    assert_eq!(names(&dir.path().join("back")), ["1", "2", "a"]);
    fs::write(tree.join("bad\nname"), "x").unwrap();
    let (exit, captured) = run(&fake, dir.path(), "dfs put -r {dir}/tree other").await;
    assert_eq!(exit, Exit::Failed);
    assert!(
        captured.stdout().contains("put 5 files"),
        "{}",
        captured.stdout()
    );
    let told = captured.stderr();
    assert!(told.contains("control character"), "{told}");
    assert!(told.contains("1 of 6 files failed"), "{told}");
    assert_eq!(fake.content("other/a/3").unwrap(), "a/3");
}

#[tokio::test]
async fn cmp_tells_the_same_from_other_shorter_and_longer_bytes() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    let stored = data(300_000);
    fake.store("stored", stored.clone());
    let mut other = stored.to_vec();
    other[123_456] ^= 1;
    let longer = [&stored[..], b"x"].concat();
    for (local, exit, told) in [
        (&stored[..], Exit::Done, "the same"),
        (&other, Exit::Failed, "differs at byte 123456"),
        (&stored[..299_999], Exit::Failed, "shorter"),
        (&longer, Exit::Failed, "goes on after byte 300000"),
        (b"", Exit::Failed, "shorter"),
    ] {
        fs::write(dir.path().join("local"), local).unwrap();
        let (got, captured) = run(&fake, dir.path(), "dfs cmp {dir}/local stored").await;
        let text = captured.stdout() + &captured.stderr();
        assert_eq!(got, exit, "{text}");
        assert!(text.contains(told), "{text}");
    }
    let (exit, _) = run(&fake, dir.path(), "dfs cmp {dir}/local nothing").await;
    assert_eq!(exit, Exit::NotFound);
    let (exit, _) = run(&fake, dir.path(), "dfs cmp {dir}/absent stored").await;
    assert_eq!(exit, Exit::Failed);
    // Taken up again after a break, it compares from the place where it stood.
    fs::write(dir.path().join("local"), &stored).unwrap();
    fake.doings().break_gets = (2, 100_000);
    let (exit, captured) = run(&fake, dir.path(), "dfs cmp {dir}/local stored").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    assert_eq!(names(dir.path()), ["local"]);
}

#[tokio::test]
async fn a_download_that_breaks_is_resumed_where_it_stopped() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.store("big", data(2_000_000));
    fake.doings().break_gets = (2, 300_000);
    let (exit, captured) = run(&fake, dir.path(), "dfs get -o json big {dir}/big").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    assert!(fs::read(dir.path().join("big")).unwrap() == data(2_000_000));
    assert!(captured.stdout().contains("\"verified\":true"));
    assert_eq!(fake.doings().ranges, ["bytes=300000-", "bytes=600000-"]);
    assert!(captured.stdout().contains("\"resumed\":2"));
}

#[tokio::test]
async fn a_file_replaced_during_a_broken_download_comes_whole_in_its_new_version() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.store("f", data(500_000));
    fake.doings().break_gets = (1, 100_000);
    fake.doings().replace_after_break = Some(Bytes::from_static(b"new"));
    let (exit, captured) = run(&fake, dir.path(), "dfs get f {dir}/f").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"new");
}

#[tokio::test]
async fn i06_a_wrong_checksum_ends_with_code_6_and_keeps_what_was_there() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.store("f", "content");
    fake.doings().lie = true;
    fs::write(dir.path().join("f"), "old").unwrap();
    let (exit, captured) = run(&fake, dir.path(), "dfs get f {dir}/f").await;
    assert_eq!(exit, Exit::Integrity);
    assert!(
        captured.stderr().contains("checksum"),
        "{}",
        captured.stderr()
    );
    assert_eq!(fs::read_to_string(dir.path().join("f")).unwrap(), "old");
    assert_eq!(names(dir.path()), ["f"]);
    let (exit, _) = run(&fake, dir.path(), "dfs put {dir}/f g").await;
    assert_eq!(exit, Exit::Integrity);
    let (exit, _) = run(&fake, dir.path(), "dfs cat f").await;
    assert_eq!(exit, Exit::Integrity);
}

#[tokio::test]
async fn what_is_not_there_ends_with_code_3() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    for line in [
        "dfs get no {dir}/no",
        "dfs cat no",
        "dfs stat no",
        "dfs ls no",
        "dfs ls no/",
        "dfs rm no",
        "dfs rm -r no/",
        "dfs cp no b",
        "dfs mv no b",
        "dfs get -r no/ {dir}/out",
    ] {
        let (exit, captured) = run(&fake, dir.path(), line).await;
        assert_eq!(exit, Exit::NotFound, "{line}: {}", captured.stderr());
        assert!(
            captured.stderr().contains("next: "),
            "{}",
            captured.stderr()
        );
    }
    assert!(names(dir.path()).is_empty());
    let (exit, _) = run(&fake, dir.path(), "dfs rm -f no").await;
    assert_eq!(exit, Exit::Done);
}

#[tokio::test]
async fn refusals_for_the_moment_are_tried_again_and_not_for_ever() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    fs::write(dir.path().join("f"), data(2_000_000)).unwrap();
    fake.doings().refuse = 3;
    let (exit, captured) = run(&fake, dir.path(), "dfs put {dir}/f f").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    assert!(fake.content("f").unwrap() == data(2_000_000));
    fake.doings().refuse = 100;
    let (exit, _) = run(&fake, dir.path(), "dfs put {dir}/f f").await;
    assert_eq!(exit, Exit::Unavailable);
    assert_eq!(fake.doings().refuse, 93);
}

#[tokio::test]
async fn i19_a_lost_answer_under_a_precondition_is_recognised_as_our_own_success() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    fs::write(dir.path().join("f"), "mine").unwrap();
    fake.doings().lose_answers = 1;
    let (exit, captured) = run(&fake, dir.path(), "dfs put --if-absent {dir}/f f").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    fs::write(dir.path().join("f"), "other").unwrap();
    let (exit, _) = run(&fake, dir.path(), "dfs put --if-absent {dir}/f f").await;
    assert_eq!(exit, Exit::Conflict);
    assert_eq!(fake.content("f").unwrap(), "mine");
}

#[tokio::test]
async fn standard_input_and_output_are_files_too() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    for length in [5, 2_500_000] {
        let (exit, captured) = dfs(&fake, dir.path(), "dfs put - x/y", &data(length)).await;
        assert_eq!(exit, Exit::Done, "{}", captured.stderr());
        for line in ["dfs get x/y -", "dfs cat x/y"] {
            let (exit, captured) = run(&fake, dir.path(), line).await;
            assert_eq!(exit, Exit::Done);
            assert!(captured.stdout_bytes() == data(length));
        }
    }
    let (exit, _) = run(&fake, dir.path(), "dfs put - x/").await;
    assert_eq!(exit, Exit::Usage);
}

#[tokio::test]
async fn listings_span_pages_and_tell_directories() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    for name in ["a/1", "a/2", "b", "c", "d", "e/f/g", "h"] {
        fake.store(name, "x");
    }
    let listed = async |line: &str| {
        let (exit, captured) = run(&fake, dir.path(), line).await;
        assert_eq!(exit, Exit::Done, "{line}: {}", captured.stderr());
        captured
            .stdout()
            .lines()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(listed("dfs ls -n").await, ["a/", "b", "c", "d", "e/", "h"]);
    assert_eq!(listed("dfs ls -n a").await, ["a/1", "a/2"]);
    assert_eq!(listed("dfs ls -n b").await, ["b"]);
    assert_eq!(listed("dfs ls -rn /").await.len(), 7);
    let json = listed("dfs ls -o json e/").await;
    assert_eq!(json, [r#"{"kind":"directory","path":"e/f/"}"#]);
}

#[tokio::test]
async fn copies_moves_and_deletions_follow_the_slash() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    for name in ["a/1", "a/b/2", "c"] {
        fake.store(name, name.to_owned());
    }
    for line in [
        "dfs cp c d",
        "dfs cp c e/",
        "dfs cp -r a copy",
        "dfs cp -r a into/",
    ] {
        assert_eq!(run(&fake, dir.path(), line).await.0, Exit::Done, "{line}");
    }
    assert_eq!(
        fake.paths(),
        [
            "a/1",
            "a/b/2",
            "c",
            "copy/1",
            "copy/b/2",
            "d",
            "e/c",
            "into/a/1",
            "into/a/b/2"
        ]
    );
    fake.doings().changes.clear();
    assert_eq!(
        run(&fake, dir.path(), "dfs mv a/ moved").await.0,
        Exit::Done
    );
    assert_eq!(run(&fake, dir.path(), "dfs mv c d e/").await.0, Exit::Done);
    assert_eq!(
        fake.doings().changes,
        ["move-from a/ moved/", "move-from c e/c", "move-from d e/d"]
    );
    assert_eq!(
        run(&fake, dir.path(), "dfs rm -r into copy/").await.0,
        Exit::Done
    );
    assert_eq!(fake.paths(), ["e/c", "e/d", "moved/1", "moved/b/2"]);
    assert_eq!(run(&fake, dir.path(), "dfs rm -r /").await.0, Exit::Usage);
    assert_eq!(run(&fake, dir.path(), "dfs cp c d x").await.0, Exit::Usage);
}

#[tokio::test]
async fn fsck_tells_findings_and_ends_in_its_verdict() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    let clean = r#"{"kind":"verdict","clean":true,"summary":"Clean: all is well.","files":3,"chunks":4,"findings":{}}"#;
    fake.doings().fsck = format!("{clean}\n");
    let (exit, captured) = run(&fake, dir.path(), "dfs fsck").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    assert!(captured.stdout().starts_with("Clean: all is well.\n"));
    let finding = r#"{"kind":"finding","problem":"missing","chunk":null,"path":"a/b","trash":null,"datanode":null,"detail":"no replica"}"#;
    let verdict = clean
        .replace("true", "false")
        .replace("{}", r#"{"missing":1}"#);
    fake.doings().fsck = format!("{finding}\n{verdict}");
    let (exit, captured) = run(&fake, dir.path(), "dfs fsck").await;
    assert_eq!(exit, Exit::Failed);
    assert!(
        captured.stdout().contains("MISSING"),
        "{}",
        captured.stdout()
    );
    assert!(
        captured.stdout().contains("NOT CLEAN"),
        "{}",
        captured.stdout()
    );
    fake.doings().fsck = format!("{finding}\n");
    let (exit, _) = run(&fake, dir.path(), "dfs fsck").await;
    assert_eq!(
        exit,
        Exit::Unavailable,
        "a stream without a verdict proves nothing"
    );
}

#[tokio::test]
async fn a_store_that_is_not_there_is_told_at_once_with_what_to_do() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    let mut nowhere = fake;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    nowhere.address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let (exit, captured) = run(&nowhere, dir.path(), "dfs ls").await;
    assert_eq!(exit, Exit::Unavailable);
    let told = captured.stderr();
    assert!(
        told.contains("cannot reach") && told.contains("--tracker"),
        "{told}"
    );
}

#[tokio::test]
async fn setrep_goes_through_every_page_and_waits_only_when_asked() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    let (exit, captured) = run(&fake, dir.path(), "dfs setrep 2 /a/").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    let (exit, captured) = run(&fake, dir.path(), "dfs setrep -w default b -o json").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    let told: serde_json::Value = serde_json::from_str(&captured.stdout()).unwrap();
    assert_eq!(
        (&told["path"], &told["chunks_to_go"]),
        (&"b".into(), &0.into())
    );
    assert_eq!(
        fake.doings().changes,
        [
            "POST a/?factor=2",
            "POST a/?factor=2&cursor=on",
            "POST b?factor=default",
            "GET b?factor",
            "GET b?factor",
        ]
    );
    for wrong in ["0", "8", "x"] {
        let words = ["dfs", "setrep", wrong, "a"].map(std::ffi::OsString::from);
        assert!(crate::args::parse(words.into()).is_err());
    }
}
