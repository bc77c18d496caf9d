//! Patterns, sums, trees and events.

use super::*;

async fn lines(fake: &Fake, dir: &Path, line: &str) -> Vec<String> {
    let (exit, captured) = run(fake, dir, line).await;
    assert_eq!(exit, Exit::Done, "{line}: {}", captured.stderr());
    captured.stdout().lines().map(str::to_owned).collect()
}

async fn photos() -> (Fake, tempfile::TempDir) {
    let fake = Fake::start().await;
    for (name, length) in [
        ("a.jpg", 1),
        ("p/2023/a.jpg", 1000),
        ("p/2023/b.png", 20),
        ("p/2024/a.jpg", 300),
        ("p/2024/deep/er/c.jpg", 4000),
        ("p/x.jpg", 5),
        ("p/y.jpg", 6),
        ("p/z.txt", 7),
        ("q/1", 8),
        ("q/2", 9),
        ("q/3", 10),
        ("q/4", 11),
    ] {
        fake.store(name, data(length));
    }
    (fake, tempfile::tempdir().unwrap())
}

#[tokio::test]
async fn patterns_list_what_matches_across_pages() {
    let (fake, dir) = photos().await;
    for (pattern, expected) in [
        ("*", &["a.jpg", "p/", "q/"][..]),
        ("*/", &["p/", "q/"]),
        ("*.jpg", &["a.jpg"]),
        ("p/[xy].jpg", &["p/x.jpg", "p/y.jpg"]),
        ("p/20??/a.jpg", &["p/2023/a.jpg", "p/2024/a.jpg"]),
        ("*/*/*.png", &["p/2023/b.png"]),
        ("q/[!2]", &["q/1", "q/3", "q/4"]),
        (
            "**/*.jpg",
            &[
                "a.jpg",
                "p/2023/a.jpg",
                "p/2024/a.jpg",
                "p/2024/deep/er/c.jpg",
                "p/x.jpg",
                "p/y.jpg",
            ],
        ),
        ("p/**/deep", &["p/2024/deep/"]),
        (
            "p/2024/**",
            &[
                "p/2024/a.jpg",
                "p/2024/deep/",
                "p/2024/deep/er/",
                "p/2024/deep/er/c.jpg",
            ],
        ),
        ("p/**/er/*", &["p/2024/deep/er/c.jpg"]),
        (
            "p/*/**/*.jpg",
            &["p/2023/a.jpg", "p/2024/a.jpg", "p/2024/deep/er/c.jpg"],
        ),
    ] {
        let listed = lines(&fake, dir.path(), &format!("dfs ls -n {pattern}")).await;
        assert_eq!(listed, expected, "{pattern}");
    }
    let listed = lines(&fake, dir.path(), "dfs ls -rn p/20*").await;
    assert_eq!(
        listed,
        [
            "p/2023/a.jpg",
            "p/2023/b.png",
            "p/2024/a.jpg",
            "p/2024/deep/er/c.jpg"
        ]
    );
    // What cannot match is not read.
    fake.doings().listings.clear();
    lines(&fake, dir.path(), "dfs ls -n p/2023/*.png").await;
    let looked = fake.doings().listings.clone();
    assert!(
        looked.iter().all(|prefix| prefix.starts_with("p/2023/")),
        "{looked:?}"
    );
}

#[tokio::test]
async fn a_name_that_exists_wins_over_what_it_would_match_and_a_backslash_over_both() {
    let (fake, dir) = photos().await;
    for name in ["[x]", "x", "d*/1", "dd/2", "w\\*", "w*", "ww"] {
        fake.store(name, "x");
    }
    assert_eq!(lines(&fake, dir.path(), "dfs ls -n [x]").await, ["[x]"]);
    assert_eq!(lines(&fake, dir.path(), "dfs ls -n d*").await, ["d*/1"]);
    assert_eq!(
        lines(&fake, dir.path(), "dfs ls -n d?").await,
        ["d*/", "dd/"]
    );
    assert_eq!(lines(&fake, dir.path(), "dfs ls -n [w]\\*").await, ["w*"]);
    assert_eq!(run(&fake, dir.path(), "dfs rm w*").await.0, Exit::Done);
    assert!(fake.content("ww").is_some() && fake.content("w*").is_none());
    assert_eq!(lines(&fake, dir.path(), "dfs ls -n w\\*").await, ["w\\*"]);
}

