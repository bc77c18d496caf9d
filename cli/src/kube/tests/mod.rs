//! The plugin against a stand-in for kubectl and a store in this process.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::args::ClientArgs;
use crate::retry::RetryPolicy;
use crate::session::Session;
use crate::testing::Captured;
use crate::verbs::tests::fake::Fake;

struct Site {
    dir: tempfile::TempDir,
    fake: Fake,
}

impl Site {
    async fn new() -> Self {
        let site = Self {
            dir: tempfile::tempdir().unwrap(),
            fake: Fake::start().await,
        };
        site.write("clusters", "prod\n");
        site.write("token", &STANDARD.encode("\n fresh \nold\n"));
        site.write("port", site.fake.port());
        site
    }

    fn write(&self, name: &str, content: &str) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn parse(&self, line: &str) -> (KubeArgs, Command) {
        let mut argv: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        argv.push(format!("--kubeconfig={}", self.dir.path().display()).into());
        argv.push("--kubectl".into());
        argv.push(kubectl().into());
        parse(argv).unwrap()
    }

    async fn run(&self, line: &str) -> (Exit, Captured) {
        let (kube, command) = self.parse(line);
        let captured = Captured::default();
        let exit = run(&kube, command, captured.output()).await;
        self.no_child_is_left().await;
        (exit, captured)
    }

    async fn no_child_is_left(&self) {
        let wait = async {
            while self.lines("children").iter().any(|pid| is_alive(pid)) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(90), wait)
            .await
            .unwrap();
    }
}

fn kubectl() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/kube/tests/kubectl.sh")
}

/// Whether the process runs; one that ended and was not asked for yet does not.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn end(pid: &str) {
    let killed = std::process::Command::new("kill")
        .args(["-9", pid])
        .status();
    assert!(killed.unwrap().success());
}

#[tokio::test]
async fn files_go_through_the_gateway_and_administration_through_the_tracker_with_its_token() {
    let site = Site::new().await;
    site.fake.store("a/b", "content");
    for (line, forwarded, authorization) in [
        ("kubectl-dfs ls --names a", "service/prod-gateway :80", None),
        ("kubectl-dfs cat a/b", "service/prod-gateway :80", None),
        ("kubectl-dfs du", "service/prod-gateway :80", None),
        (
            "kubectl-dfs fsck",
            "service/prod-tracker :6000",
            Some("Bearer fresh"),
        ),
        (
            "kubectl-dfs events",
            "service/prod-tracker :6000",
            Some("Bearer fresh"),
        ),
    ] {
        site.write("calls", "");
        site.fake.doings().fsck =
            r#"{"kind":"verdict","clean":true,"summary":"Clean.","files":1,"chunks":1,"findings":{}}"#
                .to_owned();
        site.fake.doings().events = "[]".to_owned();
        let (exit, captured) = site.run(line).await;
        assert_eq!(exit, Exit::Done, "{line}: {}", captured.stderr());
        let calls = site.lines("calls").join("\n");
        assert!(
            calls.contains(&format!("port-forward {forwarded} --address=127.0.0.1")),
            "{calls}"
        );
        assert_eq!(
            calls.contains("get secret prod-token"),
            authorization.is_some(),
            "{calls}"
        );
        let sent = site.fake.doings().authorizations.pop().unwrap();
        assert_eq!(sent.as_deref(), authorization, "{line}");
    }
    let (_, top) = site.parse("kubectl-dfs top -n b");
    assert_eq!(Target::of(&top), Target::Tracker);
    assert!(!site.lines("children").is_empty());
}

#[tokio::test]
async fn namespace_context_and_cluster_reach_kubectl_wherever_they_stand() {
    let site = Site::new().await;
    for line in [
        "kubectl-dfs -n shop --context east --cluster big ls",
        "kubectl-dfs ls -n shop --context=east --cluster=big",
    ] {
        site.write("calls", "");
        let (exit, captured) = site.run(line).await;
        assert_eq!(exit, Exit::Done, "{}", captured.stderr());
        let calls = site.lines("calls");
        // Whoever names the cluster needs no right to list them.
        assert_eq!(calls.len(), 1, "{calls:?}");
        assert!(calls[0].contains("service/big-gateway"), "{calls:?}");
        assert!(
            calls[0].contains("--namespace=shop --context=east"),
            "{calls:?}"
        );
    }
}

