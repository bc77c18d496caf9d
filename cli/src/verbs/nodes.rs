//! `dfs nodes`, `dfs chunks`, `dfs decommission`, `dfs recommission`, `dfs maintenance`, `dfs lost`.

use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Liveness, WriteMode};
use dfs_protocol::status::{
    DatanodeStatus, FileChunks, RepairStatus, ReplicaDetail, ReplicaState, Verdict,
};
use jiff::tz::TimeZone;

use crate::args::{DecommissionArgs, MaintenanceArgs};
use crate::exit::{Exit, Failure};
use crate::human;
use crate::paths::RemotePath;
use crate::session::Session;

/// Between two looks how far an emptying is.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn nodes(session: &Session) -> Result<Exit, Failure> {
    let nodes = session.call("nodes", || session.store.nodes()).await?;
    if session.out.is_json() {
        session.out.json(&nodes)?;
    } else if nodes.is_empty() {
        session.out.line(
            "no datanode is registered; start one with `dfs datanode --port 6001 --tracker URL`",
        )?;
    } else {
        session.out.line(&node_table(&nodes, &TimeZone::system()))?;
    }
    Ok(Exit::Done)
}

const NODE_HEAD: [&str; 10] = [
    "ID", "ADDRESS", "ZONE", "LIVENESS", "STATE", "USED", "FREE", "CHUNKS", "WRITES", "HEARD",
];

fn node_table(nodes: &[DatanodeStatus], zone: &TimeZone) -> String {
    let rows: Vec<_> = nodes
        .iter()
        .map(|node| {
            let heard = node.last_heartbeat;
            vec![
                node.id.short(),
                or_dash(Some(&node.address)),
                or_dash(node.zone.as_ref()),
                if node.unreachable {
                    "UNREACHABLE".to_owned()
                } else {
                    liveness(node.liveness).to_owned()
                },
                state(node),
                human::bytes(node.stats.used_bytes),
                human::bytes(node.stats.free_bytes),
                human::thousands(node.stats.chunks),
                write_mode(node).to_owned(),
                heard.map_or_else(
                    || "never".to_owned(),
                    |time| {
                        time.to_zoned(zone.clone())
                            .strftime("%Y-%m-%d %H:%M:%S")
                            .to_string()
                    },
                ),
            ]
        })
        .collect();
    human::table(&NODE_HEAD, &rows)
}

fn or_dash(text: Option<&String>) -> String {
    text.filter(|text| !text.is_empty())
        .map_or_else(|| "-".to_owned(), Clone::clone)
}

/// How it writes large chunks, where it tells.
fn write_mode(node: &DatanodeStatus) -> &'static str {
    let mode = node.traffic.and_then(|traffic| traffic.write_mode);
    mode.map_or("-", WriteMode::as_str)
}

pub(super) const fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Live => "live",
        Liveness::Suspect => "suspect",
        Liveness::Dead => "DEAD",
    }
}

pub(super) fn state(node: &DatanodeStatus) -> String {
    let admin = match node.admin {
        AdminState::Pending => "pending",
        AdminState::InService => "in service",
        AdminState::Decommissioning => "decommissioning",
        AdminState::Decommissioned => "decommissioned",
        AdminState::Tombstoned => "tombstoned",
    };
    let mut text = admin.to_owned();
    if node.maintenance_until.is_some() {
        text.push_str(", announced as away");
    }
    if let Some(left) = node.chunks_remaining {
        text = format!("{text}, {} left", human::count(left, "chunk"));
    }
    if node.stats.read_only {
        text.push_str(", read-only");
    }
    text
}

pub(super) async fn chunks(session: &Session, path: &str) -> Result<Exit, Failure> {
    let path = RemotePath::parse(path);
    let what = format!("chunks {path}");
    let file = path
        .file()
        .map_err(|error| Failure::invalid_name(&what, &error))?;
    let chunks = session.call(&what, || session.store.chunks(&file)).await?;
    if session.out.is_json() {
        session.out.json(&chunks)?;
    } else {
        session.out.line(&chunk_lines(&chunks))?;
    }
    Ok(Exit::Done)
}

