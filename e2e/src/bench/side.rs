//! Contenders of one row: baselines, ours, another binary of ours, peers; all in the same rounds.

use std::io;

use super::group::Group;
use super::report::{Report, Row, Unit};
use super::rounds::{Run, Sample, interleave};
use super::settings::Settings;

/// What a contender is to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// What the machine can do.
    Baseline,
    /// The binary under test.
    Ours,
    /// The one that stands beside it.
    Other,
    /// Another store.
    Peer,
}

/// One contender.
pub(super) struct Side<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Kind,
    /// What it promises when it answers.
    pub(super) class: &'static str,
    /// Whose memory counts; a baseline may have no processes.
    pub(super) group: Option<&'a Group>,
    pub(super) run: Run<'a>,
}

/// What all contenders do.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) id: &'static str,
    pub(super) what: String,
    pub(super) unit: Unit,
}

/// Measures all of them in the same rounds and reports who is compared with whom.
pub(super) async fn measure(
    settings: &Settings,
    report: &mut Report,
    task: &Task,
    sides: Vec<Side<'_>>,
) -> io::Result<()> {
    let (facts, mut runs): (Vec<Fact<'_>>, Vec<Run<'_>>) = sides
        .into_iter()
        .map(|side| {
            let Side {
                name,
                kind,
                class,
                group,
                run,
            } = side;
            ((name, kind, class, group), run)
        })
        .unzip();
    for group in facts.iter().filter_map(|(.., group)| *group) {
        group.reset_peaks();
    }
    let samples = interleave(&mut runs, settings.rounds, settings.seed).await?;
    let all: Vec<Measured<'_>> = facts.into_iter().zip(samples).collect();
    for (one, two) in pairs(&all) {
        let ((name, _, class, group), ours) = one;
        let peaks = group.map_or_else(Vec::new, Group::peaks);
        let Some(((against, _, its_class, _), baseline)) = two else {
            let Task { id, what, unit } = task;
            report.alone(id, what, class, *unit, (name, ours), &peaks)?;
            continue;
        };
        report.compare(Row {
            id: task.id,
            what: task.what.clone(),
            class: if class == its_class {
                (*class).to_owned()
            } else {
                format!("{class} / {its_class}")
            },
            unit: task.unit,
            baseline: (against, baseline),
            ours: (name, ours),
            peaks,
        })?;
    }
    Ok(())
}

type Fact<'a> = (&'a str, Kind, &'static str, Option<&'a Group>);
type Measured<'a> = (Fact<'a>, Vec<Sample>);

/// Ours and the other one against each baseline, peers against the first one; ours against the
/// other one and against each peer. What has no baseline stands alone.
fn pairs<'a, 'm>(all: &'m [Measured<'a>]) -> Vec<(&'m Measured<'a>, Option<&'m Measured<'a>>)> {
    let of = |kind: Kind| all.iter().filter(move |((_, own, ..), _)| *own == kind);
    let mut pairs = Vec::new();
    for kind in [Kind::Ours, Kind::Other, Kind::Peer] {
        for one in of(kind) {
            let most = if kind == Kind::Peer { 1 } else { usize::MAX };
            let before = pairs.len();
            pairs.extend(of(Kind::Baseline).take(most).map(|two| (one, Some(two))));
            if pairs.len() == before {
                pairs.push((one, None));
            }
        }
    }
    for ours in of(Kind::Ours) {
        let rest = of(Kind::Other).chain(of(Kind::Peer));
        pairs.extend(rest.map(|two| (ours, Some(two))));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(all: &[(&'static str, Kind)]) -> Vec<String> {
        let all: Vec<Measured<'_>> = all
            .iter()
            .map(|(name, kind)| ((*name, *kind, "D2", None), Vec::new()))
            .collect();
        let tell = |(one, two): (&Measured<'_>, Option<&Measured<'_>>)| {
            format!("{}/{}", one.0.0, two.map_or("", |two| two.0.0))
        };
        pairs(&all).into_iter().map(tell).collect()
    }

    #[test]
    fn ours_meets_every_baseline_and_every_peer_and_a_peer_the_first_baseline() {
        let all = [
            ("plain", Kind::Baseline),
            ("two hops", Kind::Baseline),
            ("dfs", Kind::Ours),
            ("weed", Kind::Peer),
        ];
        let expected = ["dfs/plain", "dfs/two hops", "weed/plain", "dfs/weed"];
        assert_eq!(named(&all), expected);
    }

    #[test]
    fn without_a_baseline_a_contender_stands_alone() {
        assert_eq!(named(&[("dfs", Kind::Ours)]), ["dfs/"]);
    }
}
