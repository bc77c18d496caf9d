//! Contenders alternate inside every round, in shuffled order, and only ratios within a round count.

use std::future::Future;
use std::io;
use std::pin::Pin;

/// One measurement.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// How long it took.
    pub(super) seconds: f64,
    /// How much was done: bytes, or operations.
    pub(super) amount: f64,
    /// CPU seconds by process.
    pub(super) cpu: Vec<(String, f64)>,
    /// Requests that were refused for now and repeated; the time they took counts.
    pub(super) refusals: u64,
    /// Seconds of each operation, where they were taken.
    pub(super) latencies: Vec<f64>,
}

impl Sample {
    /// Amount in a second.
    pub(super) fn rate(&self) -> f64 {
        self.amount / self.seconds.max(1e-9)
    }
}

/// Takes one sample; the argument is the round.
pub(super) type Run<'a> =
    Box<dyn FnMut(usize) -> Pin<Box<dyn Future<Output = io::Result<Sample>> + 'a>> + 'a>;

/// Samples of each contender, first round dropped.
pub(super) async fn interleave(
    contenders: &mut [Run<'_>],
    rounds: usize,
    seed: u64,
) -> io::Result<Vec<Vec<Sample>>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut samples = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..contenders.len()).collect();
        rng.shuffle(&mut order);
        for index in order {
            let sample = contenders[index](round).await?;
            if round > 0 {
                samples[index].push(sample);
            }
        }
    }
    Ok(samples)
}

/// Ratios of one contender to another, round by round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Compared {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    /// Median change of the baseline from one round to the next, as a share of its median.
    pub(super) drift: f64,
}

impl Compared {
    pub(super) fn of(ours: &[Sample], baseline: &[Sample]) -> Self {
        let pairs = ours.iter().zip(baseline);
        let ratios: Vec<f64> = pairs.map(|(o, b)| o.rate() / b.rate()).collect();
        let rates: Vec<f64> = baseline.iter().map(Sample::rate).collect();
        let steps = rates.windows(2).map(|pair| (pair[1] - pair[0]).abs());
        Self {
            median: median(&ratios),
            least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            most: ratios.iter().copied().fold(0.0, f64::max),
            drift: median(&steps.collect::<Vec<_>>()) / median(&rates).max(1e-9),
        }
    }

    /// Whether the baseline moves less than what is seen.
    pub(super) fn is_resolved(&self) -> bool {
        self.drift <= (1.0 - self.median).abs()
    }
}

/// The middle value, 0 of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len(), sorted.len().is_multiple_of(2)) {
        (0, _) => 0.0,
        (_, true) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        (_, false) => sorted[middle],
    }
}

/// p50 and p99 of all operations, where they were taken.
pub(super) fn percentiles(samples: &[Sample]) -> Option<(f64, f64)> {
    let [half, most] = per_mille(samples, [500, 990])?;
    Some((half, most))
}

/// The times that so many of a thousand operations are below.
pub(super) fn per_mille<const N: usize>(
    samples: &[Sample],
    points: [usize; N],
) -> Option<[f64; N]> {
    let all = samples.iter().flat_map(|sample| &sample.latencies);
    let mut sorted: Vec<f64> = all.copied().collect();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty()).then(|| points.map(|point| sorted[sorted.len() * point / 1000]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(rates: &[f64]) -> Vec<Sample> {
        let sample = |rate: &f64| Sample {
            seconds: 2.0,
            amount: rate * 2.0,
            ..Sample::default()
        };
        rates.iter().map(sample).collect()
    }

    #[test]
    fn percentiles_are_those_of_all_rounds_together() {
        let mut samples = rates(&[1.0, 1.0]);
        samples[0].latencies = (1..=50).map(f64::from).collect();
        samples[1].latencies = (51..=100).map(f64::from).collect();
        assert_eq!(percentiles(&samples), Some((51.0, 100.0)));
        assert_eq!(percentiles(&rates(&[1.0])), None);
    }

    #[test]
    fn a_machine_that_slows_down_for_both_does_not_change_the_ratio() {
        let compared = Compared::of(&rates(&[50.0, 5.0, 25.0]), &rates(&[100.0, 10.0, 50.0]));
        assert!((compared.median - 0.5).abs() < 1e-9);
        assert!((compared.least - compared.most).abs() < 1e-9);
    }

    #[test]
    fn an_effect_smaller_than_the_baselines_drift_is_not_resolved() {
        let baseline = rates(&[100.0, 150.0, 100.0, 150.0]);
        let near = Compared::of(&rates(&[95.0, 140.0, 97.0, 139.0]), &baseline);
        assert!(!near.is_resolved());
        let far = Compared::of(&rates(&[10.0, 15.0, 10.0, 15.0]), &baseline);
        assert!(far.is_resolved());
    }

    #[tokio::test]
    async fn every_contender_runs_in_every_round_and_the_first_is_dropped() {
        let run = |rate: f64| -> Run<'static> {
            Box::new(move |_| {
                Box::pin(async move {
                    Ok(Sample {
                        seconds: 1.0,
                        amount: rate,
                        ..Sample::default()
                    })
                })
            })
        };
        let mut contenders = [run(1.0), run(2.0)];
        let samples = interleave(&mut contenders, 4, 7).await.unwrap();
        assert!(samples.iter().all(|samples| samples.len() == 3));
        assert!((samples[1][0].rate() - 2.0).abs() < 1e-9);
    }
}
