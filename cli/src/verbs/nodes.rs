//! `dfs nodes`, `dfs chunks`, `dfs decommission`, `dfs recommission`, `dfs lost`.

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_protocol::status::{DatanodeStatus, FileChunks, ReplicaDetail, ReplicaState};
use jiff::tz::TimeZone;

use crate::exit::{Exit, Failure};
use crate::human;
use crate::paths::RemotePath;
use crate::session::Session;

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

const NODE_HEAD: [&str; 9] = [
    "ID", "ADDRESS", "ZONE", "LIVENESS", "STATE", "USED", "FREE", "CHUNKS", "HEARD",
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

const fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Live => "live",
        Liveness::Suspect => "suspect",
        Liveness::Dead => "DEAD",
    }
}

fn state(node: &DatanodeStatus) -> String {
    let admin = match node.admin {
        AdminState::Pending => "pending",
        AdminState::InService => "in service",
        AdminState::Decommissioning => "decommissioning",
        AdminState::Decommissioned => "decommissioned",
        AdminState::Tombstoned => "tombstoned",
    };
    let mut text = admin.to_owned();
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
    if session.out.is_json() {
        session
            .out
            .json(&serde_json::json!({ "id": id, "done": "lost" }))?;
    } else {
        session.out.line(&format!(
            "datanode {} is deregistered for ever; what it held is copied from elsewhere",
            id.short()
        ))?;
    }
    Ok(Exit::Done)
}

/// `verb` is the route's last segment.
pub(super) async fn set(session: &Session, named: &str, verb: &str) -> Result<Exit, Failure> {
    let what = format!("{verb} {named}");
    let id = resolve(session, &what, named).await?;
    session
        .call(&what, || session.store.set_node(id, verb))
        .await?;
    if session.out.is_json() {
        session
            .out
            .json(&serde_json::json!({ "id": id, "done": verb }))?;
    } else if verb == "decommission" {
        let short = id.short();
        session.out.line(&format!(
            "datanode {short} is being emptied: `dfs nodes` shows how far, take it away only when \
             it is decommissioned"
        ))?;
    } else {
        session
            .out
            .line(&format!("datanode {} is back in service", id.short()))?;
    }
    Ok(Exit::Done)
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
