//! The tracker's story as differences between two looks at its state: a pure function, so that no
//! code path that changes the state needs to remember to tell.

use std::collections::BTreeMap;
use std::time::Duration;

use dfs_protocol::datanode::{AdminState, Liveness};
use dfs_protocol::events::EventKind;
use dfs_protocol::{ChunkId, DatanodeId};

use super::datanodes::DatanodeTable;
use super::hearing::Partition;

/// Something to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// What.
    pub kind: EventKind,
    /// Whose.
    pub datanode: Option<DatanodeId>,
    /// Which.
    pub chunk: Option<ChunkId>,
    /// How many.
    pub count: Option<u64>,
    /// One sentence for people.
    pub detail: String,
}

impl Telling {
    /// Of the whole store.
    pub fn new(kind: EventKind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            datanode: None,
            chunk: None,
            count: None,
            detail: detail.into(),
        }
    }

    /// Of one datanode.
    #[must_use]
    pub fn of(mut self, datanode: DatanodeId) -> Self {
        self.datanode = Some(datanode);
        self
    }

    /// Of one chunk.
    #[must_use]
    pub fn chunk(mut self, chunk: ChunkId) -> Self {
        self.chunk = Some(chunk);
        self
    }

    /// So many.
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }
}

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The datanodes.
    pub datanodes: &'a DatanodeTable,
    /// Whether safe mode is over.
    pub safe_mode_over: bool,
    /// A partition, if there is one.
    pub partition: Option<Partition>,
    /// Repair's copies under way.
    pub copying: u64,
    /// Chunks that lack replicas.
    pub waiting: u64,
    /// Copies that repair made in this tracker's life.
    pub copied: u64,
}

/// What was last seen, and told.
#[derive(Debug, Clone)]
pub struct Seen {
    datanodes: BTreeMap<DatanodeId, (Liveness, AdminState)>,
    safe_mode_over: bool,
    partition: bool,
    repair: Option<RepairSeen>,
}

#[derive(Debug, Clone, Copy)]
struct RepairSeen {
    /// Copies made before it began.
    before: u64,
    /// When a copy was last under way.
    busy: Duration,
}

impl Seen {
    /// The first look tells nothing: a restart of the tracker makes no datanode join.
    pub fn first(scene: &Scene<'_>, now: Duration) -> Self {
        let datanodes = scene.datanodes;
        let seen = datanodes.iter().map(|node| {
            let liveness = match datanodes.liveness(node, now) {
                // Not heard yet; if it is soon, it never was away.
                Liveness::Suspect => Liveness::Live,
                heard @ (Liveness::Live | Liveness::Dead) => heard,
            };
            (node.id, (liveness, node.record.admin))
        });
        Self {
            datanodes: seen.collect(),
            safe_mode_over: scene.safe_mode_over,
            partition: false,
            repair: None,
        }
    }

    /// What happened since the last look.
    pub fn look(&mut self, scene: &Scene<'_>, now: Duration) -> Vec<Telling> {
        let mut story = Vec::new();
        self.look_at_datanodes(scene.datanodes, now, &mut story);
        if scene.safe_mode_over && !self.safe_mode_over {
            let detail = "safe mode is over: repair and collection begin";
            story.push(Telling::new(EventKind::SafeModeEnded, detail));
        }
        self.safe_mode_over = scene.safe_mode_over;
        if let Some(partition) = scene.partition.filter(|_| !self.partition) {
            let told = Telling::new(EventKind::PartitionNoticed, partition.to_string());
            story.push(told.count(u64::from(partition.silent)));
        }
        self.partition = scene.partition.is_some();
        let patience = scene.datanodes.policy().dead_window();
        story.extend(self.look_at_repair(scene, patience, now));
        story
    }

