//! Where a role's traces go, as it is given on the command line.

use dfs_runtime::trace::{Exporting, Resource, TraceMetrics, Tracer, TracerParts};
use prometheus::Registry;

use crate::args::{Role, TraceArgs};
use crate::exit::{Exit, Failure};
use crate::roles::World;

/// A role's tracer, and its exporter where there is a collector.
#[derive(Debug)]
pub struct Traces {
    /// What requests are written down with.
    pub tracer: Tracer,
    exporting: Option<Exporting>,
}

impl Traces {
    /// Registers what becomes of spans, and starts the exporter where a collector was named. `instance`
    /// tells this process from others of its role. Settings that cannot be followed keep no store from starting.
    pub fn of_role(
        args: &TraceArgs,
        role: Role,
        instance: &str,
        world: &World,
        registry: &Registry,
    ) -> Result<Self, Failure> {
        let metrics = TraceMetrics::register(registry)
            .map_err(|error| Failure::new(Exit::Failed, "register metrics", error.to_string()))?;
        let settings = args.settings().unwrap_or_else(|error| {
            tracing::warn!(%error, "nothing is traced, all else goes on: correct the setting, or take it away");
            metrics.refused.set(1);
            None
        });
        let Some(settings) = settings else {
            return Ok(Self {
                tracer: Tracer::off(),
                exporting: None,
            });
        };
        tracing::info!(collector = %settings.collector, ratio = settings.ratio, "requests are traced");
        let resource = Resource {
            service: match role {
                Role::Tracker => "dfs-tracker",
                Role::Datanode => "dfs-datanode",
                Role::Gateway => "dfs-gateway",
            },
            instance: args
                .trace_instance
                .clone()
                .unwrap_or_else(|| instance.to_owned()),
        };
        let parts = TracerParts {
            clock: world.clock.clone(),
            rng: world.rng.clone(),
            connector: world.connector.clone(),
            metrics,
        };
        let (tracer, exporting) = Tracer::start(settings, resource, parts);
        Ok(Self {
            tracer,
            exporting: Some(exporting),
        })
    }

    /// Sends what waits, within two seconds; after the last request.
    pub async fn finish(self) {
        let Self { tracer, exporting } = self;
        drop(tracer);
        if let Some(exporting) = exporting {
            exporting.finish().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_be_used_cost_traces_and_nothing_else() {
        for (endpoint, ratio) in [
            ("https://otel:4318", "1"),
            ("http://otel:99999", "1"),
            ("http://otel:4318", "all"),
        ] {
            let args = TraceArgs {
                otlp_endpoint: endpoint.to_owned(),
                trace_ratio: ratio.to_owned(),
                trace_instance: None,
            };
            let registry = Registry::new();
            let world = World::real();
            let traces = Traces::of_role(&args, Role::Gateway, "here", &world, &registry).unwrap();
            assert!(traces.exporting.is_none(), "{endpoint} {ratio}");
            let told = prometheus::TextEncoder::new().encode_to_string(&registry.gather());
            let told = told.unwrap();
            assert!(told.contains("\ndfs_trace_settings_refused 1\n"), "{told}");
        }
    }
}
