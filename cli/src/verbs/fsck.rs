//! `dfs fsck`: findings as they come, one verdict at the end.

use bytes::{Buf as _, BytesMut};
use dfs_client::ClientError;
use dfs_protocol::status::{FsckFinding, FsckLine, FsckProblem, FsckVerdict};
use http_body_util::BodyExt as _;

use crate::exit::{Exit, Failure};
use crate::human;
use crate::session::Session;

/// Longest line that is read.
const LONGEST_LINE: usize = 1024 * 1024;
/// Between two pieces of the answer the whole store may have to be looked at.
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(10);

pub(super) async fn fsck(session: &Session) -> Result<Exit, Failure> {
    let mut body = session.call("fsck", || session.store.fsck()).await?;
    let mut buffer = BytesMut::new();
    let mut verdict = None;
    loop {
        let frame = match tokio::time::timeout(PATIENCE, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(broken(session, error.to_string())),
            Err(_) => return Err(broken(session, "no line came for ten minutes".to_owned())),
        };
        if let Ok(data) = frame.into_data() {
            buffer.extend_from_slice(&data);
        }
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(end);
            buffer.advance(1);
            read_line(session, &line, &mut verdict)?;
        }
        if buffer.len() > LONGEST_LINE {
            return Err(malformed("a line has no end"));
        }
    }
    read_line(session, &buffer, &mut verdict)?;
    match verdict {
        Some(true) => Ok(Exit::Done),
        Some(false) => Ok(Exit::Failed),
        None => Err(broken(session, "the verdict is missing".to_owned())),
    }
}

fn read_line(session: &Session, line: &[u8], verdict: &mut Option<bool>) -> Result<(), Failure> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let parsed: FsckLine =
        serde_json::from_slice(line).map_err(|error| malformed(&error.to_string()))?;
    if session.out.is_json() {
        session.out.json(&parsed)?;
    }
    match parsed {
        FsckLine::Finding(finding) => {
            if !session.out.is_json() {
                session.out.line(&describe(&finding))?;
            }
        }
        FsckLine::Verdict(end) => {
            *verdict = Some(end.clean);
            if !session.out.is_json() {
                session.out.line(&conclude(&end))?;
            }
        }
    }
    Ok(())
}

fn describe(finding: &FsckFinding) -> String {
    let mut text = format!("{:<16}", word(finding.problem));
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text = format!("{text}  {name}{value}");
        }
    };
    add("", finding.path.as_ref().map(human::quoted));
    add("chunk ", finding.chunk.map(|id| id.to_string()));
    add("trash ", finding.trash.map(|id| id.to_string()));
    add("on ", finding.datanode.map(dfs_protocol::DatanodeId::short));
    format!("{text}  {}", finding.detail)
}

const fn word(problem: FsckProblem) -> &'static str {
    match problem {
        FsckProblem::Missing => "MISSING",
        FsckProblem::UnderReplicated => "under-replicated",
        FsckProblem::OverReplicated => "over-replicated",
        FsckProblem::MisReplicated => "mis-replicated",
        FsckProblem::Corrupt => "CORRUPT",
        FsckProblem::Stale => "stale",
        FsckProblem::Orphan => "orphan",
        FsckProblem::Dangling => "DANGLING",
        FsckProblem::Miscounted => "MISCOUNTED",
    }
}

fn conclude(verdict: &FsckVerdict) -> String {
    // A clean store's sentence says so itself.
    let mark = if verdict.clean { "" } else { "NOT CLEAN: " };
    let found = verdict.findings.iter().filter(|(_, count)| **count > 0);
    let found: Vec<_> = found
        .map(|(problem, count)| format!("{} {}", human::thousands(*count), word(*problem)))
        .collect();
    let mut text = format!("{mark}{}", verdict.summary);
    if !found.is_empty() {
        text = format!("{text}\n  {}", found.join(", "));
    }
    text
}

fn broken(session: &Session, detail: String) -> Failure {
    let error = ClientError::Unreachable {
        address: session.store.address().to_owned(),
        detail,
    };
    Failure::request("fsck", &error).next("run it again: nothing is known of what was not reported")
}

fn malformed(detail: &str) -> Failure {
    Failure::new(
        Exit::Failed,
        "fsck",
        format!("the answer cannot be understood: {detail}"),
    )
    .next("check that dfs and the store have compatible versions")
}
