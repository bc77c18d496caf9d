//! `kubectl`, `helm` and `curl` as a person calls them, and waiting for what they show.

use std::fmt::Write as _;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How often a condition is looked at: each look is a process.
const LOOK: Duration = Duration::from_secs(1);

/// The top of the tree.
pub(crate) fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the tree")
        .to_owned()
}

/// What a program wrote that ended well.
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end: its output, or all it said.
pub(crate) fn run(program: &str, args: &[&str], stdin: Option<&str>) -> Result<String, String> {
    said(program, args, stdin).map(|said| said.stdout)
}

/// The same, for a program that tells on standard error what it waits for.
pub(crate) fn said(program: &str, args: &[&str], stdin: Option<&str>) -> Result<Said, String> {
    let told = |error: std::io::Error| format!("{program}: {error}");
    let mut child = Command::new(program)
        .args(args)
        .current_dir(tree())
        .stdin(if stdin.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(told)?;
    if let (Some(text), Some(mut pipe)) = (stdin, child.stdin.take()) {
        pipe.write_all(text.as_bytes()).map_err(told)?;
    }
    let ended = child.wait_with_output().map_err(told)?;
    let stdout = String::from_utf8_lossy(&ended.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
    if ended.status.success() {
        return Ok(Said { stdout, stderr });
    }
    Err(format!("{program} {}: {stderr}{stdout}", args.join(" ")))
}

/// `kubectl ARGS`.
pub(crate) fn kubectl(args: &[&str]) -> Result<String, String> {
    run("kubectl", args, None)
}

/// `kubectl apply` of a manifest, in a namespace.
pub(crate) fn apply(namespace: &str, manifest: &str) -> Result<String, String> {
    let args = ["apply", "-n", namespace, "-f", "-"];
    run("kubectl", &args, Some(manifest))
}

/// `kubectl get ARGS -o json`.
pub(crate) fn get(args: &[&str]) -> Result<Value, String> {
    let mut all = vec!["get", "-o", "json"];
    all.extend(args);
    let text = kubectl(&all)?;
    serde_json::from_str(&text).map_err(|error| format!("kubectl get {args:?}: {error}"))
}

/// Looks until `check` finds what it looks for, and tells how long that took.
///
/// # Panics
/// At the deadline, with the last reason.
pub(crate) async fn until<T, F>(what: &str, deadline: Duration, mut check: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    loop {
        match check().await {
            Ok(found) => {
                eprintln!("  {what}: after {:.0?}", start.elapsed());
                return found;
            }
            Err(reason) if start.elapsed() >= deadline => {
                panic!("{what}: not within {deadline:?}: {reason}")
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// SHA-256 of a file, by a tool that is not ours.
pub(crate) fn sha256sum(file: &Path) -> String {
    let told = run("sha256sum", &[&file.display().to_string()], None).unwrap();
    told[..64].to_owned()
}

/// A file of random bytes.
pub(crate) fn random_file(path: &Path, mib: u64) {
    let mut source = std::fs::File::open("/dev/urandom").unwrap();
    let mut source = std::io::Read::take(&mut source, mib << 20);
    let mut file = std::fs::File::create(path).unwrap();
    std::io::copy(&mut source, &mut file).unwrap();
}

/// Lines of `text`, each after four spaces.
pub(crate) fn indented(text: &str) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        // Writing to a string cannot fail.
        let _written = writeln!(all, "    {line}");
        all
    })
}

/// The number in a variable of the environment, or `otherwise`.
pub(crate) fn number(variable: &str, otherwise: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given
        .and_then(|text| text.parse().ok())
        .unwrap_or(otherwise)
}

/// MiB that the load writes before a scenario begins (`DFS_KUBE_LOAD_MIB`).
pub(crate) fn load_mib() -> u64 {
    number("DFS_KUBE_LOAD_MIB", 0)
}

/// What a variable of the environment says, if anything.
pub(crate) fn said_by(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|text| !text.is_empty())
}

/// Twice a size like `1Gi`.
pub(crate) fn doubled(size: &str) -> String {
    let digits = size.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().unwrap();
    format!("{}{}", 2 * number, &size[digits.len()..])
}

/// What can take pieces of the cluster away.
pub(crate) struct Hook(String);

/// The hook that `DFS_KUBE_HOOK` names; tells that it is missing.
pub(crate) fn hook(what: &str) -> Option<Hook> {
    let named = std::env::var("DFS_KUBE_HOOK").ok();
    let named = named.filter(|program| !program.is_empty());
    if named.is_none() {
        eprintln!("skipped: {what} needs DFS_KUBE_HOOK");
    }
    named.map(Hook)
}

impl Hook {
    /// `HOOK ARGS`.
    pub(crate) fn run(&self, args: &[&str]) {
        eprintln!("  {}", args.join(" "));
        run(&self.0, args, None).unwrap();
    }
}

/// A text in an object; empty where there is none.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
