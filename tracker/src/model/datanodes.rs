//! What the tracker knows of each datanode: liveness from what was heard, admin state from the
//! catalog, two axes that never mix.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use dfs_protocol::chunk::DatanodeAddress;
use dfs_protocol::datanode::{AdminState, DatanodeStats, Liveness};
use dfs_protocol::traffic::DatanodeTraffic;
use dfs_protocol::{DatanodeId, Fence, InstanceId};

use super::health::{HolderView, Label, SpreadRule};
use super::op::DatanodeRecord;

/// When silence means something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LivenessPolicy {
    /// Time between heartbeats.
    pub heartbeat_interval: Duration,
    /// Missed heartbeats after which a datanode is read from last.
    pub late_after: u32,
    /// Missed heartbeats that make a datanode suspect.
    pub suspect_after: u32,
    /// Missed heartbeats that make it dead.
    pub dead_after: u32,
}

impl Default for LivenessPolicy {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(1),
            late_after: 2,
            suspect_after: 3,
            dead_after: 10,
        }
    }
}

impl LivenessPolicy {
    /// What so long a silence means.
    pub fn judge(&self, silent: Duration) -> Liveness {
        if silent >= self.dead_window() {
            Liveness::Dead
        } else if silent >= self.heartbeat_interval * self.suspect_after {
            Liveness::Suspect
        } else {
            Liveness::Live
        }
    }

    /// Silence after which a datanode is dead; also the window in which a majority must be heard.
    pub fn dead_window(&self) -> Duration {
        self.heartbeat_interval * self.dead_after
    }
}

/// How well the tracker knows a datanode's chunk set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Picture {
    /// Nothing was reported in this tracker's life.
    Unknown,
    /// Was right once, differs now: a full report is awaited.
    Outdated,
    /// The digests agreed at the last message.
    Current,
}

/// One datanode.
#[derive(Debug, Clone, PartialEq)]
pub struct Datanode {
    /// Identity.
    pub id: DatanodeId,
    /// As the catalog has it; `address` is refreshed by every message.
    pub record: DatanodeRecord,
    /// This run of its process, once heard.
    pub instance: Option<InstanceId>,
    /// Of its newest message.
    pub sequence: u64,
    /// Monotonic time at which this tracker first knew it.
    pub known_since: Duration,
    /// Monotonic time of its newest message in this tracker's life.
    pub last_heard: Option<Duration>,
    /// Wall time of its newest message, for people.
    pub last_heartbeat: Option<Timestamp>,
    /// Its volume and load.
    pub stats: DatanodeStats,
    /// The highest fence that it accepted.
    pub fence: Fence,
    /// Version of its program.
    pub version: String,
    /// What its process moved, as it last told.
    pub traffic: Option<DatanodeTraffic>,
    /// Kubernetes pod, as it last announced it.
    pub pod: Option<String>,
    /// How well its chunk set is known.
    pub picture: Picture,
    /// Bytes promised to writers, half of them for each interval of heartbeats since.
    pub reserved_bytes: u64,
    /// Writes promised, half of them for each interval of heartbeats since.
    pub reserved_writes: u32,
    /// Its loss was acknowledged: it no longer counts as partitioned. Cleared when heard.
    pub loss_acknowledged: bool,
    /// Let in during this tracker's life and not heard since: it holds nothing yet, and was never there to fall silent.
    /// Cleared when heard.
    pub newcomer: bool,
    /// This tracker cannot get through to it or its journal, though it may be heard: a heartbeat
    /// alone is not health. It gets no new chunk and keeps no journal meanwhile.
    pub unreachable: bool,
    /// Announced as away for a while by whoever runs it; see [`Maintenance`]. Ends with this tracker's
    /// life: then a silent datanode gets the repair delay and no more.
    pub maintenance: Option<Maintenance>,
}

/// A datanode goes away for a known time: it takes no new chunks, and its replicas are not copied
/// elsewhere before the end, also where one live replica is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maintenance {
    /// Monotonic time of its end: decides.
    pub deadline: Duration,
    /// The same, for people.
    pub until: Timestamp,
}

