//! Following one request through the roles.
//!
//! Every request has a trace: the client's own (`traceparent`) or a new one. Its id is in the log, in
//! error answers and in every call that the request makes, whether or not anything is exported. Where an
//! exporter runs, a share of the requests is written down as spans and sent to a collector. A span holds
//! ids, names out of closed sets, statuses and numbers: never a path, a header or a file's bytes.
//!
//! What a request spawns must be [`carried`], or its calls belong to nobody.

mod export;
mod metrics;
mod otlp;
mod span;
#[cfg(test)]
mod tests;
mod tracer;

pub use export::{Collector, Exporting, ParseCollectorError, TraceSettings};
pub use metrics::TraceMetrics;
pub use span::{Kind, Span};
pub use tracer::{Resource, Tracer, TracerParts};

use std::future::Future;

use dfs_protocol::TraceContext;
use http::HeaderValue;
use tracing::Instrument as _;

tokio::task_local! {
    static CURRENT: Current;
}

/// Where the running task is in a trace, and who writes it down.
#[derive(Debug, Clone)]
pub struct Current {
    tracer: Tracer,
    context: TraceContext,
    /// The context as calls carry it: made once, its bytes are shared.
    header: HeaderValue,
}

impl Current {
    pub(crate) fn new(tracer: Tracer, context: TraceContext) -> Self {
        Self {
            tracer,
            context,
            header: header_of(&context),
        }
    }

    /// The trace, and the span that calls belong under.
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Of the running task, if it works for a request.
    pub fn get() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Runs a future as part of the trace.
    pub async fn scope<F: Future>(self, future: F) -> F::Output {
        CURRENT.scope(self, future).await
    }
}

fn header_of(context: &TraceContext) -> HeaderValue {
    // Hex digits and dashes are a header's value.
    HeaderValue::from_bytes(&context.traceparent()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A call that the running task makes: what it carries, and its span.
#[derive(Debug)]
pub struct Outgoing {
    /// The `traceparent`; none where nobody asked for the call.
    pub header: Option<HeaderValue>,
    /// The same, for those who do not speak HTTP.
    pub context: Option<TraceContext>,
    /// Ends when it is dropped.
    pub span: Span,
}

/// Begins a call to another role.
pub fn outgoing(name: &'static str) -> Outgoing {
    let outgoing = CURRENT.try_with(|current| {
        let span = current.tracer.child(&current.context, Kind::Client, name);
        match span.context() {
            None => Outgoing {
                header: Some(current.header.clone()),
                context: Some(current.context),
                span,
            },
            Some(context) => Outgoing {
                header: Some(header_of(&context)),
                context: Some(context),
                span,
            },
        }
    });
    outgoing.unwrap_or(Outgoing {
        header: None,
        context: None,
        span: Span::none(),
    })
}

/// The future, as part of the running task's trace and log span: for what a request spawns.
pub fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> + use<F> {
    let current = Current::get();
    let carried = async move {
        match current {
            Some(current) => current.scope(future).await,
            None => future.await,
        }
    };
    carried.in_current_span()
}
