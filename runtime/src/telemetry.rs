//! Logs: for people on a terminal, one JSON object a line everywhere else, always on stderr.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Environment variable that holds the filter (`info`, `dfs_tracker=debug,info`, ...).
pub const LOG_VARIABLE: &str = "DFS_LOG";

/// Starts logging with the filter of [`LOG_VARIABLE`] (default `info`) and sends panics through it.
/// Returns false when something in this process logs already: that one is kept.
pub fn init() -> bool {
    init_from(LevelFilter::INFO)
}

/// As [`init`], with warnings and errors only unless [`LOG_VARIABLE`] asks for more: for programs
/// whose standard output a person reads.
pub fn init_quiet() -> bool {
    init_from(LevelFilter::WARN)
}

fn init_from(default: LevelFilter) -> bool {
    let filter = EnvFilter::builder()
        .with_default_directive(default.into())
        .with_env_var(LOG_VARIABLE)
        .from_env_lossy();
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal);
    let started = if terminal {
        builder.finish().try_init().is_ok()
    } else {
        builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .finish()
            .try_init()
            .is_ok()
    };
    if started {
        log_panics();
    }
    started
}

/// A panic is a log line like others, so that collectors of JSON lines see it.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let place = panic.location().map(ToString::to_string);
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(place, %backtrace, "panicked: {message}");
    }));
}

#[cfg(test)]
mod tests {
    #[test]
    fn starting_logs_twice_keeps_the_first() {
        let first = super::init();
        assert!(!super::init());
        // Nothing else in this test binary starts logs.
        assert!(first);
    }
}
