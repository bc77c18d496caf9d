//! Write leases: a gateway's right to keep chunks that no file names yet (I10). Only monotonic
//! time counts; a tracker that restarted learns the leases anew from their renewals.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use dfs_protocol::{ChunkId, DatanodeId, LeaseId};

/// Bounds of the lease table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseLimits {
    /// How long a chunk stays leased after a renewal.
    pub duration: Duration,
    /// How long the last renewal of a chunk is remembered; at least the orphan age.
    pub remember: Duration,
    /// Most gateways with leased chunks.
    pub leases: usize,
    /// Most chunks of one gateway.
    pub chunks_per_lease: usize,
    /// Most chunks in all.
    pub chunks: usize,
}

impl Default for LeaseLimits {
    fn default() -> Self {
        Self {
            duration: Duration::from_mins(1),
            remember: Duration::from_hours(2),
            leases: 4096,
            chunks_per_lease: 65_536,
            chunks: 1_000_000,
        }
    }
}

/// Why a lease was not extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseRefused {
    /// Too many gateways.
    #[error("{limit} gateways hold write leases already; try again later")]
    TooManyLeases {
        /// The limit.
        limit: usize,
    },
    /// Too many chunks of this gateway.
    #[error("lease {lease} holds {limit} chunks that no file names yet; commit or abandon some")]
    TooManyChunksOfLease {
        /// Whose.
        lease: LeaseId,
        /// The limit.
        limit: usize,
    },
    /// Too many chunks in all.
    #[error("{limit} chunks are under write leases already; try again later")]
    TooManyChunks {
        /// The limit.
        limit: usize,
    },
}

/// A chunk under a write lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeasedChunk {
    /// Whose.
    pub lease: LeaseId,
    /// Monotonic time of the last renewal.
    pub renewed: Duration,
    /// Where it was placed; empty when this tracker learned of it by a renewal.
    pub targets: Vec<DatanodeId>,
    /// The factor aimed at; 0 when this tracker learned of it by a renewal.
    pub wanted: u32,
    /// A commit names it: it may be part of a file before this tracker's picture shows that. One
    /// that was only placed ahead of need is not.
    pub named: bool,
}

/// Every leased chunk.
#[derive(Debug, Clone)]
pub struct LeaseTable {
    limits: LeaseLimits,
    chunks: BTreeMap<ChunkId, LeasedChunk>,
    per_lease: BTreeMap<LeaseId, usize>,
    /// And when they were last renewed.
    abandoned: BTreeMap<ChunkId, Duration>,
}

impl LeaseTable {
    /// An empty table.
    pub fn new(limits: LeaseLimits) -> Self {
        Self {
            limits,
            chunks: BTreeMap::new(),
            per_lease: BTreeMap::new(),
            abandoned: BTreeMap::new(),
        }
    }

    /// Puts freshly placed chunks under a lease, each with its targets, all or none.
    pub fn extend(
        &mut self,
        lease: LeaseId,
        placed: Vec<(ChunkId, Vec<DatanodeId>)>,
        wanted: u32,
        now: Duration,
    ) -> Result<(), LeaseRefused> {
        self.room_for(lease, placed.iter().map(|(chunk, _)| *chunk))?;
        for (chunk, targets) in placed {
            let named = false;
            self.put(
                chunk,
                LeasedChunk {
                    lease,
                    renewed: now,
                    targets,
                    wanted,
                    named,
                },
            );
        }
        Ok(())
    }

    /// Renews the lease on these chunks; those it did not know are learned, all or none.
    pub fn renew(
        &mut self,
        lease: LeaseId,
        chunks: &[ChunkId],
        now: Duration,
    ) -> Result<(), LeaseRefused> {
        self.room_for(lease, chunks.iter().copied())?;
        for chunk in chunks {
            self.abandoned.remove(chunk);
            let (targets, wanted, named) = match self.chunks.get_mut(chunk) {
                Some(known) if known.lease == lease => {
                    known.renewed = now;
                    continue;
                }
                Some(known) => {
                    let targets = std::mem::take(&mut known.targets);
                    (targets, known.wanted, known.named)
                }
                None => (Vec::new(), 0, false),
            };
            self.put(
                *chunk,
                LeasedChunk {
                    lease,
                    renewed: now,
                    targets,
                    wanted,
                    named,
                },
            );
        }
        Ok(())
    }

