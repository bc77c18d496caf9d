//! Where traces go. The variables are those of OpenTelemetry.

use std::str::FromStr;

use clap::Args;
use dfs_runtime::trace::{Collector, ParseCollectorError};

/// Traces of requests.
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
    pub otlp_endpoint: Endpoint,
    /// Share of the requests from outside that are traced, from 0 to 1
    #[arg(long, env = "OTEL_TRACES_SAMPLER_ARG", value_name = "RATIO", default_value = "1",
          value_parser = parse_ratio)]
    pub trace_ratio: f64,
    /// Names this process in traces [default: a datanode's pod, or where it listens]
    #[arg(long, env = "DFS_TRACE_INSTANCE", value_name = "NAME")]
    pub trace_instance: Option<String>,
}

/// A collector, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endpoint(pub Option<Collector>);

impl FromStr for Endpoint {
    type Err = ParseCollectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let given = Some(text.trim()).filter(|text| !text.is_empty());
        Ok(Self(given.map(str::parse).transpose()?))
    }
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    let ratio = text.trim().parse().ok();
    ratio
        .filter(|ratio| (0.0..=1.0).contains(ratio))
        .ok_or_else(|| format!("`{text}` is no share; write a number from 0 to 1, as 0.1"))
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

    fn read(line: &[&str]) -> Result<TraceArgs, String> {
        let line = Line::try_parse_from([&["dfs"], line].concat());
        line.map(|line| line.trace)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_is_traced_unless_a_collector_is_named() {
        assert_eq!(read(&[]).unwrap().otlp_endpoint, Endpoint(None));
        let empty = read(&["--otlp-endpoint", ""]).unwrap();
        assert_eq!(empty.otlp_endpoint, Endpoint(None));
        let named = read(&[
            "--otlp-endpoint",
            "http://otel:4318",
            "--trace-ratio",
            "0.1",
        ]);
        let named = named.unwrap();
        assert!(named.otlp_endpoint.0.is_some());
        assert!((named.trace_ratio - 0.1).abs() < f64::EPSILON);
    }

    #[test]
    fn what_cannot_be_used_says_what_can() {
        let tls = read(&["--otlp-endpoint", "https://otel:4318"]).unwrap_err();
        assert!(tls.contains("plain http"), "{tls}");
        for bad in ["-1", "1.5", "NaN", "all"] {
            let error = read(&["--trace-ratio", bad].map(|word| word)).unwrap_err();
            assert!(error.contains("0 to 1") || bad == "-1", "{error}");
        }
    }
}
