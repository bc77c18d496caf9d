//! What-if: the store without some datanodes, or with another number of them. And the proof whether
//! one may go.

use serde::{Deserialize, Serialize};

use crate::datanode::AdminState;
use crate::ids::{ChunkId, DatanodeId};
use crate::path::FilePath;
use crate::status::{SpreadStatus, Verdict};

/// Most datanodes that one question names or asks for.
pub const MAX_PLANNED: usize = 10_000;

/// What is asked: `GET /plan?lose=A,B` or `?scale=N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanQuestion {
    /// These are gone for ever, all at once. Ids, their first digits, `HOST:PORT`s, pods, or hosts
    /// (Kubernetes nodes): then every datanode on it.
    Lose(Vec<String>),
    /// So many datanodes in service; those that are too many are emptied first.
    Scale(u32),
}

/// What would be. An estimate from what is known now; nothing changes by asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanAnswer {
    /// All of it in one sentence or two.
    pub summary: String,
    /// Datanodes that would go.
    pub gone: Vec<PlannedDatanode>,
    /// Datanodes that would be in service and heard.
    pub left: u32,
    /// Chunks that no datanode would be left to read from, those that have none now included.
    pub missing: u64,
    /// Those that have one now, at most 100.
    pub missing_chunks: Vec<ChunkId>,
    /// Files that name one of `missing_chunks`, by path.
    pub missing_files: Vec<FilePath>,
    /// Whether every file was looked at for that: large catalogs are searched in part.
    pub files_searched: bool,
    /// Chunks that could be read and would have fewer replicas than wanted until they are copied.
    pub under_replicated: u64,
    /// Bytes to copy until every chunk has what it can have.
    pub bytes_to_copy: u64,
    /// Where there is room for that.
    pub room: Room,
    /// Whether the replicas could be spread as wanted.
    pub spread: SpreadStatus,
    /// Bytes a second that repair copies now, or may copy off leaving datanodes; none when neither
    /// is known.
    pub copy_rate: Option<u64>,
    /// Seconds until the copies are made at that rate.
    pub eta_seconds: Option<u64>,
    /// Whether every chunk that can be read would come to its full factor again.
    pub full_factor_again: bool,
    /// Why not, and what else is in the way.
    pub obstacles: Vec<String>,
}

/// Room on the datanodes that stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Room {
    /// Datanodes that take chunks.
    pub datanodes: u32,
    /// Bytes that they may take before the fullest turn read-only.
    pub bytes: u64,
    /// Whether that is enough for `bytes_to_copy`.
    pub enough: bool,
}

/// A datanode by all its names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedDatanode {
    /// Identity.
    pub id: DatanodeId,
    /// `host:port`.
    pub address: String,
    /// Kubernetes pod.
    pub pod: Option<String>,
    /// Kubernetes node.
    pub host: Option<String>,
}

/// `GET /nodes/{name}/proof`: both verdicts of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Who.
    pub datanode: PlannedDatanode,
    /// What the administrator wants of it.
    pub admin: AdminState,
    /// May it stop for a while and come back?
    pub may_stop: Verdict,
    /// May it go for ever?
    pub may_go: Verdict,
    /// Files of the chunks that the verdicts name, by path.
    pub files: Vec<FilePath>,
    /// Whether every file was looked at for that.
    pub files_searched: bool,
}

/// Why a name does not name datanodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NamingError {
    /// Nothing has it.
    #[error("no datanode has `{name}` as its id, address, pod or host")]
    Nobody {
        /// What was written.
        name: String,
    },
    /// More than one has it.
    #[error("{count} datanodes match `{name}`")]
    Several {
        /// What was written.
        name: String,
        /// How many.
        count: usize,
    },
}

/// The datanodes that a name means: the one with this id, address or pod; else all on this host; else
/// the one whose id begins so.
pub fn find_datanodes<'a>(
    all: &'a [PlannedDatanode],
    name: &str,
) -> Result<Vec<&'a PlannedDatanode>, NamingError> {
    let lower = name.to_ascii_lowercase();
    let exact = |node: &&PlannedDatanode| {
        node.id.to_string() == lower || node.address == name || node.pod.as_deref() == Some(name)
    };
    let found: Vec<_> = all.iter().filter(exact).collect();
    if let [_one] = found.as_slice() {
        return Ok(found);
    }
    let on_host = |node: &&PlannedDatanode| node.host.as_deref() == Some(name);
    let on_host: Vec<_> = all.iter().filter(on_host).collect();
    if found.is_empty() && !on_host.is_empty() {
        return Ok(on_host);
    }
    let begins = |node: &&PlannedDatanode| node.id.to_string().starts_with(&lower);
    let begins: Vec<_> = all.iter().filter(begins).collect();
    match (found.len(), begins.len()) {
        (0, 1) if !name.is_empty() => Ok(begins),
        (0, 0) => Err(NamingError::Nobody {
            name: name.to_owned(),
        }),
        (exact, begin) => Err(NamingError::Several {
            name: name.to_owned(),
            count: exact.max(begin),
        }),
    }
}

/// The one datanode that a name means.
pub fn find_datanode<'a>(
    all: &'a [PlannedDatanode],
    name: &str,
) -> Result<&'a PlannedDatanode, NamingError> {
    match find_datanodes(all, name)?.as_slice() {
        [one] => Ok(one),
        several => Err(NamingError::Several {
            name: name.to_owned(),
            count: several.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u128, pod: &str, host: &str) -> PlannedDatanode {
        PlannedDatanode {
            id: DatanodeId::from_u128(id),
            address: format!("{id}:1"),
            pod: Some(pod.to_owned()),
            host: Some(host.to_owned()),
        }
    }

    #[test]
    fn datanodes_are_named_by_id_first_digits_address_pod_or_host() {
        let all = [
            node(0xab << 120, "s-datanode-0", "node-1"),
            node(0xac << 120, "s-datanode-1", "node-1"),
            node(0xc1 << 120, "s-datanode-2", "node-2"),
        ];
        let found = |name: &str| {
            let found = find_datanodes(&all, name)?;
            Ok(found
                .iter()
                .map(|node| node.id.as_u128() >> 120)
                .collect::<Vec<_>>())
        };
        assert_eq!(found("AB"), Ok(vec![0xab]));
        assert_eq!(found(&all[1].id.to_string()), Ok(vec![0xac]));
        assert_eq!(found(&all[2].address), Ok(vec![0xc1]));
        assert_eq!(found("s-datanode-1"), Ok(vec![0xac]));
        assert_eq!(found("node-1"), Ok(vec![0xab, 0xac]));
        for (wrong, count) in [("a", 2), ("", 3)] {
            let name = wrong.to_owned();
            assert_eq!(found(wrong), Err(NamingError::Several { name, count }));
        }
        assert!(matches!(found("node-9"), Err(NamingError::Nobody { .. })));
        assert!(find_datanode(&all, "node-1").is_err());
        assert_eq!(find_datanode(&all, "node-2").unwrap(), &all[2]);
    }
}
