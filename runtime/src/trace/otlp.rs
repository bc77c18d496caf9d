//! Spans as OTLP over HTTP has them, in its JSON form.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::span::{Ended, Kind, Value};
use super::tracer::Resource;

/// A batch as the body of a request. Where it cannot be written it is empty, which no collector takes.
pub(super) fn body(resource: &Resource, spans: &[Ended]) -> Vec<u8> {
    let Resource { service, instance } = resource;
    let batch = Batch {
        resource_spans: [ResourceSpans {
            resource: Attributes {
                attributes: vec![
                    text("service.name", service),
                    text("service.instance.id", instance),
                    text("service.version", env!("CARGO_PKG_VERSION")),
                ],
            },
            scope_spans: [ScopeSpans {
                scope: Scope { name: "dfs" },
                spans: spans.iter().map(span).collect(),
            }],
        }],
    };
    serde_json::to_vec(&batch).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Batch<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Attributes<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Attributes<'a> {
    attributes: Vec<Attribute<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<SpanJson<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
}

#[derive(Serialize)]
struct Attribute<'a> {
    key: &'a str,
    value: AnyValue<'a>,
}

/// 64-bit numbers are text in this form of OTLP.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum AnyValue<'a> {
    StringValue(&'a str),
    IntValue(String),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanJson<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: &'a str,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<Attribute<'a>>,
    status: Status<'a>,
}

#[derive(Serialize)]
struct Status<'a> {
    code: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

fn span(ended: &Ended) -> SpanJson<'_> {
    let Ended {
        context,
        parent,
        kind,
        name,
        began,
        lasted,
        facts,
        failed,
    } = ended;
    SpanJson {
        trace_id: context.trace.to_string(),
        span_id: context.span.to_string(),
        parent_span_id: parent.map(|parent| parent.to_string()),
        name,
        kind: match kind {
            Kind::Server => 2,
            Kind::Client => 3,
        },
        start_time_unix_nano: nanoseconds(*began, Duration::ZERO),
        end_time_unix_nano: nanoseconds(*began, *lasted),
        attributes: facts.iter().map(attribute).collect(),
        status: Status {
            code: if failed.is_some() { 2 } else { 0 },
            message: *failed,
        },
    }
}

/// Since 1970. A clock before that shows nothing useful anyway.
fn nanoseconds(began: Timestamp, lasted: Duration) -> String {
    let began = u128::try_from(began.as_nanosecond()).unwrap_or_default();
    began.saturating_add(lasted.as_nanos()).to_string()
}

fn attribute<'a>(fact: &'a (&'static str, Value)) -> Attribute<'a> {
    let (key, value) = fact;
    let value = match value {
        Value::Text(text) => AnyValue::StringValue(text),
        Value::Number(number) => AnyValue::IntValue(number.to_string()),
    };
    Attribute { key, value }
}

fn text<'a>(key: &'a str, value: &'a str) -> Attribute<'a> {
    Attribute {
        key,
        value: AnyValue::StringValue(value),
    }
}
