//! Chunk health and repair priority as one pure function of a chunk's replicas and their holders.

use dfs_protocol::checksum::crc64nvme;
use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::{ChunkHealth, RepairPriority};

/// A host or zone label, folded to 64 bits so that views are small and compare fast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(u64);

impl Label {
    /// Folds a label's text.
    pub fn of(text: &str) -> Self {
        Self(crc64nvme(text.as_bytes()))
    }
}

/// What counts about a datanode when its replicas are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HolderView {
    /// Heard within three heartbeats.
    pub live: bool,
    /// What the administrator wants of it.
    pub admin: AdminState,
    /// Kubernetes node, or the datanode itself.
    pub host: Label,
    /// Failure domain, if known.
    pub zone: Option<Label>,
    /// The tracker's picture of its chunk set is known to be right.
    pub current: bool,
}

impl HolderView {
    /// Fills a place of an array until a holder is known.
    pub(super) const NOBODY: Self = Self {
        live: false,
        admin: AdminState::Pending,
        host: Label(0),
        zone: None,
        current: false,
    };

    /// Whether a client may read from it.
    pub fn readable(&self) -> bool {
        self.live
            && match self.admin {
                AdminState::InService
                | AdminState::Decommissioning
                | AdminState::Decommissioned => true,
                AdminState::Pending | AdminState::Tombstoned => false,
            }
    }

    /// Whether its replicas count towards the factor.
    pub fn counts(&self) -> bool {
        self.live && self.admin == AdminState::InService
    }

    /// Whether its replicas count when something is about to be deleted or stopped.
    pub fn proven(&self) -> bool {
        self.counts() && self.current
    }
}

/// State of one replica against the catalog, apart from its holder's liveness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplicaClass {
    /// Reported, and exactly what the catalog expects.
    Valid,
    /// Named by a commit as durable, not reported yet: read from, never a reason to delete.
    Promised,
    /// Of an older version: never read, never a source (I7).
    Stale,
    /// Damaged, or of the right version with the wrong bytes.
    Corrupt,
    /// Newer than the catalog: kept, never counted, never deleted.
    Newer,
}

impl ReplicaClass {
    /// Whether its bytes may be read and copied.
    pub fn good(self) -> bool {
        match self {
            Self::Valid | Self::Promised => true,
            Self::Stale | Self::Corrupt | Self::Newer => false,
        }
    }
}

/// When replicas are badly spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SpreadRule {
    /// Distinct zones of the in-service datanodes; 0 unless each of them names its zone.
    pub zones: u32,
}

impl SpreadRule {
    /// Most replicas that one zone should hold; none when zones are unknown.
    pub fn zone_limit(self, factor: u32) -> Option<u32> {
        (self.zones > 0).then(|| factor.div_ceil(self.zones))
    }

    /// How badly a set of replicas is spread; zero is well. At most a few dozen holders.
    pub fn penalty(self, factor: u32, holders: &[(Label, Option<Label>)]) -> SpreadPenalty {
        self.penalty_of(factor, &holders.iter().copied())
    }

    /// As [`Self::penalty`], of holders that need not be in a list: every report entry asks this.
    fn penalty_of(
        self,
        factor: u32,
        holders: &(impl Iterator<Item = (Label, Option<Label>)> + Clone),
    ) -> SpreadPenalty {
        let mut penalty = SpreadPenalty::default();
        for (at, (host, zone)) in holders.clone().enumerate() {
            let mut before = holders.clone().take(at);
            penalty.shared_hosts += u32::from(before.any(|(other, _)| other == host));
            let (Some(limit), Some(zone)) = (self.zone_limit(factor), zone) else {
                continue;
            };
            let before = holders.clone().take(at);
            let in_zone = before.filter(|(_, other)| *other == Some(zone)).count();
            penalty.crowded_zones += u32::from(in_zone >= limit as usize);
        }
        penalty
    }
}

/// How badly replicas are spread: smaller is better, zero is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SpreadPenalty {
    /// Replicas that share a host with another.
    pub shared_hosts: u32,
    /// Replicas beyond what their zone should hold.
    pub crowded_zones: u32,
}

/// What became of judging one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assessment {
    /// How the chunk is.
    pub health: ChunkHealth,
    /// How urgent its repair is; none when it needs no copy, or when nothing is left to copy.
    pub priority: Option<RepairPriority>,
    /// Good replicas on live, in-service datanodes.
    pub counted: u32,
    /// Good replicas that can be read now, those on leaving datanodes included.
    pub readable: u32,
}

