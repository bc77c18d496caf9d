//! JSON lines as figures come, one table at the end.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::rounds::{Compared, Sample, median, percentiles};
use super::targets;

/// How a rate is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Amounts are bytes.
    Bytes,
    /// Amounts are operations.
    Operations,
}

impl Unit {
    fn tell(self, rate: f64) -> String {
        match self {
            Self::Bytes => format!("{:.3} GB/s", rate / 1e9),
            Self::Operations => format!("{rate:.0}/s"),
        }
    }

    /// GB, or thousand operations.
    fn scale(self) -> (&'static str, f64) {
        match self {
            Self::Bytes => ("cpu-s/GB", 1e9),
            Self::Operations => ("cpu-s/kop", 1e3),
        }
    }
}

/// One row as it was measured.
#[derive(Debug)]
pub(super) struct Row<'a> {
    /// Of docs/performance.md.
    pub(super) id: &'static str,
    pub(super) what: String,
    /// D0, D1, D2 or `-`; of both where a peer promises something else.
    pub(super) class: String,
    pub(super) unit: Unit,
    pub(super) baseline: (&'a str, &'a [Sample]),
    pub(super) ours: (&'a str, &'a [Sample]),
    pub(super) peaks: Vec<(String, u64)>,
}

/// Rows so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    facts: Value,
    rows: Vec<[String; 10]>,
    notes: Vec<String>,
}

impl Report {
    /// What the figures depend on.
    pub(super) fn facts(&mut self, facts: &Value) -> io::Result<()> {
        self.facts = facts.clone();
        line(&json!({ "machine": facts }))
    }

    /// Adds a row of two contenders.
    pub(super) fn compare(&mut self, row: Row<'_>) -> io::Result<()> {
        let Row {
            id,
            what,
            class,
            unit,
            baseline,
            ours,
            peaks,
        } = row;
        let compared = Compared::of(ours.1, baseline.1);
        let rate =
            |samples: &[Sample]| median(&samples.iter().map(Sample::rate).collect::<Vec<_>>());
        let (rate_ours, rate_base) = (rate(ours.1), rate(baseline.1));
        let cpu = cpu_per(ours.1, unit);
        let cpu_base = cpu_per(baseline.1, unit);
        let verdict = if compared.is_resolved() {
            "resolved"
        } else {
            "not resolved"
        };
        let target = targets::of(id, &what, ours.0, baseline.0);
        let judged = target.map(|target| (target, targets::verdict(&compared, target)));
        line(&json!({
            "target": target, "target_verdict": judged.map(|(_, verdict)| verdict),
            "id": id, "what": what, "class": class, "contender": ours.0, "baseline": baseline.0,
            "rate": rate_ours, "baseline_rate": rate_base,
            "ratio_median": compared.median, "ratio_min": compared.least,
            "ratio_max": compared.most, "baseline_drift": compared.drift, "verdict": verdict,
            "cpu_unit": unit.scale().0, "cpu": map(&cpu), "baseline_cpu": map(&cpu_base),
            "peak_bytes": map(&peaks), "rounds": ours.1.len(),
            "refused_and_repeated": ours.1.iter().map(|s| s.refusals).sum::<u64>(),
            "p50_p99_s": percentiles(ours.1), "baseline_p50_p99_s": percentiles(baseline.1),
        }))?;
        let total: f64 = cpu.iter().map(|(_, seconds)| seconds).sum();
        let total_base: f64 = cpu_base.iter().map(|(_, seconds)| seconds).sum();
        self.rows.push([
            id.to_owned(),
            format!("{what}: {} / {}", ours.0, baseline.0),
            class,
            format!("{} / {}", unit.tell(rate_ours), unit.tell(rate_base)),
            format!(
                "{:.2} ({:.2}..{:.2})",
                compared.median, compared.least, compared.most
            ),
            format!("{:.0} %", compared.drift * 100.0),
            judged.map_or(verdict.to_owned(), |(target, judged)| {
                format!("{verdict}; {target}: {judged}")
            }),
            format!(
                "{} / {}",
                tell_latency(percentiles(ours.1)),
                tell_latency(percentiles(baseline.1))
            ),
            format!("{total:.2} / {total_base:.2} {}", unit.scale().0),
            tell_peaks(&peaks),
        ]);
        Ok(())
    }

