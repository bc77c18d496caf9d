//! One part of a trace, from its begin to its end.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dfs_protocol::{SpanId, TraceContext};
use jiff::Timestamp;

use super::tracer::Inner;

/// Who a span belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whoever was asked.
    Server,
    /// Whoever asked.
    Client,
}

/// A fact about a span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(Cow<'static, str>),
    Number(i64),
}

/// A span that ended.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) context: TraceContext,
    pub(super) parent: Option<SpanId>,
    pub(super) kind: Kind,
    pub(super) name: Cow<'static, str>,
    pub(super) began: Timestamp,
    pub(super) lasted: Duration,
    pub(super) facts: Vec<(&'static str, Value)>,
    /// What kind of failure it ended with.
    pub(super) failed: Option<&'static str>,
}

/// A span. It ends when it is dropped; one that is not written down costs nothing.
#[derive(Default)]
pub struct Span(Option<Box<Live>>);

struct Live {
    inner: Arc<Inner>,
    /// Monotonic.
    began: Duration,
    span: Ended,
}

impl Span {
    /// Of a request that is not written down.
    pub fn none() -> Self {
        Self(None)
    }

    pub(super) fn begin(inner: Arc<Inner>, span: Ended) -> Self {
        let began = inner.clock.monotonic();
        Self(Some(Box::new(Live { inner, began, span })))
    }

    /// Where it is in its trace, if it is written down.
    pub fn context(&self) -> Option<TraceContext> {
        self.0.as_ref().map(|live| live.span.context)
    }

    /// Notes a number. Names are those of OpenTelemetry where it has one.
    pub fn number(&mut self, name: &'static str, value: u64) {
        if let Some(live) = &mut self.0 {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            live.span.facts.push((name, Value::Number(value)));
        }
    }

    /// Notes a word out of a closed set, an id or a role's address; made only when it is kept.
    pub fn text<T: Into<Cow<'static, str>>>(&mut self, name: &'static str, value: impl Fn() -> T) {
        if let Some(live) = &mut self.0 {
            live.span.facts.push((name, Value::Text(value().into())));
        }
    }

    /// It ended badly; `why` is a word out of a closed set.
    pub fn failed(&mut self, why: &'static str) {
        if let Some(live) = &mut self.0 {
            live.span.failed = Some(why);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(live) = self.0.take() {
            let Live {
                inner,
                began,
                mut span,
            } = *live;
            span.lasted = inner.clock.monotonic().saturating_sub(began);
            inner.hand_over(span);
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.context()).finish()
    }
}