fn chunk_lines(file: &FileChunks) -> String {
    let mut lines = vec![format!(
        "{}  {}  {}, {} of each wanted",
        file.path,
        human::bytes(file.size),
        human::count(file.chunks.len() as u64, "chunk"),
        human::count(u64::from(file.factor), "replica"),
    )];
    for (index, detail) in file.chunks.iter().enumerate() {
        lines.push(format!(
            "\n  {index}  {}  version {}  {}  {}",
            detail.chunk.id,
            detail.chunk.version,
            human::bytes(detail.chunk.length),
            detail.health.as_str(),
        ));
        lines.extend(detail.replicas.iter().map(replica_line));
        if detail.replicas.is_empty() {
            lines.push("     no replica is known".to_owned());
        }
    }
    lines.join("\n")
}

fn replica_line(replica: &ReplicaDetail) -> String {
    let state = match replica.state {
        ReplicaState::Valid => "valid",
        ReplicaState::Stale => "STALE",
        ReplicaState::Corrupt => "CORRUPT",
        ReplicaState::Unreachable => "unreachable",
    };
    let (id, address) = (replica.datanode.short(), &replica.address);
    format!("     {id}  {address:<21}  {state}")
}

/// The datanode that is named by its id, the id's first digits or its address.
async fn resolve(session: &Session, what: &str, named: &str) -> Result<DatanodeId, Failure> {
    if let Ok(id) = named.parse() {
        return Ok(id);
    }
    let nodes = session.call(what, || session.store.nodes()).await?;
    find(&nodes, named)
        .map_err(|why| Failure::new(Exit::NotFound, what, why).next("`dfs nodes` shows them all"))
}

/// `dfs lost`.
pub(super) async fn lost(
    session: &Session,
    named: &str,
    accept_loss: bool,
) -> Result<Exit, Failure> {
    let what = format!("lost {named}");
    let id = resolve(session, &what, named).await?;
    session
        .call(&what, || session.store.lose(id, accept_loss))
        .await?;
    told(session, id, "lost", || {
        format!(
            "datanode {} is deregistered for ever; what it held is copied from elsewhere",
            id.short()
        )
    })
}

/// `dfs decommission`.
pub(super) async fn decommission(
    session: &Session,
    args: &DecommissionArgs,
) -> Result<Exit, Failure> {
    let named = &args.node.datanode;
    let (what, id) = set(session, named, "decommission").await?;
    let short = id.short();
    if args.wait_done {
        wait_done(session, &what, id).await?;
        return told(session, id, "decommission", || {
            format!("datanode {short} is decommissioned: every chunk is whole without it")
        });
    }
    told(session, id, "decommission", || {
        format!(
            "datanode {short} is being emptied: `dfs nodes` shows how far, take it away only when \
             it is decommissioned"
        )
    })
}

/// `dfs recommission`.
pub(super) async fn recommission(session: &Session, named: &str) -> Result<Exit, Failure> {
    let (_, id) = set(session, named, "recommission").await?;
    told(session, id, "recommission", || {
        format!("datanode {} is back in service", id.short())
    })
}

/// `dfs maintenance`.
pub(super) async fn maintenance(
    session: &Session,
    args: &MaintenanceArgs,
) -> Result<Exit, Failure> {
    let what = format!("maintenance {}", args.node.datanode);
    let id = resolve(session, &what, &args.node.datanode).await?;
    let away = (!args.end).then_some(args.away);
    session
        .call(&what, || session.store.maintain(id, away))
        .await?;
    let short = id.short();
    told(session, id, "maintenance", || match away {
        Some(away) => format!(
            "datanode {short} is announced as away for {}: nothing of it is copied meanwhile",
            human::seconds(away.as_secs())
        ),
        None => format!("datanode {short} is announced as back"),
    })
}

