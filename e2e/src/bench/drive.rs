//! A closed loop of so many clients over one door: each begins its next operation when the last has
//! been answered. Bounded in count and in time.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::door::{Door, Session};
use super::group::Group;
use super::rounds::Sample;

/// How much one sample does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Clients at once.
    pub(super) streams: usize,
    /// Operations of all together.
    pub(super) operations: usize,
    /// No operation begins later than this.
    pub(super) limit: Duration,
}

/// What one operation did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    /// Bytes, or 1.
    pub(super) amount: f64,
    /// How often it was refused for now.
    pub(super) refusals: u64,
    /// Nothing was done, and nothing more is to be done.
    pub(super) over: bool,
}

impl Done {
    /// Ends its client's loop.
    pub(super) const OVER: Self = Self {
        amount: 0.0,
        refusals: 0,
        over: true,
    };

    /// One operation.
    pub(super) const ONE: Self = Self {
        amount: 1.0,
        refusals: 0,
        over: false,
    };

    /// One operation that was refused so often before.
    pub(super) fn after(refusals: u64) -> Self {
        Self {
            refusals,
            ..Self::ONE
        }
    }

    /// So many bytes, which must be as many as were asked for.
    pub(super) fn bytes(got: u64, asked: u64) -> io::Result<Self> {
        if got != asked {
            let text = format!("{got} bytes came where {asked} were asked for");
            return Err(io::Error::other(text));
        }
        Ok(Self {
            amount: got as f64,
            ..Self::default()
        })
    }

    /// One answer, which must have so many bytes.
    pub(super) fn answer(got: u64, asked: u64) -> io::Result<Self> {
        Self::bytes(got, asked).map(|_| Self::ONE)
    }
}

/// Numbers operations from 0 and takes the time of each.
pub(super) async fn drive(
    door: &Door,
    group: &Group,
    load: Load,
    operation: impl AsyncFn(&mut Session, usize) -> io::Result<Done>,
) -> io::Result<Sample> {
    let mut sessions = door.sessions(load.streams).await?;
    let next = Cell::new(0);
    let cpu = group.cpu();
    let started = Instant::now();
    let streams = sessions.iter_mut().map(|session| async {
        let mut sample = Sample::default();
        while next.get() < load.operations && started.elapsed() < load.limit {
            let number = next.get();
            next.set(number + 1);
            let begun = Instant::now();
            let done = operation(session, number).await?;
            if done.over {
                break;
            }
            sample.latencies.push(begun.elapsed().as_secs_f64());
            sample.amount += done.amount;
            sample.refusals += done.refusals;
        }
        Ok::<Sample, io::Error>(sample)
    });
    let all = try_join_all(streams).await?;
    let mut sum = Sample {
        seconds: started.elapsed().as_secs_f64(),
        cpu: group.cpu().since(&cpu),
        ..Sample::default()
    };
    for one in all {
        sum.amount += one.amount;
        sum.refusals += one.refusals;
        sum.latencies.extend(one.latencies);
    }
    Ok(sum)
}

/// As [`drive`], but operations begin when it is their time, `every` so often, and not when the one before was
/// answered: one that waits keeps nobody from beginning, and the time that an operation takes counts from when it should have
/// begun. As long as there are clients that are free.
pub(super) async fn drive_paced(
    door: &Door,
    group: &Group,
    load: Load,
    every: Duration,
    operation: impl AsyncFn(&mut Session, usize) -> io::Result<Done>,
) -> io::Result<Sample> {
    // With the first operation: the connections before it are no part of what is measured.
    let began = OnceCell::new();
    let waited = RefCell::new(Vec::new());
    let mut sample = drive(door, group, load, async |session, number| {
        let began = *began.get_or_init(tokio::time::Instant::now);
        let due = began + every * u32::try_from(number).unwrap_or(u32::MAX);
        tokio::time::sleep_until(due).await;
        let done = operation(session, number).await?;
        if !done.over {
            waited.borrow_mut().push(due.elapsed().as_secs_f64());
        }
        Ok(done)
    })
    .await?;
    sample.latencies = waited.into_inner();
    Ok(sample)
}

/// As [`drive`], for what must be there before it is measured: all of it, or an error.
pub(super) async fn fill(
    door: &Door,
    group: &Group,
    load: Load,
    operation: impl AsyncFn(&mut Session, usize) -> io::Result<Done>,
) -> io::Result<()> {
    let filled = drive(door, group, load, operation).await?;
    if filled.latencies.len() < load.operations {
        let (made, wanted) = (filled.latencies.len(), load.operations);
        let text = format!(
            "only {made} of {wanted} files were there after {:?}",
            load.limit
        );
        return Err(io::Error::other(text));
    }
    Ok(())
}