    /// A commit names these chunks, and may take effect from now on.
    pub fn name(&mut self, chunks: &[ChunkId]) {
        for chunk in chunks {
            if let Some(known) = self.chunks.get_mut(chunk) {
                known.named = true;
            }
        }
    }

    /// Drops chunks that a commit made part of a file.
    pub fn committed(&mut self, chunks: impl IntoIterator<Item = ChunkId>) {
        for chunk in chunks {
            self.drop_chunk(chunk);
            self.abandoned.remove(&chunk);
        }
    }

    /// Drops chunks that will never be committed: gc takes them without waiting. Only the lease
    /// that holds a chunk may abandon it; a chunk that no lease holds waits for its age.
    pub fn abandon(&mut self, lease: LeaseId, chunks: &[ChunkId]) {
        for chunk in chunks {
            let own = self.chunks.get(chunk).filter(|known| known.lease == lease);
            let Some(renewed) = own.map(|known| known.renewed) else {
                continue;
            };
            if self.abandoned.len() < self.limits.chunks {
                self.drop_chunk(*chunk);
                self.abandoned.insert(*chunk, renewed);
            }
        }
    }

    /// Forgets renewals older than [`LeaseLimits::remember`]; returns how many.
    pub fn expire(&mut self, now: Duration) -> usize {
        let oldest = now.saturating_sub(self.limits.remember);
        if oldest.is_zero() {
            return 0;
        }
        self.abandoned.retain(|_, at| *at >= oldest);
        let gone: Vec<ChunkId> = self
            .chunks
            .iter()
            .filter(|(_, known)| known.renewed < oldest)
            .map(|(chunk, _)| *chunk)
            .collect();
        for chunk in &gone {
            self.drop_chunk(*chunk);
        }
        gone.len()
    }

    /// Drops what is known of chunks that were condemned.
    pub fn condemned(&mut self, chunks: impl IntoIterator<Item = ChunkId>) {
        self.committed(chunks);
    }

    /// Whether the chunk is under a lease now.
    pub fn is_leased(&self, chunk: ChunkId, now: Duration) -> bool {
        self.chunks
            .get(&chunk)
            .is_some_and(|known| self.holds(known, now))
    }

    /// Whether this tracker placed the chunk itself, and did not forget it since: it was not collected meanwhile.
    pub fn placed_here(&self, chunk: ChunkId) -> bool {
        self.chunks
            .get(&chunk)
            .is_some_and(|known| known.wanted > 0)
    }

    /// Whether its writer said that it will never be committed.
    pub fn is_abandoned(&self, chunk: ChunkId) -> bool {
        self.abandoned.contains_key(&chunk)
    }

    /// When the chunk's lease was last renewed, also after it ran out.
    pub fn last_renewal(&self, chunk: ChunkId) -> Option<Duration> {
        self.chunks.get(&chunk).map(|known| known.renewed)
    }

    /// Every chunk under a lease now.
    pub fn leased(&self, now: Duration) -> impl Iterator<Item = (ChunkId, &LeasedChunk)> {
        self.chunks
            .iter()
            .filter(move |(_, known)| self.holds(known, now))
            .map(|(chunk, known)| (*chunk, known))
    }

    /// How long a renewal lasts.
    pub fn duration(&self) -> Duration {
        self.limits.duration
    }

