//! `GET /openapi.json`: the documents are files of this crate, and tests hold them against the
//! routers.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::Route;
use crate::config::Document;
use crate::gateway::SharedGateway;

const PUBLIC: &str = include_str!("openapi/public.json");
const ADMIN: &str = include_str!("openapi/admin.json");

pub(super) fn routes(document: &Document) -> Vec<Route> {
    let text: Arc<str> = rendered(document).into();
    let serve = move |State(_): State<SharedGateway>| {
        let text = text.to_string();
        async move { ([(CONTENT_TYPE, "application/json")], text) }
    };
    vec![("/openapi.json", get(serve))]
}

/// The public document, with the admin door's paths and the mounting role's merged in where both
/// are served.
fn rendered(document: &Document) -> String {
    let mut whole = parsed(PUBLIC);
    if let Document::PublicAndAdmin { more } = document {
        let admin = parsed(ADMIN);
        for part in ["paths", "components/schemas", "components/responses"] {
            merge(&mut whole, &admin, part);
        }
        merge(&mut whole, &serde_json::json!({ "paths": more }), "paths");
    }
    whole.to_string()
}

fn merge(whole: &mut Value, more: &Value, part: &str) {
    let pointer = format!("/{part}");
    let (Some(Value::Object(into)), Some(Value::Object(from))) =
        (whole.pointer_mut(&pointer), more.pointer(&pointer))
    else {
        return;
    };
    for (name, value) in from {
        into.insert(name.clone(), value.clone());
    }
}

/// A test parses both documents, so the fallback is never seen.
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}
