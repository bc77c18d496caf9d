//! Where a role's traces go, as it is given on the command line.

use dfs_runtime::trace::{Exporting, Resource, TraceMetrics, TraceSettings, Tracer, TracerParts};
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
    /// tells this process from others of its role.
    pub fn of_role(
        args: &TraceArgs,
        role: Role,
        instance: &str,
        world: &World,
        registry: &Registry,
    ) -> Result<Self, Failure> {
        let metrics = TraceMetrics::register(registry)
            .map_err(|error| Failure::new(Exit::Failed, "register metrics", error.to_string()))?;
        let Some(collector) = args.otlp_endpoint.0.clone() else {
            return Ok(Self {
                tracer: Tracer::off(),
                exporting: None,
            });
        };
        let ratio = args.trace_ratio;
        tracing::info!(%collector, ratio, "requests are traced");
        let settings = TraceSettings { collector, ratio };
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
