//! What the process takes from the machine, read from `/proc` at each scrape; and what it is.
//! Series that Prometheus client libraries share by convention keep their conventional names.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge, IntGaugeVec, Opts, Registry};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// `utime` and `stime` count in these; fixed at 100 by Linux's user-space interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Registers the process's metrics and `dfs_build_info{version, role}`.
pub fn register(registry: &Registry, role: &'static str) -> Result<(), prometheus::Error> {
    registry.register(Box::new(ProcessCollector::new()?))?;
    let options = Opts::new(
        "dfs_build_info",
        "Constant 1, with the version and the role",
    );
    let info = IntGaugeVec::new(options, &["version", "role"])?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION"), role])
        .set(1);
    registry.register(Box::new(info))
}

#[derive(Debug)]
struct ProcessCollector {
    resident: IntGauge,
    open_handles: IntGauge,
    handle_limit: IntGauge,
    threads: IntGauge,
    cpu: Counter,
    started: Gauge,
}

impl ProcessCollector {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            resident: IntGauge::new("process_resident_memory_bytes", "Resident memory")?,
            open_handles: IntGauge::new("process_open_fds", "Open file handles")?,
            handle_limit: IntGauge::new("process_max_fds", "Limit of open file handles")?,
            threads: IntGauge::new("process_threads", "Threads")?,
            cpu: Counter::new(
                "process_cpu_seconds_total",
                "User and system time since the process started",
            )?,
            started: Gauge::new(
                "process_start_time_seconds",
                "When the process started, in seconds since 1970",
            )?,
        })
    }

    /// What cannot be read keeps its last value: a scrape never fails for it.
    fn refresh(&self) {
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            if let Some(kib) = status_field(&status, "VmRSS:") {
                self.resident.set(kib.saturating_mul(1024));
            }
            if let Some(threads) = status_field(&status, "Threads:") {
                self.threads.set(threads);
            }
        }
        if let Ok(handles) = std::fs::read_dir("/proc/self/fd") {
            // The listing itself holds one.
            let count = handles.count().saturating_sub(1);
            self.open_handles
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let limit = limit.and_then(|limit| i64::try_from(limit).ok());
        self.handle_limit.set(limit.unwrap_or(i64::MAX));
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
            && let Some(ticks) = cpu_ticks(&stat)
        {
            let seconds = ticks as f64 / TICKS_PER_SECOND;
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
            // Once: the moment of the boot is told anew when somebody sets the clock.
            if self.started.get() == 0.0
                && let Ok(machine) = std::fs::read_to_string("/proc/stat")
                && let Some(seconds) = start_seconds(&stat, &machine)
            {
                self.started.set(seconds);
            }
        }
    }

    fn parts(&self) -> [&dyn Collector; 6] {
        [
            &self.resident,
            &self.open_handles,
            &self.handle_limit,
            &self.threads,
            &self.cpu,
            &self.started,
        ]
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        self.parts()
            .into_iter()
            .flat_map(Collector::collect)
            .collect()
    }
}

fn status_field(status: &str, name: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User plus system ticks; the command name before them may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// Seconds since 1970: ticks since the boot, and when that was.
fn start_seconds(stat: &str, machine: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let boot = status_field(machine, "btime")?;
    Some(boot as f64 + ticks as f64 / TICKS_PER_SECOND)
}

/// Raises the limit of open file handles as far as the machine allows; the usual default is meant
/// for programs that use `select`. What it is afterwards, `None` when there is none.
pub fn raise_handle_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Refused: the limit stays as it is, and the caps follow it.
    let _refused = setrlimit(Resource::Nofile, raised);
    handle_limit()
}

/// How many file handles this process may have open; `None` when there is no limit.
pub fn handle_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_behind_a_strange_command_name() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_ticks(stat), Some(200));
        assert_eq!(cpu_ticks("7 (a"), None);
    }

    #[test]
    fn the_start_is_counted_from_the_boot() {
        let stat = "7 (a b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 250 20";
        assert_eq!(start_seconds(stat, "cpu 1\nbtime 1000\n"), Some(1002.5));
        assert_eq!(start_seconds(stat, "cpu 1\n"), None);
    }

    #[test]
    fn a_scrape_sees_memory_handles_and_the_build() {
        let registry = Registry::new();
        register(&registry, "test").unwrap();
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 1e5);
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_threads") >= 1.0);
        let started = value("process_start_time_seconds");
        assert!(started > 1e9, "{started}");
        assert!(text.contains("role=\"test\""), "{text}");
    }
}