impl Datanode {
    /// Label of its failure domain below the zone: the Kubernetes node, or its own uuid.
    pub fn host(&self) -> String {
        self.record
            .host
            .clone()
            .unwrap_or_else(|| self.id.to_string())
    }

    /// Since when it has been silent: the last message, or when this tracker first knew it.
    pub fn silent_since(&self) -> Duration {
        self.last_heard.unwrap_or(self.known_since)
    }

    /// Identity and address.
    pub fn at(&self) -> DatanodeAddress {
        DatanodeAddress {
            id: self.id,
            address: self.record.address.clone(),
        }
    }

    /// Bytes that new chunks may still take and that were not promised to other writers. A promise
    /// may never be used, so that it bears on the choice of a datanode and never refuses a write.
    pub fn unpromised_bytes(&self) -> u64 {
        self.stats.free_bytes.saturating_sub(self.reserved_bytes)
    }

    /// Streams being written, those promised included.
    pub fn write_load(&self) -> u32 {
        self.stats
            .active_writes
            .saturating_add(self.reserved_writes)
    }

    /// Whether it holds chunks that matter: in service, or leaving.
    pub fn serves(&self) -> bool {
        match self.record.admin {
            AdminState::InService | AdminState::Decommissioning => true,
            AdminState::Pending | AdminState::Decommissioned | AdminState::Tombstoned => false,
        }
    }
}

/// What a datanode says of itself in a register, heartbeat or report.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Run of its process.
    pub instance: InstanceId,
    /// Rises within an instance.
    pub sequence: u64,
    /// Where peers reach it now.
    pub address: String,
    /// The highest fence that it accepted.
    pub fence: Fence,
    /// Volume and load.
    pub stats: DatanodeStats,
}

/// What to make of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Newer than all before: go on.
    Fresh,
    /// Not newer than one already heard: ignore its content (fault 24).
    Late,
    /// From another run of the process than the registered one: it must register first.
    OtherInstance,
    /// No such datanode: it must register first.
    Unknown,
}

/// Refused: the tracker keeps no more datanodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tracker knows {limit} datanodes already and takes no more")]
pub struct TooManyDatanodes {
    /// The limit.
    pub limit: usize,
}

/// Every datanode that the tracker knows, tombstoned ones included.
#[derive(Debug, Clone)]
pub struct DatanodeTable {
    nodes: BTreeMap<DatanodeId, Datanode>,
    policy: LivenessPolicy,
    limit: usize,
    /// Intervals of heartbeats over when promises were last halved.
    faded: u128,
}

impl DatanodeTable {
    /// An empty table that takes at most `limit` datanodes (never more than 65,000).
    pub fn new(policy: LivenessPolicy, limit: usize) -> Self {
        Self {
            nodes: BTreeMap::new(),
            policy,
            limit: limit.min(65_000),
            faded: 0,
        }
    }

    /// When silence means something.
    pub fn policy(&self) -> &LivenessPolicy {
        &self.policy
    }

    /// Puts the catalog's record in place: at start, on announcement, on each admin change. What
    /// was heard of the datanode stays. Refused when the table is full.
    pub fn put(
        &mut self,
        id: DatanodeId,
        record: DatanodeRecord,
        now: Duration,
    ) -> Result<(), TooManyDatanodes> {
        if let Some(node) = self.nodes.get_mut(&id) {
            // The record may be older than what the datanode itself last said.
            let address = std::mem::take(&mut node.record.address);
            let heard = node.last_heard.is_some();
            node.record = record;
            if heard {
                node.record.address = address;
            }
            return Ok(());
        }
        if self.nodes.len() >= self.limit {
            return Err(TooManyDatanodes { limit: self.limit });
        }
        self.nodes.insert(id, unheard(id, record, now));
        Ok(())
    }

