//! Where traces go. The variables are those of OpenTelemetry.

use clap::Args;
use dfs_runtime::trace::{ParseCollectorError, TraceSettings};

/// Traces of requests. Kept as they were given: these variables are often set for everything that runs in a place,
/// and what cannot be followed costs traces, not the store.
#[derive(Debug, Clone, Args)]
pub struct TraceArgs {
    /// Collector that requests are traced to, over OTLP/HTTP (http://HOST:4318) [default: none]
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        value_name = "URL",
        default_value = "",
        hide_default_value = true
    )]
    pub otlp_endpoint: String,
    /// Share of the requests from outside that are traced, from 0 to 1
    #[arg(
        long,
        env = "OTEL_TRACES_SAMPLER_ARG",
        value_name = "RATIO",
        default_value = "1",
        allow_hyphen_values = true
    )]
    pub trace_ratio: String,
    /// Names this process in traces [default: a datanode's pod, or where it listens]
    #[arg(long, env = "DFS_TRACE_INSTANCE", value_name = "NAME")]
    pub trace_instance: Option<String>,
}

/// Why nothing is traced although a collector was named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableTraces {
    /// Its address is none that spans are sent to.
    #[error("--otlp-endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) is `{given}`: {source}")]
    Endpoint {
        /// What was given.
        given: String,
        /// What is wrong with it, and what to write.
        source: ParseCollectorError,
    },
    /// The share is none.
    #[error(
        "--trace-ratio (OTEL_TRACES_SAMPLER_ARG) is `{0}`, which is no share; write a number from 0 to 1, as 0.1"
    )]
    Ratio(String),
}

impl TraceArgs {
    /// What is sent where; nothing where no collector is named.
    pub fn settings(&self) -> Result<Option<TraceSettings>, UnusableTraces> {
        let given = self.otlp_endpoint.trim();
        if given.is_empty() {
            return Ok(None);
        }
        let collector = given.parse().map_err(|source| UnusableTraces::Endpoint {
            given: given.to_owned(),
            source,
        })?;
        let ratio = self.trace_ratio.trim().parse().ok();
        let ratio = ratio
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .ok_or_else(|| UnusableTraces::Ratio(self.trace_ratio.clone()))?;
        Ok(Some(TraceSettings { collector, ratio }))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        trace: TraceArgs,
    }

    fn read(line: &[&str]) -> Result<Option<TraceSettings>, String> {
        let line = Line::try_parse_from([&["dfs"], line].concat());
        let trace = line.expect("nothing is refused on the line").trace;
        trace.settings().map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_traced_unless_a_collector_is_named() {
        assert!(read(&[]).unwrap().is_none());
        assert!(read(&["--otlp-endpoint", ""]).unwrap().is_none());
        assert!(read(&["--trace-ratio", "all"]).unwrap().is_none());
        let named = read(&[
            "--otlp-endpoint",
            "http://otel:4318",
            "--trace-ratio",
            "0.1",
        ]);
        let named = named.unwrap().expect("a collector is named");
        assert!((named.ratio - 0.1).abs() < f64::EPSILON);
    }

    #[test]
    fn what_cannot_be_used_says_what_can() {
        let tls = read(&["--otlp-endpoint", "https://otel:4318"]).unwrap_err();
        assert!(tls.contains("plain http"), "{tls}");
        assert!(tls.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{tls}");
        let none = read(&["--otlp-endpoint", "http://otel:99999"]).unwrap_err();
        assert!(none.contains("http://HOST:4318"), "{none}");
        for bad in [
            "-1",
            "1.5",
            "NaN",
            "all",
            "endpoint=http://x,pollingIntervalMs=5",
        ] {
            let words = ["--otlp-endpoint", "http://otel:4318", "--trace-ratio", bad];
            let error = read(&words).unwrap_err();
            assert!(error.contains("0 to 1"), "{error}");
        }
    }
}