    /// Adds a row of one contender.
    pub(super) fn alone(
        &mut self,
        id: &'static str,
        what: &str,
        class: &str,
        unit: Unit,
        (name, samples): (&str, &[Sample]),
        peaks: &[(String, u64)],
    ) -> io::Result<()> {
        let rates: Vec<f64> = samples.iter().map(Sample::rate).collect();
        let cpu = cpu_per(samples, unit);
        let total: f64 = cpu.iter().map(|(_, seconds)| seconds).sum();
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rates.iter().copied().fold(0.0, f64::max);
        line(&json!({
            "id": id, "what": what, "class": class, "contender": name, "rate": median(&rates),
            "rate_min": least, "rate_max": most, "cpu_unit": unit.scale().0, "cpu": map(&cpu),
            "peak_bytes": map(peaks), "rounds": samples.len(),
            "refused_and_repeated": samples.iter().map(|s| s.refusals).sum::<u64>(),
            "p50_p99_s": percentiles(samples),
        }))?;
        self.rows.push([
            id.to_owned(),
            format!("{what}: {name}"),
            class.to_owned(),
            unit.tell(median(&rates)),
            format!("({}..{})", unit.tell(least), unit.tell(most)),
            "-".to_owned(),
            "-".to_owned(),
            tell_latency(percentiles(samples)),
            format!("{total:.2} {}", unit.scale().0),
            tell_peaks(peaks),
        ]);
        Ok(())
    }

    /// Adds figures that have no rounds.
    pub(super) fn note(&mut self, id: &'static str, text: &str, figures: &Value) -> io::Result<()> {
        self.notes.push(format!("{id}: {text}"));
        line(&json!({ "id": id, "what": text, "figures": figures }))
    }

    /// Prints everything once more, for people.
    pub(super) fn table(&self) -> io::Result<()> {
        let head = [
            "row",
            "ours / baseline",
            "class",
            "rates",
            "ratio (min..max)",
            "drift",
            "verdict",
            "p50, p99 ms",
            "CPU ours / baseline",
            "peak RSS",
        ]
        .map(str::to_owned);
        let all: Vec<&[String; 10]> = std::iter::once(&head).chain(&self.rows).collect();
        let mut text = format!("\n{}\n\n", self.facts);
        for (number, row) in all.iter().enumerate() {
            text.push('|');
            for (column, cell) in row.iter().enumerate() {
                let width = all.iter().map(|r| r[column].chars().count()).max();
                let _fits = write!(text, " {cell:<width$} |", width = width.unwrap_or(0));
            }
            text.push('\n');
            if number == 0 {
                let _fits = writeln!(text, "|{}", "---|".repeat(row.len()));
            }
        }
        text.push('\n');
        for note in &self.notes {
            let _fits = writeln!(text, "- {note}");
        }
        io::stdout().write_all(text.as_bytes())
    }
}

/// CPU seconds for a GB or for a thousand operations, over all rounds together: one round alone is
/// only a few clock ticks.
fn cpu_per(samples: &[Sample], unit: Unit) -> Vec<(String, f64)> {
    let amount: f64 = samples.iter().map(|sample| sample.amount).sum();
    let names = samples.first().map_or(&[][..], |sample| &sample.cpu);
    names
        .iter()
        .enumerate()
        .map(|(index, (name, _))| {
            let seconds: f64 = samples.iter().map(|s| s.cpu[index].1).sum();
            (name.clone(), seconds / amount * unit.scale().1)
        })
        .collect()
}

fn tell_latency(percentiles: Option<(f64, f64)>) -> String {
    percentiles.map_or("-".to_owned(), |(half, most)| {
        format!("{:.2}, {:.2}", half * 1e3, most * 1e3)
    })
}

fn tell_peaks(peaks: &[(String, u64)]) -> String {
    let short = |name: &str| name.replace("datanode-", "d").replace("tracker", "t");
    let one = |(name, bytes): &(String, u64)| format!("{} {}", short(name), bytes >> 20);
    let all: Vec<String> = peaks.iter().map(one).collect();
    if all.is_empty() {
        return "-".to_owned();
    }
    format!("{} MiB", all.join(", "))
}

/// Names and figures as a JSON object.
pub(super) fn map<T: serde::Serialize>(figures: &[(String, T)]) -> Value {
    figures
        .iter()
        .map(|(name, figure)| (name.clone(), json!(figure)))
        .collect()
}

/// Says on stderr how far it is: figures alone go to stdout.
pub(super) fn progress(text: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "bench: {text}")
}

fn line(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}