#[tokio::test]
async fn patterns_get_files_under_their_paths_from_the_wildcard_on() {
    let (fake, dir) = photos().await;
    let (exit, captured) = run(&fake, dir.path(), "dfs get p/**/a.jpg {dir}/out/").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    let size = |path: &str| fs::metadata(dir.path().join(path)).unwrap().len();
    assert_eq!(
        (size("out/2023/a.jpg"), size("out/2024/a.jpg")),
        (1000, 300)
    );
    run(&fake, dir.path(), "dfs get p/2023/* {dir}/flat/").await;
    assert_eq!(names(&dir.path().join("flat")), ["a.jpg", "b.png"]);
    run(&fake, dir.path(), "dfs get -r p/20* {dir}/whole/").await;
    assert_eq!(size("whole/2024/deep/er/c.jpg"), 4000);
    let (exit, _) = run(&fake, dir.path(), "dfs get p/*.jpg {dir}/name").await;
    assert_eq!(exit, Exit::Usage, "several files cannot become one");
    let (exit, captured) = run(&fake, dir.path(), "dfs cat p/[xy].jpg").await;
    assert_eq!((exit, captured.stdout_bytes().len()), (Exit::Done, 11));
}

#[tokio::test]
async fn patterns_remove_what_matches_and_nothing_else() {
    let (fake, dir) = photos().await;
    for line in [
        "dfs rm *",
        "dfs rm -r **",
        "dfs rm -rf */*",
        "dfs rm a.jpg *",
    ] {
        assert_eq!(run(&fake, dir.path(), line).await.0, Exit::Usage, "{line}");
    }
    assert_eq!(fake.paths().len(), 12);
    let (exit, captured) = run(&fake, dir.path(), "dfs rm p/*").await;
    assert_eq!(exit, Exit::Done, "{}", captured.stderr());
    assert!(
        captured.stdout().contains("removed 3 files"),
        "{}",
        captured.stdout()
    );
    assert_eq!(run(&fake, dir.path(), "dfs rm p/*/").await.0, Exit::Usage);
    assert_eq!(fake.paths().len(), 9);
    assert_eq!(run(&fake, dir.path(), "dfs rm -r p/**").await.0, Exit::Done);
    assert_eq!(fake.paths(), ["a.jpg", "q/1", "q/2", "q/3", "q/4"]);
}

#[tokio::test]
async fn a_pattern_that_matches_nothing_ends_with_code_3() {
    let (fake, dir) = photos().await;
    for line in [
        "dfs ls no*",
        "dfs ls **/no",
        "dfs get no/* {dir}/x/",
        "dfs cat *.none",
        "dfs stat p/20*",
        "dfs rm no*",
        "dfs du no*",
    ] {
        let (exit, captured) = run(&fake, dir.path(), line).await;
        assert_eq!(exit, Exit::NotFound, "{line}: {}", captured.stderr());
        assert!(captured.stderr().contains("match"), "{}", captured.stderr());
    }
    assert_eq!(run(&fake, dir.path(), "dfs rm -f no*").await.0, Exit::Done);
    let (exit, _) = run(&fake, dir.path(), &format!("dfs ls {}", "*/".repeat(40))).await;
    assert_eq!(exit, Exit::Usage);
}