    fn look_at_datanodes(
        &mut self,
        datanodes: &DatanodeTable,
        now: Duration,
        story: &mut Vec<Telling>,
    ) {
        for node in datanodes.iter() {
            let liveness = datanodes.liveness(node, now);
            let admin = node.record.admin;
            let address = &node.record.address;
            let tell = |kind, what: &str| {
                let short = node.id.short();
                Telling::new(kind, format!("datanode {short} at {address} {what}")).of(node.id)
            };
            // As if a new one had been heard: it just announced itself.
            let before = self.datanodes.insert(node.id, (liveness, admin));
            let (was, admin_was) = before.unwrap_or((Liveness::Live, admin));
            if before.is_none() {
                story.push(tell(EventKind::DatanodeJoined, "joined"));
            }
            match (admin_was, admin) {
                (AdminState::Pending, AdminState::InService) => {
                    story.push(tell(EventKind::DatanodeAdmitted, "was admitted"));
                }
                (from, AdminState::Tombstoned) if from != AdminState::Tombstoned => {
                    let what = "was removed for ever";
                    story.push(tell(EventKind::DatanodeTombstoned, what));
                }
                _ => {}
            }
            if admin == AdminState::Tombstoned {
                continue;
            }
            match (was, liveness) {
                (Liveness::Live, Liveness::Suspect) => {
                    story.push(tell(EventKind::DatanodeSuspect, "missed three heartbeats"));
                }
                (Liveness::Live | Liveness::Suspect, Liveness::Dead) => {
                    story.push(tell(EventKind::DatanodeDead, "missed ten heartbeats"));
                }
                (Liveness::Suspect | Liveness::Dead, Liveness::Live) => {
                    story.push(tell(EventKind::DatanodeReturned, "is heard again"));
                }
                (Liveness::Live, Liveness::Live)
                | (Liveness::Suspect | Liveness::Dead, Liveness::Suspect)
                | (Liveness::Dead, Liveness::Dead) => {}
            }
        }
    }

