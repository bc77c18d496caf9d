//! Registrations that were refused lately, for people and for the operator's events. Bounded: the
//! oldest goes first.

use std::collections::VecDeque;

use dfs_protocol::DatanodeId;
use dfs_protocol::admission::{Refusal, RefusalReason};
use jiff::Timestamp;

/// Lines kept.
pub const KEPT: usize = 64;

/// One refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The uuid, if it was told.
    pub datanode: Option<DatanodeId>,
    /// Who asked.
    pub address: String,
    /// The pod, if it was told.
    pub pod: Option<String>,
    /// Why.
    pub reason: RefusalReason,
    /// For people.
    pub detail: String,
}

/// The last refusals, the newest last. The same address, uuid and reason is one line.
#[derive(Debug, Clone, Default)]
pub struct RefusalLog(VecDeque<Refusal>);

impl RefusalLog {
    /// Takes a refusal in.
    pub fn note(&mut self, refused: Refused, at: Timestamp) {
        let Refused {
            datanode,
            address,
            pod,
            reason,
            detail,
        } = refused;
        let is_same = |known: &Refusal| {
            known.datanode == datanode && known.address == address && known.reason == reason
        };
        let before = self.0.iter().position(is_same);
        let count = before
            .and_then(|at| self.0.remove(at))
            .map_or(0, |known| known.count);
        while self.0.len() >= KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Refusal {
            at,
            datanode,
            address,
            pod,
            reason,
            detail,
            count: count + 1,
        });
    }

    /// All of them, the newest last.
    pub fn list(&self) -> Vec<Refusal> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(number: usize, reason: RefusalReason) -> Refused {
        Refused {
            datanode: None,
            address: format!("10.0.0.{number}"),
            pod: None,
            reason,
            detail: "no".into(),
        }
    }

    #[test]
    fn the_same_refusal_is_counted_and_another_is_a_line_of_its_own() {
        let mut log = RefusalLog::default();
        for second in 1..=3 {
            let at = Timestamp::from_second(second).unwrap();
            log.note(refused(1, RefusalReason::WrongToken), at);
        }
        log.note(refused(1, RefusalReason::Refused), Timestamp::UNIX_EPOCH);
        log.note(refused(2, RefusalReason::WrongToken), Timestamp::UNIX_EPOCH);
        let lines = log.list();
        let counts: Vec<u64> = lines.iter().map(|line| line.count).collect();
        assert_eq!(counts, [3, 1, 1]);
        assert_eq!(lines[0].at.as_second(), 3);
    }

    #[test]
    fn i31_only_the_last_refusals_are_kept() {
        let mut log = RefusalLog::default();
        for number in 0..1000 {
            log.note(
                refused(number, RefusalReason::WrongToken),
                Timestamp::UNIX_EPOCH,
            );
        }
        let lines = log.list();
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines[KEPT - 1].address, "10.0.0.999");
    }
}
