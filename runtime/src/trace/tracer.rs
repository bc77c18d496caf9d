//! Who decides what is written down, and hands it to the exporter.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dfs_protocol::{SpanId, TraceContext, TraceId};
use tokio::sync::mpsc;

use super::export::{Exporting, TraceSettings};
use super::metrics::{Drop, TraceMetrics};
use super::span::{Ended, Kind, Span};
use super::{Current, export};
use crate::clock::SharedClock;
use crate::net::SharedConnector;
use crate::rng::SharedRng;

/// Spans that wait for the exporter; what comes while so many wait is dropped.
pub(super) const QUEUE: usize = 4096;

/// Who sends the spans, as a collector shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// `dfs-gateway`, `dfs-tracker`, `dfs-datanode`.
    pub service: &'static str,
    /// Its pod, or where it listens.
    pub instance: String,
}

/// What an exporter takes from outside.
#[derive(Debug, Clone)]
pub struct TracerParts {
    /// Time.
    pub clock: SharedClock,
    /// Randomness: ids, and which requests are written down.
    pub rng: SharedRng,
    /// Opens connections to the collector.
    pub connector: SharedConnector,
    /// What becomes of spans.
    pub metrics: TraceMetrics,
}

/// Writes down a share of a role's requests, or nothing. Cloning shares the exporter.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

pub(super) struct Inner {
    pub(super) clock: SharedClock,
    rng: SharedRng,
    /// Of 2^64 requests so many are written down; all of them at the most.
    share: u64,
    queue: mpsc::Sender<Ended>,
    metrics: TraceMetrics,
}

impl Inner {
    /// Never waits: a request is not slowed by who looks at it.
    pub(super) fn hand_over(&self, span: Ended) {
        match self.queue.try_send(span) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => self.metrics.dropped.inc(Drop::QueueFull),
            Err(mpsc::error::TrySendError::Closed(_)) => self.metrics.dropped.inc(Drop::Ended),
        }
    }

    fn span(
        self: &Arc<Self>,
        context: TraceContext,
        parent: Option<SpanId>,
        kind: Kind,
        name: Cow<'static, str>,
    ) -> Span {
        let ended = Ended {
            context,
            parent,
            kind,
            name,
            began: self.clock.wall(),
            lasted: Duration::ZERO,
            facts: Vec::new(),
            failed: None,
        };
        Span::begin(Arc::clone(self), ended)
    }
}

impl Tracer {
    /// Writes nothing down.
    pub fn off() -> Self {
        Self(None)
    }

    /// Starts the exporter; must be called inside a Tokio runtime. Await [`Exporting::finish`] after the
    /// last request: what waits is sent then.
    pub fn start(
        settings: TraceSettings,
        resource: Resource,
        parts: TracerParts,
    ) -> (Self, Exporting) {
        let TracerParts {
            clock,
            rng,
            connector,
            metrics,
        } = parts;
        let (queue, waiting) = mpsc::channel(QUEUE);
        let inner = Inner {
            clock,
            rng,
            share: share_of(settings.ratio),
            queue,
            metrics: metrics.clone(),
        };
        let exporting = export::start(settings.collector, resource, connector, metrics, waiting);
        (Self(Some(Arc::new(inner))), exporting)
    }

    /// A request that came with this context, or without one. `sampled_by_role` is set where who sent
    /// it is a role, whose decision counts: anybody else's is an id.
    pub(crate) fn request(
        &self,
        ids: &SharedRng,
        parent: Option<TraceContext>,
        sampled_by_role: bool,
        name: impl FnOnce() -> String,
    ) -> (Current, Span) {
        let sampled = match &self.0 {
            None => parent.is_some_and(|parent| parent.sampled && sampled_by_role),
            Some(_) if sampled_by_role => parent.is_some_and(|parent| parent.sampled),
            Some(inner) => inner.is_chosen(),
        };
        let recorder = self.0.as_ref().filter(|_| sampled);
        // Who writes nothing down hands on whose part it is, as it came.
        let span = match (parent, recorder) {
            (Some(parent), None) => parent.span,
            _ => SpanId::from_random(ids.u64()),
        };
        let context = TraceContext {
            trace: parent.map_or_else(|| TraceId::from_random(ids.u128()), |p| p.trace),
            span,
            sampled,
        };
        let span = recorder.map_or_else(Span::none, |inner| {
            let parent = parent.map(|parent| parent.span);
            inner.span(context, parent, Kind::Server, name().into())
        });
        (Current::new(self.clone(), context), span)
    }

    /// Work for another role that did not come as a request: a chunk of a write stream.
    pub fn work(&self, parent: TraceContext, name: &'static str) -> (Current, Span) {
        let span = self.child(&parent, Kind::Server, name);
        let context = span.context().unwrap_or(parent);
        (Current::new(self.clone(), context), span)
    }

    pub(super) fn child(&self, parent: &TraceContext, kind: Kind, name: &'static str) -> Span {
        let Some(inner) = self.0.as_ref().filter(|_| parent.sampled) else {
            return Span::none();
        };
        let context = TraceContext {
            span: SpanId::from_random(inner.rng.u64()),
            ..*parent
        };
        inner.span(context, Some(parent.span), kind, name.into())
    }
}

impl Inner {
    fn is_chosen(&self) -> bool {
        match self.share {
            0 => false,
            u64::MAX => true,
            share => self.rng.u64() < share,
        }
    }
}

/// A share between 0 and 1 as a number of 2^64.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 2^64; the conversion saturates"
)]
fn share_of(ratio: f64) -> u64 {
    (ratio * 2f64.powi(64)) as u64
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.0.is_some() { "on" } else { "off" };
        write!(f, "Tracer({word})")
    }
}
