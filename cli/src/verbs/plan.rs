//! `dfs plan`, `dfs proof`: what would be, and what is safe. Nothing changes.

use dfs_protocol::FilePath;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::plan::{PlanAnswer, PlanQuestion, PlannedDatanode, Proof};
use dfs_protocol::status::Verdict;

use crate::args::PlanCommand;
use crate::exit::{Exit, Failure};
use crate::human;
use crate::session::Session;

/// Chunks and files that are shown of each list.
const SHOWN: usize = 10;

pub(super) async fn plan(session: &Session, command: PlanCommand) -> Result<Exit, Failure> {
    let (what, question) = match command {
        PlanCommand::Lose { client: _, nodes } => (
            format!("plan lose {}", nodes.join(" ")),
            PlanQuestion::Lose(nodes),
        ),
        PlanCommand::Scale {
            client: _,
            datanodes,
        } => (
            format!("plan scale {datanodes}"),
            PlanQuestion::Scale(datanodes),
        ),
    };
    let ask = || session.store.plan(&question);
    let answer = session.call(&what, ask).await?;
    if session.out.is_json() {
        session.out.json(&answer)?;
    } else {
        session.out.line(&plan_lines(&answer).join("\n"))?;
    }
    Ok(Exit::Done)
}

/// Exit code 1 when it may not go for ever, so that scripts can wait for it.
pub(super) async fn proof(session: &Session, named: &str) -> Result<Exit, Failure> {
    let what = format!("proof {named}");
    let proof = session.call(&what, || session.store.proof(named)).await?;
    if session.out.is_json() {
        session.out.json(&proof)?;
    } else {
        session.out.line(&proof_lines(&proof).join("\n"))?;
    }
    Ok(if proof.may_go.safe {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn plan_lines(answer: &PlanAnswer) -> Vec<String> {
    let mut lines = vec![answer.summary.clone(), String::new()];
    let mut field = |name: &str, value: String| lines.push(format!("  {name:<12} {value}"));
    let gone: Vec<_> = answer.gone.iter().map(shown).collect();
    if !gone.is_empty() {
        field("would go", gone.join(", "));
    }
    field(
        "would stay",
        human::count(u64::from(answer.left), "datanode"),
    );
    let chunks = |count: u64| human::count(count, "chunk");
    field("unreadable", chunks(answer.missing));
    field("too few", chunks(answer.under_replicated));
    let time = match answer.eta_seconds {
        _ if answer.bytes_to_copy == 0 => String::new(),
        None => ", no rate is known yet".to_owned(),
        Some(seconds) => format!(", about {}", human::seconds(seconds)),
    };
    field(
        "to copy",
        format!("{}{time}", human::bytes(answer.bytes_to_copy)),
    );
    let room = answer.room;
    let takers = human::count(u64::from(room.datanodes), "datanode");
    field("room", format!("{} on {takers}", human::bytes(room.bytes)));
    field("spread", answer.spread.sentence.clone());
    let again = if answer.full_factor_again {
        "yes"
    } else {
        "NO"
    };
    field("whole again", again.to_owned());
    lines.extend(answer.obstacles.iter().map(|why| format!("  ! {why}")));
    let ids: Vec<_> = answer
        .missing_chunks
        .iter()
        .map(ToString::to_string)
        .collect();
    lines.extend(list("chunks that would be lost", &ids, answer.missing));
    lines.extend(file_list(&answer.missing_files, answer.files_searched));
    lines
}

fn proof_lines(proof: &Proof) -> Vec<String> {
    let state = match proof.admin {
        AdminState::Pending => "pending",
        AdminState::InService => "in service",
        AdminState::Decommissioning => "decommissioning",
        AdminState::Decommissioned => "decommissioned",
        AdminState::Tombstoned => "tombstoned",
    };
    let mut lines = vec![
        format!("{}, {state}", shown(&proof.datanode)),
        String::new(),
    ];
    for (question, verdict) in [
        ("may it stop for a while?", &proof.may_stop),
        ("may it go for ever?", &proof.may_go),
    ] {
        let answer = if verdict.safe { "yes" } else { "NO" };
        lines.push(format!("  {question:<25} {answer}: {}", verdict.reason));
    }
    // What may not stop may not go either: the longer list holds both.
    let Verdict {
        chunks,
        chunk_count,
        ..
    } = if proof.may_go.chunks.is_empty() {
        &proof.may_stop
    } else {
        &proof.may_go
    };
    let ids: Vec<_> = chunks.iter().map(ToString::to_string).collect();
    lines.extend(list("chunks in the way", &ids, *chunk_count));
    lines.extend(file_list(&proof.files, proof.files_searched));
    lines
}

/// By the name that people know it by, and its id.
fn shown(node: &PlannedDatanode) -> String {
    let PlannedDatanode {
        id,
        address,
        pod,
        host,
    } = node;
    let name = pod.as_ref().unwrap_or(address);
    match host {
        Some(host) => format!("{name} on {host} ({})", id.short()),
        None => format!("{name} ({})", id.short()),
    }
}

fn file_list(files: &[FilePath], searched: bool) -> Vec<String> {
    let names: Vec<_> = files.iter().map(human::quoted).collect();
    let mut lines = list("in files", &names, files.len() as u64);
    if !searched {
        lines.push("    the catalog is large: not every file was looked at".to_owned());
    }
    lines
}

/// The first of them, and how many more there are.
fn list(title: &str, items: &[String], count: u64) -> Vec<String> {
    if items.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new(), format!("  {title}")];
    let shown = items.iter().take(SHOWN);
    lines.extend(shown.map(|item| format!("    {item}")));
    let more = count.saturating_sub(items.len().min(SHOWN) as u64);
    if more > 0 {
        lines.push(format!("    and {} more", human::thousands(more)));
    }
    lines
}

#[cfg(test)]
mod tests {
    use dfs_protocol::plan::Room;
    use dfs_protocol::status::SpreadStatus;
    use dfs_protocol::{ChunkId, DatanodeId};

    use super::*;

    fn node() -> PlannedDatanode {
        PlannedDatanode {
            id: DatanodeId::from_u128(0xab << 120),
            address: "h:1".to_owned(),
            pod: Some("s-datanode-2".to_owned()),
            host: Some("node-2".to_owned()),
        }
    }

    #[test]
    fn a_plan_reads_from_the_sentence_to_the_files() {
        let answer = PlanAnswer {
            summary: "Data would be lost.".to_owned(),
            gone: vec![node()],
            left: 2,
            missing: 12,
            missing_chunks: (0..12).map(ChunkId::from_u128).collect(),
            missing_files: vec![FilePath::parse("a b").unwrap()],
            files_searched: true,
            under_replicated: 3,
            bytes_to_copy: 1 << 30,
            room: Room {
                datanodes: 2,
                bytes: 1 << 40,
                enough: true,
            },
            spread: SpreadStatus::default(),
            copy_rate: None,
            eta_seconds: None,
            full_factor_again: false,
            obstacles: vec!["3 replicas wanted, 2 datanodes would be left".to_owned()],
        };
        let text = plan_lines(&answer).join("\n");
        assert!(text.starts_with("Data would be lost.\n"), "{text}");
        for part in [
            "would go     s-datanode-2 on node-2 (ab000000)",
            "unreadable   12 chunks",
            "no rate is known yet",
            "whole again  NO",
            "! 3 replicas wanted",
            "and 2 more",
            "in files",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_proof_tells_both_verdicts_and_what_is_in_the_way() {
        let safe = Verdict {
            safe: true,
            reason: "every chunk is safe without it".to_owned(),
            chunks: Vec::new(),
            chunk_count: 0,
        };
        let unsafe_ = Verdict {
            safe: false,
            reason: "1 chunks would not have their full replication factor".to_owned(),
            chunks: vec![ChunkId::from_u128(7)],
            chunk_count: 1,
        };
        let proof = Proof {
            datanode: node(),
            admin: AdminState::InService,
            may_stop: safe,
            may_go: unsafe_,
            files: vec![FilePath::parse("x/y").unwrap()],
            files_searched: false,
        };
        let text = proof_lines(&proof).join("\n");
        assert!(
            text.starts_with("s-datanode-2 on node-2 (ab000000), in service"),
            "{text}"
        );
        assert!(
            text.contains("may it stop for a while?  yes: every"),
            "{text}"
        );
        assert!(
            text.contains("may it go for ever?       NO: 1 chunks"),
            "{text}"
        );
        assert!(text.contains("not every file was looked at"), "{text}");
    }
}
