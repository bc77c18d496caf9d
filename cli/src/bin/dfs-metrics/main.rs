//! Prints docs/metrics.md from the registries of the roles and from whoever asks for their metrics:
//! `make generate` writes it. Fails when an alert, a rule or a dashboard asks for what no role has, and
//! when a metric has neither a use nor a reason why it has none.

mod page;
mod registries;
mod uses;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use uses::Asked;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let families = registries::families()?;
    let asked = Asked::read(&root())?;
    let problems = uses::problems(&families, &asked);
    if !problems.is_empty() {
        let mut err = std::io::stderr().lock();
        writeln!(err, "{}", problems.join("\n"))?;
        return Ok(ExitCode::FAILURE);
    }
    let mut out = std::io::stdout().lock();
    out.write_all(page::render(&families, &asked).as_bytes())?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use prometheus::TextEncoder;

    use super::*;

    /// What promtool says of a process's metrics; nothing when it finds no fault. None where it is not
    /// installed.
    fn faults(text: &str) -> Option<String> {
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut promtool = promtool.ok()?;
        let mut input = promtool.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        drop(input);
        let said = promtool.wait_with_output().unwrap();
        let faults = [said.stdout, said.stderr].concat();
        assert!(said.status.success() || !faults.is_empty());
        Some(String::from_utf8_lossy(&faults).into_owned())
    }

    #[test]
    fn promtool_finds_no_fault_with_what_any_process_says() {
        for (role, registry) in registries::registries().unwrap() {
            let text = TextEncoder::new().encode_to_string(&registry.gather());
            let text = text.unwrap();
            assert!(text.contains("dfs_build_info"), "{role}: {text}");
            // Debian has it in the package `prometheus`.
            if let Some(faults) = faults(&text) {
                assert_eq!(faults, "", "{role}");
            }
        }
        if let Some(faults) = faults("# TYPE dfs_x_milliseconds counter\ndfs_x_milliseconds 1\n") {
            assert_ne!(faults, "", "promtool does not look");
        }
    }

    #[test]
    fn the_page_of_metrics_is_what_the_registries_say_and_every_use_is_of_a_metric_that_exists() {
        let families = registries::families().unwrap();
        let asked = Asked::read(&root()).unwrap();
        let problems = uses::problems(&families, &asked);
        assert!(problems.is_empty(), "{}", problems.join("\n"));
        let page = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
        assert!(
            page == page::render(&families, &asked),
            "docs/metrics.md is not what the registries say: run make generate"
        );
    }
}