#[tokio::test]
async fn du_sums_directories_as_deep_as_asked() {
    let (fake, dir) = photos().await;
    let du = async |line: &str| -> Vec<(String, String)> {
        let told = lines(&fake, dir.path(), line).await;
        let split = |line: &String| {
            line.trim()
                .rsplit_once("  ")
                .map(|(size, path)| (size.to_owned(), path.to_owned()))
        };
        told.iter().map(|line| split(line).unwrap()).collect()
    };
    let pair = |size: &str, path: &str| (size.to_owned(), path.to_owned());
    assert_eq!(
        du("dfs du -b").await,
        [
            pair("1020", "p/2023/"),
            pair("4000", "p/2024/deep/er/"),
            pair("4000", "p/2024/deep/"),
            pair("4300", "p/2024/"),
            pair("5338", "p/"),
            pair("38", "q/"),
            pair("5377", "/"),
        ]
    );
    assert_eq!(du("dfs du -bs p").await, [pair("5338", "p/")]);
    assert_eq!(du("dfs du --depth 1 -h p").await.len(), 3);
    assert_eq!(
        du("dfs du -b p/x.jpg q").await,
        [pair("5", "p/x.jpg"), pair("38", "q/")]
    );
    assert_eq!(du("dfs du -bs p/*").await.len(), 5);
    let json = lines(&fake, dir.path(), "dfs du -s -o json q/").await;
    assert_eq!(json, [r#"{"path":"q/","bytes":38,"files":4}"#]);
    for line in ["dfs du no", "dfs du no/"] {
        assert_eq!(run(&fake, dir.path(), line).await.0, Exit::NotFound);
    }
    let empty = Fake::start().await;
    assert_eq!(
        lines(&empty, dir.path(), "dfs du").await,
        ["         0 B  /"]
    );
}

#[tokio::test]
async fn tree_draws_what_nests_and_stops_where_it_is_told() {
    let (fake, dir) = photos().await;
    assert_eq!(
        lines(&fake, dir.path(), "dfs tree -b p").await,
        [
            "p/",
            "├── 2023/",
            "│   ├── a.jpg  1000",
            "│   └── b.png  20",
            "├── 2024/",
            "│   ├── a.jpg  300",
            "│   └── deep/",
            "│       └── er/",
            "│           └── c.jpg  4000",
            "├── x.jpg  5",
            "├── y.jpg  6",
            "└── z.txt  7",
            "",
            "4 directories, 7 files, 5.2 KiB",
        ]
    );
    fake.doings().listings.clear();
    let told = lines(&fake, dir.path(), "dfs tree --depth 1").await;
    assert_eq!(told[1..4], ["├── a.jpg  1 B", "├── p/", "└── q/"]);
    assert!(told[5].ends_with("; 2 not looked into"), "{told:?}");
    assert!(fake.doings().listings.iter().all(String::is_empty));
    assert_eq!(
        lines(&fake, dir.path(), "dfs tree -o json q").await.len(),
        4
    );
    assert_eq!(lines(&fake, dir.path(), "dfs tree q/1").await, ["q/1  8 B"]);
    for line in ["dfs tree no", "dfs tree no/"] {
        assert_eq!(run(&fake, dir.path(), line).await.0, Exit::NotFound);
    }
}

fn event(id: u64) -> String {
    format!(
        r#"{{"id":{id},"at":"2026-05-04T03:02:01Z","kind":"datanode-dead","datanode":null,"detail":"Thing {id}."}}"#
    )
}

#[tokio::test]
async fn events_are_told_once_and_followed_over_broken_streams() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    fake.doings().events = format!("[{},{}]", event(3), event(4));
    let told = lines(&fake, dir.path(), "dfs events --since 2").await;
    assert!(
        told.len() == 2 && told[1].ends_with("datanode-dead         Thing 4.  (4)"),
        "{told:?}"
    );
    let stream = |ids: &[u64]| -> String {
        let one = |id: &u64| format!("id: {id}\nevent: datanode-dead\ndata: {}\n\n", event(*id));
        ids.iter().map(one).collect()
    };
    fake.doings().changes.clear();
    // The last piece is not complete; afterwards every stream is empty.
    let broken = format!("retry: 1\n\n{}id: 7\ndata: {{", stream(&[5, 6]));
    fake.doings().events = format!("{broken}\0{}\0", stream(&[7]));
    let (exit, captured) = run(&fake, dir.path(), "dfs events -f -o json --retries 2").await;
    assert_eq!(exit, Exit::Unavailable);
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let told: Vec<_> = captured.stdout().lines().map(read).collect();
    assert_eq!(told, [5, 6, 7].map(|id| read(&event(id))));
    let asked = fake.doings().changes.clone();
    assert_eq!(
        asked[..3],
        ["GET /events?", "GET /events?since=6", "GET /events?since=7"]
    );
    assert!(
        captured.stderr().contains("the stream ended"),
        "{}",
        captured.stderr()
    );
}