#[tokio::test]
async fn what_stands_in_the_way_is_told_with_what_next() {
    let site = Site::new().await;
    let told = async |line: &str| {
        let (exit, captured) = site.run(line).await;
        assert!(
            captured.stderr().contains("next: "),
            "{}",
            captured.stderr()
        );
        (exit, captured.stderr())
    };
    site.write("clusters", "");
    let (exit, text) = told("kubectl-dfs -n shop ls").await;
    assert_eq!(exit, Exit::NotFound);
    assert!(
        text.contains("none in namespace shop") && text.contains("--all-namespaces"),
        "{text}"
    );
    site.write("clusters", "one\ntwo\n");
    let (exit, text) = told("kubectl-dfs ls").await;
    assert_eq!(exit, Exit::Usage);
    assert!(
        text.contains("one, two") && text.contains("--cluster"),
        "{text}"
    );
    site.write("clusters", "one\n");
    let forbidden = "Error from server (Forbidden): secrets \"one-token\" is forbidden: no";
    site.write("token.err", forbidden);
    let (exit, text) = told("kubectl-dfs nodes").await;
    assert_eq!(exit, Exit::Failed);
    assert!(
        text.contains("Secret one-token") && text.contains("ask for a Role"),
        "{text}"
    );
    assert!(site.lines("children").is_empty());
    site.write(
        "token.err",
        "Error from server (NotFound): secrets \"one-token\" not found",
    );
    site.fake.doings().fsck = "x".to_owned();
    let (_, text) = told("kubectl-dfs fsck").await;
    assert!(
        text.contains("cannot be understood"),
        "a cluster without a token: {text}"
    );
    assert_eq!(site.fake.doings().authorizations, [None]);
    site.write(
        "port.err",
        "Error from server (NotFound): services \"one-gateway\" not found",
    );
    let (exit, text) = told("kubectl-dfs ls").await;
    assert_eq!(exit, Exit::NotFound);
    assert!(text.contains("service one-gateway"), "{text}");
    let (mut kube, command) = site.parse("kubectl-dfs ls");
    kube.kubectl = "/nonexistent/kubectl".into();
    let captured = Captured::default();
    assert_eq!(run(&kube, command, captured.output()).await, Exit::Failed);
    assert!(
        captured.stderr().contains("install kubectl"),
        "{}",
        captured.stderr()
    );
}

#[tokio::test]
async fn a_forward_that_breaks_between_two_requests_is_made_anew() {
    let site = Site::new().await;
    let (kube, command) = site.parse("kubectl-dfs ls");
    let kubectl = Kubectl::new(&kube);
    let forward = Forward::begin(kubectl, "prod-gateway".to_owned(), 80)
        .await
        .unwrap();
    let forward = Arc::new(forward);
    let Command::Ls(args) = command else {
        unreachable!()
    };
    let session = session(&args.client, &forward);
    let top = dfs_protocol::PathPrefix::default();
    let list = || session.store.list(&top, false, None);
    site.fake.store("old", "x");
    assert_eq!(session.call("ls", list).await.unwrap().entries.len(), 1);
    // The pod goes: its connections and the child end, another pod listens elsewhere.
    let other = Fake::start().await;
    other.store("new/1", "x");
    other.store("new2", "x");
    site.write("port", other.port());
    let children = site.lines("children");
    end(&children[0]);
    drop(site.fake);
    assert_eq!(session.call("ls", list).await.unwrap().entries.len(), 2);
    let path = site.dir.path().join("children");
    let children = std::fs::read_to_string(path).unwrap();
    assert_eq!(children.lines().count(), 2);
    forward.stop().await;
    assert!(!children.lines().any(is_alive));
}

fn session(client: &ClientArgs, forward: &Arc<Forward>) -> Session {
    let retry = RetryPolicy {
        first_pause: Duration::from_millis(1),
        ..RetryPolicy::new(6)
    };
    let out = Captured::default().output();
    Session::with_retry(client, forward.clone(), out, retry).at(Door {
        address: "prod-gateway:80".to_owned(),
        tokens: Tokens::none(),
    })
}

#[tokio::test]
async fn a_verb_that_is_interrupted_leaves_no_child() {
    let site = Site::new().await;
    site.fake.doings().refuse = 1000;
    let (kube, command) = site.parse("kubectl-dfs ls --retries 50");
    let verb = run(&kube, command, Captured::default().output());
    let began = async {
        while site.fake.doings().refuse > 998 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        exit = verb => panic!("ended by itself: {exit:?}"),
        () = began => {}
    }
    assert_eq!(site.lines("children").len(), 1);
    site.no_child_is_left().await;
}

#[test]
fn the_binary_knows_what_it_is_called_and_the_definition_is_consistent() {
    let called = |name: &str| CalledAs::of(Some(&OsString::from(name)));
    assert_eq!(called("/usr/local/bin/kubectl-dfs"), CalledAs::Plugin);
    assert_eq!(called("kubectl_complete-dfs"), CalledAs::Completion);
    for name in ["dfs", "./dfs", "/opt/kubectl-dfs/dfs"] {
        assert_eq!(called(name), CalledAs::Dfs, "{name}");
    }
    assert_eq!(CalledAs::of(None), CalledAs::Dfs);
    command().debug_assert();
    for role in [
        "tracker",
        "datanode",
        "datanode-stop",
        "gateway",
        "dev",
        "meta",
        "completions",
    ] {
        assert!(
            parse(vec!["kubectl-dfs".into(), role.into()]).is_err(),
            "{role}"
        );
    }
    for verb in ["maintenance --for 1m ab", "decommission --wait-done ab"] {
        let words = format!("kubectl-dfs -n prod {verb}");
        let (_, command) = parse(words.split(' ').map(OsString::from).collect()).unwrap();
        assert_eq!(Target::of(&command), Target::Tracker, "{verb}");
    }
}

#[test]
fn tokens_are_read_from_the_secret_and_nothing_else_is() {
    let read = |text: &str| read_tokens(&STANDARD.encode(text)).and_then(|read| read.to_send());
    assert_eq!(read("\n one\ntwo").unwrap(), "Bearer one");
    for bad in ["", "\n \n", "a\u{7f}b", "ü"] {
        assert_eq!(read(bad), None, "{bad:?}");
    }
    assert!(read_tokens("not base64!").is_none());
}