/// Judges one chunk. `holders` are all its replicas, each with its holder.
pub fn assess(factor: u32, rule: SpreadRule, holders: &[(ReplicaClass, HolderView)]) -> Assessment {
    let good = || {
        holders
            .iter()
            .filter(|(class, _)| class.good())
            .map(|(_, view)| view)
    };
    let counted = count(good().filter(|view| view.counts()));
    let readable = count(good().filter(|view| view.readable()));
    let corrupt = holders
        .iter()
        .any(|(class, _)| *class == ReplicaClass::Corrupt);
    let (health, priority) = if readable == 0 {
        // A good replica on a silent datanode may return: only then is it more than corrupt.
        let hopeless = corrupt && good().next().is_none();
        (
            ChunkHealth::Missing,
            hopeless.then_some(RepairPriority::CorruptOnly),
        )
    } else if counted < factor {
        too_few(factor, counted, readable)
    } else if counted > factor {
        (ChunkHealth::OverReplicated, None)
    } else {
        let counting = good().filter(|view| view.counts());
        let places = counting.map(|view| (view.host, view.zone));
        if rule.penalty_of(factor, &places) == SpreadPenalty::default() {
            (ChunkHealth::Healthy, None)
        } else {
            (
                ChunkHealth::MisReplicated,
                Some(RepairPriority::BadlySpread),
            )
        }
    };
    Assessment {
        health,
        priority,
        counted,
        readable,
    }
}

fn too_few(factor: u32, counted: u32, readable: u32) -> (ChunkHealth, Option<RepairPriority>) {
    let health = if readable == 1 && factor > 1 {
        ChunkHealth::AtRisk
    } else {
        ChunkHealth::UnderReplicated
    };
    let priority = if readable == 1 || counted == 0 {
        RepairPriority::LastReplica
    } else if counted * 3 < factor {
        RepairPriority::UnderThird
    } else {
        RepairPriority::UnderReplicated
    };
    (health, Some(priority))
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(host: &str, zone: Option<&str>, live: bool, admin: AdminState) -> HolderView {
        HolderView {
            live,
            admin,
            host: Label::of(host),
            zone: zone.map(Label::of),
            current: true,
        }
    }

    fn valid(host: &str) -> (ReplicaClass, HolderView) {
        (
            ReplicaClass::Valid,
            view(host, None, true, AdminState::InService),
        )
    }

    fn health(
        factor: u32,
        holders: &[(ReplicaClass, HolderView)],
    ) -> (ChunkHealth, Option<RepairPriority>) {
        let found = assess(factor, SpreadRule::default(), holders);
        (found.health, found.priority)
    }

    #[test]
    fn every_health_and_priority_has_its_cause() {
        use ChunkHealth::*;
        use RepairPriority as P;
        let silent = (
            ReplicaClass::Valid,
            view("s", None, false, AdminState::InService),
        );
        let leaving = (
            ReplicaClass::Valid,
            view("l", None, true, AdminState::Decommissioning),
        );
        let corrupt = (
            ReplicaClass::Corrupt,
            view("c", None, true, AdminState::InService),
        );
        let pending = (
            ReplicaClass::Valid,
            view("p", None, true, AdminState::Pending),
        );
        let all = [valid("a"), valid("b"), valid("c"), valid("d")];
        for (factor, holders, expected) in [
            (3, vec![], (Missing, None)),
            (3, vec![silent], (Missing, None)),
            (3, vec![pending], (Missing, None)),
            (3, vec![corrupt], (Missing, Some(P::CorruptOnly))),
            (3, vec![corrupt, silent], (Missing, None)),
            (3, all[..1].to_vec(), (AtRisk, Some(P::LastReplica))),
            (3, vec![leaving], (AtRisk, Some(P::LastReplica))),
            (1, vec![leaving], (UnderReplicated, Some(P::LastReplica))),
            (
                3,
                vec![leaving, leaving],
                (UnderReplicated, Some(P::LastReplica)),
            ),
            (7, all[..2].to_vec(), (UnderReplicated, Some(P::UnderThird))),
            (
                3,
                vec![valid("a"), valid("b"), leaving],
                (UnderReplicated, Some(P::UnderReplicated)),
            ),
            (
                3,
                vec![valid("a"), valid("b"), corrupt],
                (UnderReplicated, Some(P::UnderReplicated)),
            ),
            (3, all[..3].to_vec(), (Healthy, None)),
            (1, all[..1].to_vec(), (Healthy, None)),
            (3, all.to_vec(), (OverReplicated, None)),
            (
                2,
                vec![valid("a"), valid("a")],
                (MisReplicated, Some(P::BadlySpread)),
            ),
        ] {
            assert_eq!(
                health(factor, &holders),
                expected,
                "factor {factor}, {holders:?}"
            );
        }
    }

    #[test]
    fn i07_an_older_or_newer_version_counts_for_nothing() {
        for class in [ReplicaClass::Stale, ReplicaClass::Newer] {
            let holders = [(class, valid("a").1), valid("b")];
            assert_eq!(
                assess(2, SpreadRule::default(), &holders).counted,
                1,
                "{class:?}"
            );
        }
    }

    #[test]
    fn i22_a_zone_holds_at_most_its_share() {
        let at = |host, zone| {
            (
                ReplicaClass::Valid,
                view(host, Some(zone), true, AdminState::InService),
            )
        };
        let crowded = [at("a", "z1"), at("b", "z1"), at("c", "z2")];
        let two = SpreadRule { zones: 2 };
        let three = SpreadRule { zones: 3 };
        assert_eq!(assess(3, two, &crowded).health, ChunkHealth::Healthy);
        assert_eq!(
            assess(3, three, &crowded).health,
            ChunkHealth::MisReplicated
        );
        assert_eq!(
            assess(3, SpreadRule::default(), &crowded).health,
            ChunkHealth::Healthy
        );
    }
}
