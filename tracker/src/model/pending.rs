//! Datanodes that announced themselves and were not let in. Kept apart from the others, and in memory
//! only: nothing that places, counts, repairs or waits for datanodes can see them.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::RegisterRequest;
use jiff::Timestamp;

use super::datanodes::TooManyDatanodes;

/// One that was not heard for so long is forgotten; refused ones ask every half minute.
pub const FORGET_AFTER: Duration = Duration::from_mins(2);
/// Most of them.
pub const MOST: usize = 1024;

/// One that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Newcomer {
    /// What it last said.
    pub announced: RegisterRequest,
    /// When, monotonic.
    pub last_heard: Duration,
    /// When, for people.
    pub last_heartbeat: Timestamp,
    /// Set when the administrator said no: why.
    pub refused: Option<String>,
}

impl Newcomer {
    /// Whether it was heard so lately that it still waits.
    pub fn is_remembered(&self, now: Duration) -> bool {
        now.saturating_sub(self.last_heard) < FORGET_AFTER
    }
}

/// Everyone who waits.
#[derive(Debug, Clone, Default)]
pub struct PendingTable(BTreeMap<DatanodeId, Newcomer>);

impl PendingTable {
    /// Takes an announcement in; what the administrator said stays.
    pub fn hear(
        &mut self,
        announced: RegisterRequest,
        now: Duration,
        wall: Timestamp,
    ) -> Result<&Newcomer, TooManyDatanodes> {
        self.expire(now);
        let id = announced.datanode;
        let refused = self.0.remove(&id).and_then(|known| known.refused);
        if self.0.len() >= MOST {
            return Err(TooManyDatanodes { limit: MOST });
        }
        Ok(self.0.entry(id).or_insert(Newcomer {
            announced,
            last_heard: now,
            last_heartbeat: wall,
            refused,
        }))
    }

    /// One that waits.
    pub fn get(&self, id: DatanodeId) -> Option<&Newcomer> {
        self.0.get(&id)
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&DatanodeId, &Newcomer)> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says no; false when it does not wait.
    pub fn refuse(&mut self, id: DatanodeId, reason: String) -> bool {
        let newcomer = self.0.get_mut(&id);
        newcomer.is_some_and(|newcomer| {
            newcomer.refused = Some(reason);
            true
        })
    }

    /// It waits no longer.
    pub fn remove(&mut self, id: DatanodeId) -> Option<Newcomer> {
        self.0.remove(&id)
    }

    /// Forgets those that went away.
    pub fn expire(&mut self, now: Duration) {
        self.0.retain(|_, newcomer| newcomer.is_remembered(now));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use dfs_protocol::datanode::DatanodeStats;
    use dfs_protocol::{Fence, InstanceId};

    use super::*;

    pub(crate) fn announcement(id: u128, pod: Option<&str>) -> RegisterRequest {
        RegisterRequest {
            cluster: None,
            datanode: DatanodeId::from_u128(id),
            instance: InstanceId(u64::try_from(id).unwrap()),
            address: format!("10.0.0.{id}:6001"),
            zone: None,
            host: None,
            pod: pod.map(str::to_owned),
            fence: Fence::default(),
            stats: DatanodeStats::default(),
            version: "1".into(),
        }
    }

    #[test]
    fn newcomers_are_kept_while_heard_and_a_refusal_stays_with_them() {
        let mut table = PendingTable::default();
        let (id, seconds) = (DatanodeId::from_u128(1), Duration::from_secs);
        let hear = |table: &mut PendingTable, at| {
            table
                .hear(announcement(1, None), seconds(at), Timestamp::UNIX_EPOCH)
                .cloned()
                .unwrap()
        };
        assert_eq!(hear(&mut table, 0).refused, None);
        assert!(table.refuse(id, "unknown pod".into()));
        assert!(!table.refuse(DatanodeId::from_u128(2), "x".into()));
        assert_eq!(
            hear(&mut table, 119).refused.as_deref(),
            Some("unknown pod")
        );
        table.expire(seconds(238));
        assert_eq!(table.len(), 1);
        table.expire(seconds(239));
        assert!(table.is_empty());
    }

    #[test]
    fn i31_a_crowd_of_newcomers_is_bounded() {
        let mut table = PendingTable::default();
        for id in 0..2000 {
            let heard = table.hear(
                announcement(id, None),
                Duration::ZERO,
                Timestamp::UNIX_EPOCH,
            );
            assert_eq!(heard.is_ok(), id < MOST as u128);
        }
        assert_eq!(table.len(), MOST);
    }
}