    /// Repair is on from its first copy until nothing waits, or until it has copied nothing for as
    /// long as a datanode may be silent: copies that follow each other are one repair.
    fn look_at_repair(
        &mut self,
        scene: &Scene<'_>,
        patience: Duration,
        now: Duration,
    ) -> Option<Telling> {
        let busy = scene.copying > 0;
        let Some(seen) = &mut self.repair else {
            let begins = busy.then(|| {
                let waiting = scene.waiting;
                let detail = format!("repair copies; {waiting} chunks lack replicas");
                Telling::new(EventKind::RepairBegan, detail).count(waiting)
            });
            if busy {
                let before = scene.copied;
                self.repair = Some(RepairSeen { before, busy: now });
            }
            return begins;
        };
        if busy {
            seen.busy = now;
        }
        let made = scene.copied.saturating_sub(seen.before);
        let idle = !busy && (scene.waiting == 0 || now.saturating_sub(seen.busy) >= patience);
        if !idle {
            return None;
        }
        self.repair = None;
        let detail = match scene.waiting {
            0 => format!("repair made {made} copies; no chunk lacks replicas"),
            left => format!("repair made {made} copies; {left} chunks cannot be copied now"),
        };
        Some(Telling::new(EventKind::RepairEnded, detail).count(made))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::model::datanodes::{LivenessPolicy, Message};
    use crate::model::op::DatanodeRecord;

    const SECOND: Duration = Duration::from_secs(1);

    struct Stage {
        table: DatanodeTable,
        seen: Option<Seen>,
        now: Duration,
        sequence: u64,
        copying: u64,
        waiting: u64,
        copied: u64,
        safe_mode_over: bool,
    }

    impl Stage {
        fn new() -> Self {
            Self {
                table: DatanodeTable::new(LivenessPolicy::default(), 10),
                seen: None,
                now: 100 * SECOND,
                sequence: 0,
                copying: 0,
                waiting: 0,
                copied: 0,
                safe_mode_over: false,
            }
        }

        fn put(&mut self, n: u128, admin: AdminState) {
            let record = DatanodeRecord {
                admin,
                zone: None,
                host: None,
                address: "x:1".into(),
                registered: Timestamp::UNIX_EPOCH,
                claim: None,
            };
            let id = DatanodeId::from_u128(n);
            self.table.put(id, record, self.now).unwrap();
        }

        fn hear(&mut self, n: u128) {
            self.sequence += 1;
            let message = Message {
                instance: dfs_protocol::InstanceId(1),
                sequence: self.sequence,
                address: "x:1".into(),
                fence: dfs_protocol::Fence::default(),
                stats: dfs_protocol::datanode::DatanodeStats::default(),
            };
            let id = DatanodeId::from_u128(n);
            self.table
                .heard(id, message, self.now, Timestamp::UNIX_EPOCH);
        }

        fn look_after(&mut self, seconds: u32) -> Vec<(EventKind, Option<u64>)> {
            self.now += SECOND * seconds;
            let scene = Scene {
                datanodes: &self.table,
                safe_mode_over: self.safe_mode_over,
                partition: self.table.partition(3, 60 * SECOND, self.now),
                copying: self.copying,
                waiting: self.waiting,
                copied: self.copied,
            };
            let Some(seen) = &mut self.seen else {
                self.seen = Some(Seen::first(&scene, self.now));
                return Vec::new();
            };
            let story = seen.look(&scene, self.now);
            story
                .into_iter()
                .map(|told| (told.kind, told.count))
                .collect()
        }
    }

    #[test]
    fn a_datanode_joins_falls_silent_dies_and_returns_once_each() {
        use EventKind as K;
        let mut stage = Stage::new();
        stage.put(1, AdminState::InService);
        stage.look_after(0);
        stage.hear(1);
        assert_eq!(
            stage.look_after(1),
            [],
            "a restart makes nobody join or return"
        );
        stage.put(2, AdminState::Pending);
        stage.hear(2);
        stage.hear(1);
        assert_eq!(stage.look_after(0), [(K::DatanodeJoined, None)]);
        stage.put(2, AdminState::InService);
        assert_eq!(stage.look_after(0), [(K::DatanodeAdmitted, None)]);
        stage.hear(1);
        assert_eq!(stage.look_after(2), []);
        stage.hear(1);
        assert_eq!(stage.look_after(2), [(K::DatanodeSuspect, None)]);
        stage.hear(1);
        assert_eq!(stage.look_after(0), []);
        stage.now += 7 * SECOND;
        stage.hear(1);
        assert_eq!(stage.look_after(0), [(K::DatanodeDead, None)]);
        stage.hear(1);
        stage.hear(2);
        assert_eq!(stage.look_after(0), [(K::DatanodeReturned, None)]);
        stage.put(2, AdminState::Tombstoned);
        assert_eq!(stage.look_after(0), [(K::DatanodeTombstoned, None)]);
        stage.hear(1);
        assert_eq!(
            stage.look_after(1),
            [],
            "a removed one's silence is no story"
        );
    }

    #[test]
    fn a_datanode_that_never_returns_after_a_restart_is_told_dead() {
        let mut stage = Stage::new();
        stage.put(1, AdminState::InService);
        stage.look_after(0);
        let story = stage.look_after(10);
        assert_eq!(story, [(EventKind::DatanodeDead, None)]);
    }

    #[test]
    fn copies_that_follow_each_other_are_one_repair() {
        let mut stage = Stage::new();
        stage.look_after(0);
        (stage.copying, stage.waiting) = (2, 3);
        let began = [(EventKind::RepairBegan, Some(3))];
        assert_eq!(stage.look_after(1), began);
        (stage.copying, stage.waiting, stage.copied) = (0, 1, 2);
        assert_eq!(stage.look_after(1), [], "more waits");
        stage.copying = 1;
        assert_eq!(stage.look_after(9), []);
        (stage.copying, stage.waiting, stage.copied) = (0, 0, 3);
        assert_eq!(stage.look_after(1), [(EventKind::RepairEnded, Some(3))]);
        (stage.copying, stage.waiting) = (1, 1);
        assert_eq!(stage.look_after(1).len(), 1);
        stage.copying = 0;
        assert_eq!(stage.look_after(9), []);
        let gave_up = [(EventKind::RepairEnded, Some(0))];
        assert_eq!(stage.look_after(1), gave_up, "what waits cannot be copied");
    }

    #[test]
    fn safe_mode_and_a_partition_are_told_when_they_change() {
        let mut stage = Stage::new();
        for n in 1..=5 {
            stage.put(n, AdminState::InService);
            stage.hear(n);
        }
        stage.look_after(0);
        stage.safe_mode_over = true;
        assert_eq!(stage.look_after(0), [(EventKind::SafeModeEnded, None)]);
        assert_eq!(stage.look_after(0), []);
        let told = |story: Vec<(EventKind, Option<u64>)>| {
            let partition = |(kind, _): &(EventKind, _)| *kind == EventKind::PartitionNoticed;
            story.into_iter().filter(partition).collect::<Vec<_>>()
        };
        assert_eq!(
            told(stage.look_after(3)),
            [(EventKind::PartitionNoticed, Some(5))]
        );
        assert_eq!(told(stage.look_after(1)), []);
        for n in 1..=5 {
            stage.hear(n);
        }
        assert_eq!(told(stage.look_after(0)), []);
        assert_eq!(told(stage.look_after(4)).len(), 1, "another one");
    }
}