    /// Chunks remembered, those whose lease ran out included.
    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// Whether nothing is leased or remembered.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    fn holds(&self, known: &LeasedChunk, now: Duration) -> bool {
        now.saturating_sub(known.renewed) < self.limits.duration
    }

    fn room_for(
        &self,
        lease: LeaseId,
        chunks: impl Iterator<Item = ChunkId>,
    ) -> Result<(), LeaseRefused> {
        let LeaseLimits {
            leases,
            chunks_per_lease,
            chunks: in_all,
            ..
        } = self.limits;
        let fresh: BTreeSet<ChunkId> = chunks
            .filter(|chunk| {
                self.chunks
                    .get(chunk)
                    .is_none_or(|known| known.lease != lease)
            })
            .collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let own = self.per_lease.get(&lease).copied();
        if own.is_none() && self.per_lease.len() >= leases {
            return Err(LeaseRefused::TooManyLeases { limit: leases });
        }
        if own.unwrap_or(0) + fresh.len() > chunks_per_lease {
            return Err(LeaseRefused::TooManyChunksOfLease {
                lease,
                limit: chunks_per_lease,
            });
        }
        if self.chunks.len() + fresh.len() > in_all {
            return Err(LeaseRefused::TooManyChunks { limit: in_all });
        }
        Ok(())
    }

    fn put(&mut self, chunk: ChunkId, leased: LeasedChunk) {
        self.drop_chunk(chunk);
        *self.per_lease.entry(leased.lease).or_default() += 1;
        self.chunks.insert(chunk, leased);
    }

    fn drop_chunk(&mut self, chunk: ChunkId) {
        let Some(known) = self.chunks.remove(&chunk) else {
            return;
        };
        if let Some(count) = self.per_lease.get_mut(&known.lease) {
            *count -= 1;
            if *count == 0 {
                self.per_lease.remove(&known.lease);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn chunk(n: u128) -> ChunkId {
        ChunkId::from_u128(n)
    }

    fn lease(n: u128) -> LeaseId {
        LeaseId::from_u128(n)
    }

    #[test]
    fn a_lease_runs_out_and_its_last_renewal_is_remembered() {
        let mut table = LeaseTable::new(LeaseLimits::default());
        table.renew(lease(1), &[chunk(1)], 10 * SECOND).unwrap();
        assert!(table.is_leased(chunk(1), 69 * SECOND));
        assert!(!table.is_leased(chunk(1), 70 * SECOND));
        assert_eq!(table.last_renewal(chunk(1)), Some(10 * SECOND));
        assert_eq!(table.expire(7210 * SECOND), 0);
        assert_eq!(table.expire(7211 * SECOND), 1);
        assert!(table.is_empty());
    }

    #[test]
    fn only_the_holder_abandons_a_chunk_and_a_renewal_takes_it_back() {
        let mut table = LeaseTable::new(LeaseLimits::default());
        table
            .extend(lease(1), vec![(chunk(1), vec![])], 3, SECOND)
            .unwrap();
        table.abandon(lease(2), &[chunk(1)]);
        assert!(table.is_leased(chunk(1), SECOND));
        table.abandon(lease(1), &[chunk(1)]);
        assert!(table.is_abandoned(chunk(1)) && !table.is_leased(chunk(1), SECOND));
        table.renew(lease(1), &[chunk(1)], SECOND).unwrap();
        assert!(!table.is_abandoned(chunk(1)) && table.is_leased(chunk(1), SECOND));
    }

    #[test]
    fn i31_full_tables_refuse_and_committed_chunks_make_room() {
        let limits = LeaseLimits {
            leases: 2,
            chunks_per_lease: 2,
            chunks: 3,
            ..LeaseLimits::default()
        };
        let mut table = LeaseTable::new(limits);
        let refused = table.renew(lease(1), &[chunk(1), chunk(2), chunk(3)], SECOND);
        assert!(matches!(
            refused,
            Err(LeaseRefused::TooManyChunksOfLease { .. })
        ));
        assert!(table.is_empty(), "all or none");
        table
            .renew(lease(1), &[chunk(1), chunk(2)], SECOND)
            .unwrap();
        table.renew(lease(2), &[chunk(3)], SECOND).unwrap();
        assert!(matches!(
            table.renew(lease(3), &[chunk(4)], SECOND),
            Err(LeaseRefused::TooManyLeases { .. })
        ));
        assert!(matches!(
            table.renew(lease(2), &[chunk(4)], SECOND),
            Err(LeaseRefused::TooManyChunks { .. })
        ));
        table
            .renew(lease(1), &[chunk(1), chunk(2)], 2 * SECOND)
            .unwrap();
        table.committed([chunk(1)]);
        table.renew(lease(2), &[chunk(4)], SECOND).unwrap();
    }
}