    /// [`put`](Self::put) during this tracker's life: one that was unknown has not fallen silent before it is heard.
    pub fn let_in(
        &mut self,
        id: DatanodeId,
        record: DatanodeRecord,
        now: Duration,
    ) -> Result<(), TooManyDatanodes> {
        let is_news = !self.nodes.contains_key(&id);
        self.put(id, record, now)?;
        if is_news {
            self.note_newcomer(id);
        }
        Ok(())
    }

    /// Notes that a datanode that was just [`put`](Self::put) was let in a moment ago.
    pub fn note_newcomer(&mut self, id: DatanodeId) {
        let node = self.nodes.get_mut(&id);
        if let Some(node) = node.filter(|node| node.last_heard.is_none()) {
            node.newcomer = true;
        }
    }

    /// Takes a registration in: a new instance starts its own sequence. The record must have been
    /// [`put`](Self::put) before; [`Heard::Unknown`] otherwise.
    pub fn register(
        &mut self,
        id: DatanodeId,
        message: Message,
        version: String,
        now: Duration,
        wall: Timestamp,
    ) -> Heard {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Heard::Unknown;
        };
        if node.instance != Some(message.instance) {
            node.sequence = 0;
            node.picture = node.picture.min(Picture::Outdated);
            // A new run of the process: it is back.
            node.maintenance = None;
        }
        let sequence = node.sequence.max(message.sequence);
        node.version = version;
        take_in(
            node,
            Message {
                sequence,
                ..message
            },
            now,
            wall,
        );
        Heard::Fresh
    }

    /// Takes a heartbeat or report in. Only after [`Heard::Fresh`] may its content be applied.
    pub fn heard(
        &mut self,
        id: DatanodeId,
        message: Message,
        now: Duration,
        wall: Timestamp,
    ) -> Heard {
        self.fade(now);
        let Some(node) = self.nodes.get_mut(&id) else {
            return Heard::Unknown;
        };
        match node.instance {
            Some(instance) if instance != message.instance => return Heard::OtherInstance,
            Some(_) if message.sequence <= node.sequence => return Heard::Late,
            Some(_) | None => {}
        }
        take_in(node, message, now, wall);
        Heard::Fresh
    }

    /// Halves what was promised, once for each interval: writers show in the datanodes' own numbers by and by. Everybody's at
    /// the same moment. Each one's with its own heartbeat, those that were just heard would look idle and the next chunks
    /// would all go to them: datanodes that are heard at about the same time would keep one another company, and be copied
    /// from one another alone when one of them is lost.
    fn fade(&mut self, now: Duration) {
        let interval = self.policy.heartbeat_interval.as_nanos().max(1);
        let intervals = now.as_nanos() / interval;
        let halvings = intervals.saturating_sub(self.faded);
        if halvings == 0 {
            return;
        }
        self.faded = intervals;
        let halvings = u32::try_from(halvings).unwrap_or(u32::MAX);
        for node in self.nodes.values_mut() {
            node.reserved_bytes = node.reserved_bytes.checked_shr(halvings).unwrap_or(0);
            node.reserved_writes = node.reserved_writes.checked_shr(halvings).unwrap_or(0);
        }
    }

    /// Notes the pod that it announced.
    pub fn set_pod(&mut self, id: DatanodeId, pod: Option<String>) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.pod = pod;
        }
    }

    /// Notes what the registered run of its process moved; a message that was overtaken changes nothing.
    pub fn set_traffic(&mut self, id: DatanodeId, traffic: DatanodeTraffic) {
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let newest = node.traffic.filter(|old| old.instance == traffic.instance);
        let overtaken = newest.is_some_and(|old| old.at_ms > traffic.at_ms);
        if node.instance == Some(traffic.instance) && !overtaken {
            node.traffic = Some(traffic);
        }
    }

    /// Says how well the chunk set is known after a delta or a report.
    pub fn set_picture(&mut self, id: DatanodeId, in_sync: bool) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.picture = match (in_sync, node.picture) {
                (true, _) => Picture::Current,
                (false, Picture::Unknown) => Picture::Unknown,
                (false, Picture::Outdated | Picture::Current) => Picture::Outdated,
            };
        }
    }

    /// Counts a write that was just placed there, until its own numbers show it.
    pub fn reserve(&mut self, id: DatanodeId, bytes: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.reserved_bytes = node.reserved_bytes.saturating_add(bytes);
            node.reserved_writes = node.reserved_writes.saturating_add(1);
        }
    }

    /// One datanode.
    pub fn get(&self, id: DatanodeId) -> Option<&Datanode> {
        self.nodes.get(&id)
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Datanode> {
        self.nodes.values()
    }

    /// Those that hold chunks that matter: in service, or leaving.
    pub fn serving(&self) -> impl Iterator<Item = &Datanode> {
        self.nodes.values().filter(|node| node.serves())
    }

    /// Those that serve and were heard once, or were members before this tracker's start: whose silence says something.
    pub fn seasoned(&self) -> impl Iterator<Item = &Datanode> {
        self.serving().filter(|node| !node.newcomer)
    }

    /// Those in service that are not dead: what can be counted on in the long run.
    pub fn there(&self, now: Duration) -> impl Iterator<Item = &Datanode> {
        self.nodes.values().filter(move |node| {
            node.record.admin == AdminState::InService && self.liveness(node, now) != Liveness::Dead
        })
    }

    /// Whether it is heard. One that was not heard in this tracker's life is never live.
    pub fn liveness(&self, node: &Datanode, now: Duration) -> Liveness {
        match self.policy.judge(self.silence(node, now)) {
            Liveness::Live if node.last_heard.is_none() => Liveness::Suspect,
            judged => judged,
        }
    }

    /// [`liveness`](Self::liveness) by id; an unknown datanode is dead.
    pub fn liveness_of(&self, id: DatanodeId, now: Duration) -> Liveness {
        self.get(id)
            .map_or(Liveness::Dead, |node| self.liveness(node, now))
    }

    /// Whether it missed heartbeats, or cannot be got through to: others are better to read from.
    pub fn is_late(&self, node: &Datanode, now: Duration) -> bool {
        let LivenessPolicy { late_after, .. } = self.policy;
        let patience = self.policy.heartbeat_interval * late_after;
        node.unreachable || self.silence(node, now) >= patience
    }

    /// How long it has been silent.
    pub fn silence(&self, node: &Datanode, now: Duration) -> Duration {
        now.saturating_sub(node.silent_since())
    }

    /// Whether a new chunk of `bytes` may be put there: live, in service, not read-only, with
    /// space by its own account, and its chunk set reported in this tracker's life.
    pub fn placeable(&self, node: &Datanode, bytes: u64, now: Duration) -> bool {
        node.record.admin == AdminState::InService
            && !node.stats.read_only
            && node.picture != Picture::Unknown
            && node.stats.free_bytes >= bytes
            && !node.unreachable
            && !self.in_maintenance(node, now)
            && self.liveness(node, now) == Liveness::Live
    }

    /// Whether it was announced as away and the time is not over.
    pub fn in_maintenance(&self, node: &Datanode, now: Duration) -> bool {
        node.maintenance.is_some_and(|away| now < away.deadline)
    }

    /// Datanodes that were announced as away and are not heard.
    pub fn away(&self, now: Duration) -> Vec<DatanodeId> {
        let away = self.iter().filter(|node| {
            self.in_maintenance(node, now) && self.liveness(node, now) != Liveness::Live
        });
        away.map(|node| node.id).collect()
    }

    /// Ends the maintenance of a datanode. One that is not heard is waited for no longer: its chunks
    /// are copied at once. Says whether it is known.
    pub fn end_maintenance(&mut self, id: DatanodeId, now: Duration) -> bool {
        let silent = self.liveness_of(id, now) != Liveness::Live;
        let Some(node) = self.nodes.get_mut(&id) else {
            return false;
        };
        if node.maintenance.take().is_some() && silent {
            node.loss_acknowledged = true;
        }
        true
    }

    /// Announces a datanode as away, or back; says whether it is known. Of two announcements the longer one
    /// holds: a restart for a few minutes does not shorten what a human announced for hours.
    pub fn set_maintenance(&mut self, id: DatanodeId, away: Option<Maintenance>) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else {
            return false;
        };
        let stands = node
            .maintenance
            .filter(|stands| away.is_some_and(|away| away.deadline < stands.deadline));
        node.maintenance = stands.or(away);
        true
    }

    /// Notes that this tracker cannot get through to it; says whether that is news.
    pub fn set_unreachable(&mut self, id: DatanodeId) -> bool {
        let node = self.nodes.get_mut(&id);
        node.is_some_and(|node| !std::mem::replace(&mut node.unreachable, true))
    }

    /// It answered again.
    pub fn set_reachable(&mut self, id: DatanodeId) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.unreachable = false;
        }
    }

    /// Every datanode that takes a chunk of `bytes`, by id.
    pub fn all_placeable(&self, bytes: u64, now: Duration) -> Vec<&Datanode> {
        self.iter()
            .filter(|node| self.placeable(node, bytes, now))
            .collect()
    }

    /// Whether a chunk of `bytes` finds all its datanodes without the room that other writers were
    /// promised: what is placed ahead of need must not be placed beyond that.
    pub fn has_unpromised_room(&self, bytes: u64, factor: u32, now: Duration) -> bool {
        let placeable = self.all_placeable(bytes, now);
        let wanted = placeable.len().min(factor as usize);
        let roomy = |node: &&&Datanode| node.unpromised_bytes() >= bytes;
        placeable.iter().filter(roomy).count() >= wanted
    }

    /// How its replicas are to be judged.
    pub fn view(&self, node: &Datanode, now: Duration) -> HolderView {
        HolderView {
            live: self.liveness(node, now) == Liveness::Live,
            admin: node.record.admin,
            host: Label::of(&node.host()),
            zone: node.record.zone.as_deref().map(Label::of),
            current: node.picture == Picture::Current,
        }
    }

    /// Zones count only when every in-service datanode names its own.
    pub fn spread_rule(&self) -> SpreadRule {
        let in_service = || {
            self.iter()
                .filter(|n| n.record.admin == AdminState::InService)
        };
        let zones: Option<std::collections::BTreeSet<&str>> = in_service()
            .map(|node| node.record.zone.as_deref())
            .collect();
        SpreadRule {
            zones: zones.map_or(0, |set| u32::try_from(set.len()).unwrap_or(u32::MAX)),
        }
    }

    /// Those whose chunk set is still unknown although it may matter, and who have been known for
    /// less than `patience`: their replicas may yet turn up.
    pub fn awaiting_report(&self, patience: Duration, now: Duration) -> u32 {
        let waiting = self.serving().filter(|node| {
            node.picture == Picture::Unknown && now.saturating_sub(node.known_since) < patience
        });
        u32::try_from(waiting.count()).unwrap_or(u32::MAX)
    }

    pub(super) fn nodes_mut(&mut self) -> impl Iterator<Item = &mut Datanode> {
        self.nodes.values_mut()
    }
}

fn unheard(id: DatanodeId, record: DatanodeRecord, now: Duration) -> Datanode {
    Datanode {
        id,
        record,
        instance: None,
        sequence: 0,
        known_since: now,
        last_heard: None,
        last_heartbeat: None,
        stats: DatanodeStats::default(),
        fence: Fence::default(),
        version: String::new(),
        traffic: None,
        pod: None,
        picture: Picture::Unknown,
        reserved_bytes: 0,
        reserved_writes: 0,
        loss_acknowledged: false,
        newcomer: false,
        unreachable: false,
        maintenance: None,
    }
}

fn take_in(node: &mut Datanode, message: Message, now: Duration, wall: Timestamp) {
    let Message {
        instance,
        sequence,
        address,
        fence,
        stats,
    } = message;
    node.instance = Some(instance);
    node.sequence = sequence;
    node.record.address = address;
    node.fence = fence;
    node.stats = stats;
    node.last_heard = Some(now);
    node.last_heartbeat = Some(wall);
    node.loss_acknowledged = false;
    node.newcomer = false;
}
