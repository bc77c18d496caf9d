//! The targets of `docs/performance.md` that are ratios, and whether a row meets its own.

use super::rounds::Compared;

/// Row, part of what it does, baseline, and the least ratio.
type Target = (&'static str, &'static str, &'static str, f64);

const TARGETS: [Target; 8] = [
    ("W1", "PUT", "three direct files", 0.75),
    ("W2", " warm, c=", "nginx", 0.75),
    (
        "W2",
        " cold, c=1",
        "dd iflag=direct bs=4M of the chunk files",
        0.85,
    ),
    ("W3", "PUT 4 KiB, R=3, c=64", "three fdatasynced logs", 0.2),
    ("W3", "PUT 4 KiB, R=3, c=64", "SeaweedFS filer, fsync", 10.0),
    ("W4", "GET 4 KiB", "nginx", 0.65),
    ("W5", "create, c=64", "commit loop of four logs", 0.3),
    ("W6", "page of", "range and format of a sorted map", 0.5),
];

/// The least ratio that is wanted of a row; none where no target is set.
pub(super) fn of(id: &str, what: &str, contender: &str, baseline: &str) -> Option<f64> {
    let wanted = |target: &&Target| {
        contender == "dfs" && id == target.0 && what.contains(target.1) && baseline == target.2
    };
    TARGETS.iter().find(wanted).map(|target| target.3)
}

/// `not resolved` where the baseline moves more than what is seen is away from the target.
pub(super) fn verdict(compared: &Compared, target: f64) -> &'static str {
    if compared.drift > (compared.median / target - 1.0).abs() {
        "not resolved"
    } else if compared.median >= target {
        "met"
    } else {
        "missed"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_from_the_target_that_is_smaller_than_the_drift_is_no_verdict() {
        let compared = |median, drift| Compared {
            median,
            least: median,
            most: median,
            drift,
        };
        assert_eq!(verdict(&compared(0.76, 0.14), 0.85), "not resolved");
        assert_eq!(verdict(&compared(0.44, 0.14), 0.75), "missed");
        assert_eq!(verdict(&compared(0.9, 0.01), 0.75), "met");
    }

    #[test]
    fn only_ours_has_targets_and_each_has_its_own_baseline() {
        let what = "GET 256 MiB warm, c=4";
        assert_eq!(of("W2", what, "dfs", "nginx"), Some(0.75));
        assert_eq!(of("W2", what, "dfs", "nginx, two hops"), None);
        assert_eq!(of("W2", what, "SeaweedFS", "nginx"), None);
        assert_eq!(
            of(
                "W2",
                "GET ranges of 64 KiB of 256 MiB, warm, c=4",
                "dfs",
                "nginx"
            ),
            Some(0.75)
        );
    }
}