/// `verb` is the route's last segment. Returns what was done, for people, and to whom.
async fn set(session: &Session, named: &str, verb: &str) -> Result<(String, DatanodeId), Failure> {
    let what = format!("{verb} {named}");
    let id = resolve(session, &what, named).await?;
    session
        .call(&what, || session.store.set_node(id, verb))
        .await?;
    Ok((what, id))
}

fn told(
    session: &Session,
    id: DatanodeId,
    done: &str,
    sentence: impl FnOnce() -> String,
) -> Result<Exit, Failure> {
    if session.out.is_json() {
        session
            .out
            .json(&serde_json::json!({ "id": id, "done": done }))?;
    } else {
        session.out.line(&sentence())?;
    }
    Ok(Exit::Done)
}

/// Looks until it is decommissioned, and tells how far that is whenever that changes.
async fn wait_done(session: &Session, what: &str, id: DatanodeId) -> Result<(), Failure> {
    let mut before = String::new();
    loop {
        let nodes = session.call(what, || session.store.nodes()).await?;
        let admin = nodes
            .iter()
            .find(|node| node.id == id)
            .map(|node| node.admin);
        match admin {
            Some(AdminState::Decommissioning) => {}
            Some(AdminState::Decommissioned | AdminState::Tombstoned) => return Ok(()),
            Some(AdminState::InService | AdminState::Pending) | None => {
                let why = "somebody else took it back into service, or away";
                return Err(Failure::new(Exit::Conflict, what, why)
                    .next("`dfs nodes` shows how it is; `dfs events` what happened"));
            }
        }
        let verdict = session
            .call(what, || session.store.safe_to_remove(id))
            .await?;
        let status = session.call(what, || session.store.status()).await?;
        let now = progress(&verdict, &status.repair);
        if now != before {
            session.out.note(&now);
            before = now;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How far an emptying is. Bytes are those of all that the store copies now.
fn progress(verdict: &Verdict, repair: &RepairStatus) -> String {
    let eta = repair.eta_seconds.map_or_else(String::new, |seconds| {
        format!(", about {}", human::seconds(seconds))
    });
    format!(
        "{} left, {} to copy in the store{eta}: {}",
        human::count(verdict.chunk_count, "chunk"),
        human::bytes(repair.bytes_remaining),
        verdict.reason
    )
}

/// The one datanode whose id starts with `named`, or whose address it is.
fn find(nodes: &[DatanodeStatus], named: &str) -> Result<DatanodeId, String> {
    let lower = named.to_ascii_lowercase();
    let matching: Vec<_> = nodes
        .iter()
        .filter(|node| node.address == named || node.id.to_string().starts_with(&lower))
        .collect();
    match matching.as_slice() {
        [one] if !named.is_empty() => Ok(one.id),
        [] => Err("no datanode has that id or address".to_owned()),
        _ => Err(format!(
            "{} datanodes match: write more digits",
            matching.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::datanode as node;

    #[test]
    fn datanodes_are_found_by_their_first_digits_or_address() {
        let nodes = [node(0xab << 120, "h:1"), node(0xac << 120, "h:2")];
        assert_eq!(find(&nodes, "AB"), Ok(nodes[0].id));
        assert_eq!(find(&nodes, "h:2"), Ok(nodes[1].id));
        assert!(find(&nodes, "a").unwrap_err().contains("2 datanodes match"));
        assert!(find(&nodes, "ff").is_err());
        assert!(find(&nodes[..1], "").is_err());
    }

    #[test]
    fn the_table_shows_state_and_what_is_left_to_empty() {
        let mut leaving = node(0xab << 120, "h:1");
        leaving.admin = AdminState::Decommissioning;
        leaving.chunks_remaining = Some(12);
        leaving.liveness = Liveness::Dead;
        let text = node_table(&[leaving], &TimeZone::UTC);
        let row = text.lines().nth(1).unwrap();
        assert!(row.starts_with("ab000000  h:1"), "{text}");
        assert!(row.contains("DEAD"), "{text}");
        assert!(row.contains("decommissioning, 12 chunks left"), "{text}");
        assert!(row.ends_with("2026-05-04 03:02:01"), "{text}");
    }
}
