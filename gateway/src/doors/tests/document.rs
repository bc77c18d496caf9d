//! Admin verbs, unknown routes, and the OpenAPI document.

use super::*;

#[tokio::test]
async fn bad_input_36_and_38_absent_names_unknown_routes_and_methods_are_problems() {
    let site = site().await;
    let (status, problem) = site.get("/download/absent").await;
    assert_eq!(status, 404);
    let problem: Value = serde_json::from_slice(&problem).unwrap();
    assert_eq!(problem["type"], "urn:dfs:problem:not-found");
    assert_ne!(problem["request_id"], "");
    let wrong = site.call("PATCH", "/files/a", &[]).await;
    assert_eq!(wrong.status(), 405);
    assert!(header(&wrong, "allow").contains("PUT"));
    assert_eq!(site.get("/no/such/route").await.0, 404);
}

#[tokio::test]
async fn admin_verbs_answer() {
    let site = site().await;
    let (status, lines) = site.get("/fsck").await;
    assert_eq!(status, 200);
    let last: Value = serde_json::from_slice(lines.trim_ascii()).unwrap();
    assert_eq!(last["kind"], "verdict");
    let id = "0".repeat(32);
    assert_eq!(site.get("/nodes").await.0, 200);
    assert_eq!(site.get("/trash").await.0, 200);
    assert_eq!(site.get("/trash?cursor=x").await.0, 400);
    assert_eq!(site.get("/chunks").await.0, 400);
    assert_eq!(site.get("/chunks?file=absent").await.0, 404);
    assert_eq!(site.get("/nodes/x/safe-to-remove").await.0, 400);
    assert_eq!(
        site.get(&format!("/nodes/{id}/safe-to-remove")).await.0,
        404
    );
    let headers = [("content-type", "application/json")];
    for (body, status) in [("{\"datanodes\":[]}", 200), ("{}", 400), ("{\"x\":1}", 400)] {
        let response = site
            .send(request("POST", "/ok-to-stop", &headers, body.into()))
            .await;
        assert_eq!(response.status(), status, "{body}");
    }
    let done = site
        .call("POST", "/repair/acknowledge-partition", &[])
        .await;
    assert_eq!(done.status(), 204);
}

/// Paths as the document writes them, without the aliases for an empty name.
fn documented(routes: &[&'static str]) -> BTreeSet<String> {
    let paths = routes.iter().map(|path| path.replace("{*", "{"));
    paths
        .filter(|path| path.len() == 1 || !path.ends_with('/'))
        .collect()
}

#[tokio::test]
async fn the_openapi_document_has_every_route_and_method_and_no_other() {
    let site = site().await;
    let document: Value = serde_json::from_slice(&site.get("/openapi.json").await.1).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let both = Document::PublicAndAdmin { more: Value::Null };
    let config = crate::GatewayConfig {
        document: both,
        ..config()
    };
    let routes = public_routes(&config).into_iter().chain(admin::routes());
    let served = documented(&routes.map(|(path, _)| path).collect::<Vec<_>>());
    assert_eq!(served, paths.keys().cloned().collect());
    let methods = [
        Method::GET,
        Method::HEAD,
        Method::PUT,
        Method::POST,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
        Method::TRACE,
    ];
    for (path, operations) in paths {
        for method in &methods {
            let uri = path.replace("{path}", "x").replace("{id}", "x");
            let response = site.call(method.as_str(), &uri, &[]).await;
            let is_served = response.status() != StatusCode::METHOD_NOT_ALLOWED;
            let is_documented = operations.get(method.as_str().to_lowercase()).is_some();
            assert_eq!(is_served, is_documented, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn every_reference_in_the_openapi_document_leads_somewhere() {
    let site = site().await;
    let document: Value = serde_json::from_slice(&site.get("/openapi.json").await.1).unwrap();
    let mut open = vec![&document];
    let mut references = 0;
    while let Some(value) = open.pop() {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get("$ref") {
                    references += 1;
                    let pointer = target.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{target}");
                }
                open.extend(fields.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    assert!(references > 50);
    assert_eq!(openapi::routes(&Document::Public).len(), 1);
}
