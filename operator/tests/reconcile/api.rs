//! An API server in memory: as much of one as the operator uses, with versions, conflicts and
//! server-side apply, and with faults on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use serde_json::{Map, Value, json};

use crate::gate::Gate;

/// Where an object is kept: plural, namespace, name.
pub type Place = (String, String, String);

/// One request, as tests look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    pub plural: String,
    pub name: String,
    pub subresource: String,
}

impl Call {
    pub fn is_write(&self) -> bool {
        self.method != Method::GET
    }
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is answered with this status, and has no effect.
    Status(u16),
    /// It has its effect, and its answer is lost.
    AnswerLost,
    /// It takes this long.
    Slow(Duration),
}

type Script = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<Place, Value>,
    applied: BTreeMap<Place, Value>,
    births: BTreeMap<Place, u32>,
    version: u64,
    calls: Vec<Call>,
    script: Option<Script>,
}

/// The API server. Clones share it.
#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    gate: Gate,
}

struct Asked {
    call: Call,
    namespace: String,
    content: String,
    selector: String,
    body: Value,
}

impl Api {
    pub fn new(gate: Gate) -> Self {
        Self {
            state: Arc::default(),
            gate,
        }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.serve(request).await }
        });
        kube::Client::new(service, "default")
    }

    /// Faults from now on.
    pub fn script(&self, script: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        self.state.lock().unwrap().script = Some(Box::new(script));
    }

    pub fn heal(&self) {
        self.state.lock().unwrap().script = None;
    }

    /// The calls since the last time.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    pub fn get(&self, plural: &str, name: &str) -> Option<Value> {
        self.state
            .lock()
            .unwrap()
            .objects
            .get(&place(plural, name))
            .cloned()
    }

    pub fn list(&self, plural: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        let of_kind = state
            .objects
            .iter()
            .filter(|((kind, ..), _)| kind == plural);
        of_kind.map(|(_, object)| object.clone()).collect()
    }

    /// Puts an object in place, as someone else would.
    pub fn put(&self, plural: &str, mut object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!("default");
        }
        let namespace = object["metadata"]["namespace"].as_str().unwrap().to_owned();
        let mut state = self.state.lock().unwrap();
        state.store((plural.to_owned(), namespace, name), object);
    }

    /// Changes an object, as someone else would.
    pub fn change(&self, plural: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(plural, name).unwrap();
        change(&mut object);
        self.put(plural, object);
    }

    pub fn remove(&self, plural: &str, name: &str) {
        let place = place(plural, name);
        let mut state = self.state.lock().unwrap();
        state.objects.remove(&place).unwrap();
        state.applied.remove(&place);
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let asked = read(request).await;
        self.gate.pass(asked.call.is_write()).await;
        let fault = {
            let mut state = self.state.lock().unwrap();
            state.calls.push(asked.call.clone());
            state.script.as_mut().and_then(|script| script(&asked.call))
        };
        match fault {
            Some(Fault::Status(code)) => return Ok(answer(code, &status(code, "as scripted"))),
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
            Some(Fault::AnswerLost) | None => {}
        }
        let (code, body) = self.state.lock().unwrap().handle(asked);
        if fault == Some(Fault::AnswerLost) {
            return Err(std::io::Error::other("the connection broke"));
        }
        Ok(answer(code, &body))
    }
}

/// Nodes are in no namespace, all else is in `default`.
fn place(plural: &str, name: &str) -> Place {
    let namespace = if plural == "nodes" { "" } else { "default" };
    (plural.to_owned(), namespace.to_owned(), name.to_owned())
}

async fn read(request: Request<Body>) -> Asked {
    let (head, body) = request.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let path = head.uri.path().trim_matches('/').to_owned();
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    let mut namespace = String::new();
    if parts[0] == "namespaces" {
        parts[1].clone_into(&mut namespace);
        parts.drain(..2);
    }
    let part = |index: usize| parts.get(index).copied().unwrap_or_default().to_owned();
    let query = head.uri.query().unwrap_or_default();
    let query = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("labelSelector="));
    let selector = query
        .unwrap_or_default()
        .replace("%3D", "=")
        .replace("%2C", ",");
    Asked {
        call: Call {
            method: head.method,
            plural: part(0),
            name: part(1),
            subresource: part(2),
        },
        namespace,
        content: head
            .headers
            .get("content-type")
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default(),
        selector: selector.replace("%2F", "/"),
        body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    }
}

fn answer(code: u16, body: &Value) -> Response<Full<Bytes>> {
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .unwrap()
}

fn status(code: u16, message: &str) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
           "reason": reason, "message": message})
}

impl State {
    fn handle(&mut self, asked: Asked) -> (u16, Value) {
        let Asked {
            call,
            namespace,
            content,
            selector,
            body,
        } = asked;
        let place = (call.plural.clone(), namespace, call.name.clone());
        match call.method {
            Method::GET if call.name.is_empty() => (200, self.listed(&place, &selector)),
            Method::GET => self.read(&place),
            Method::POST if call.subresource == "eviction" => self.evict(&place, &body),
            Method::POST => self.create(place, body),
            Method::DELETE => self.delete(&place, &body),
            Method::PATCH if content.contains("apply-patch") => {
                self.apply(&place, body, &call.subresource)
            }
            Method::PATCH => self.merge(&place, body),
            _ => (405, status(405, "not in this stand-in")),
        }
    }

    fn listed(&self, place: &Place, selector: &str) -> Value {
        let wanted: Vec<(&str, &str)> = selector
            .split(',')
            .filter_map(|pair| pair.split_once('='))
            .collect();
        let items = self
            .objects
            .iter()
            .filter(|((plural, namespace, _), object)| {
                *plural == place.0
                    && *namespace == place.1
                    && wanted
                        .iter()
                        .all(|(key, value)| object["metadata"]["labels"][*key] == *value)
            });
        let items: Vec<Value> = items
            .map(|(_, object)| {
                // As a real one: items of a list do not say what they are.
                let mut object = object.clone();
                object.as_object_mut().unwrap().remove("kind");
                object.as_object_mut().unwrap().remove("apiVersion");
                object
            })
            .collect();
        json!({"kind": "List", "apiVersion": "v1",
               "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }

    fn read(&self, place: &Place) -> (u16, Value) {
        match self.objects.get(place) {
            Some(object) => (200, object.clone()),
            None => (
                404,
                status(404, &format!("{} {} not found", place.0, place.2)),
            ),
        }
    }

    fn create(&mut self, mut place: Place, mut body: Value) -> (u16, Value) {
        body["metadata"]["name"]
            .as_str()
            .unwrap()
            .clone_into(&mut place.2);
        if self.objects.contains_key(&place) {
            return (409, status(409, "already exists"));
        }
        body["metadata"]["namespace"] = json!(place.1);
        self.store(place.clone(), body);
        (201, self.objects[&place].clone())
    }

    fn delete(&mut self, place: &Place, body: &Value) -> (u16, Value) {
        let Some(object) = self.objects.get(place) else {
            return (404, status(404, "not found"));
        };
        let metadata = &object["metadata"];
        let asked = &body["preconditions"];
        for field in ["uid", "resourceVersion"] {
            if !asked[field].is_null() && asked[field] != metadata[field] {
                return (409, status(409, "a precondition does not hold"));
            }
        }
        let is_used = place.0 == "persistentvolumeclaims" && self.is_mounted(&place.2);
        let ends = place.0 == "pods" && body["gracePeriodSeconds"] != 0;
        if body["propagationPolicy"] == "Orphan" || is_used || ends {
            // The garbage collector lets the dependents go first; a claim waits for its pod, a pod for its kubelet.
            let mut object = object.clone();
            let metadata = object["metadata"].as_object_mut().unwrap();
            metadata.insert("deletionTimestamp".into(), json!("2026-01-01T00:00:00Z"));
            self.store(place.clone(), object);
        } else {
            self.collect(place);
        }
        (
            200,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Success", "code": 200}),
        )
    }

    /// A pod goes if the budgets of its namespace let it, as the eviction API asks them.
    fn evict(&mut self, place: &Place, body: &Value) -> (u16, Value) {
        let labels = |object: &Value| object["metadata"]["labels"].clone();
        let Some(pod) = self.objects.get(place).map(labels) else {
            return (404, status(404, "not found"));
        };
        let of = |plural: &'static str| {
            let all = self.objects.iter();
            all.filter_map(move |((kind, ..), object)| (kind == plural).then_some(object))
        };
        let covers = |budget: &Value, labels: &Value| {
            let selector = budget["spec"]["selector"]["matchLabels"].as_object();
            selector.is_some_and(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value))
        };
        for budget in of("poddisruptionbudgets").filter(|budget| covers(budget, &pod)) {
            let missing = of("pods").filter(|one| covers(budget, &labels(one)) && !is_ready(one));
            if missing.count() as u64 >= budget["spec"]["maxUnavailable"].as_u64().unwrap() {
                return (
                    429,
                    status(429, "it would violate the pod's disruption budget"),
                );
            }
        }
        self.delete(place, &body["deleteOptions"])
    }

    /// Whether a pod that has a node uses the claim.
    fn is_mounted(&self, claim: &str) -> bool {
        let mut pods = self.objects.iter().filter(|(place, _)| place.0 == "pods");
        pods.any(|(_, pod)| {
            let volume = &pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"];
            *volume == json!(claim) && !pod["spec"]["nodeName"].is_null()
        })
    }

    /// Takes an object away with everything that it owns.
    fn collect(&mut self, place: &Place) {
        self.applied.remove(place);
        let Some(object) = self.objects.remove(place) else {
            return;
        };
        let uid = &object["metadata"]["uid"];
        let owned = self.objects.iter().filter(|(_, one)| {
            let owners = one["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == *uid))
        });
        let owned: Vec<Place> = owned.map(|(place, _)| place.clone()).collect();
        for place in owned {
            self.collect(&place);
        }
    }

    fn is_stale(&self, place: &Place, body: &Value) -> bool {
        let asked = &body["metadata"]["resourceVersion"];
        let version = self
            .objects
            .get(place)
            .map(|one| &one["metadata"]["resourceVersion"]);
        !asked.is_null() && version != Some(asked)
    }

    fn apply(&mut self, place: &Place, mut body: Value, subresource: &str) -> (u16, Value) {
        assert!(
            !body["metadata"]["name"].is_null(),
            "an apply without a name is refused with 400"
        );
        if self.is_stale(place, &body) {
            return (409, status(409, "the object has been modified"));
        }
        let existing = self.objects.get(place).cloned();
        if subresource == "status" {
            let Some(mut object) = existing else {
                return (404, status(404, "not found"));
            };
            object["status"] = body["status"].take();
            self.store(place.clone(), object);
            return (200, self.objects[place].clone());
        }
        body["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("resourceVersion");
        let mut object = existing.unwrap_or_else(|| json!({}));
        if let Some(before) = self.applied.get(place) {
            give_up(&mut object, before, &body);
        }
        overlay(&mut object, &body);
        self.applied.insert(place.clone(), body);
        object["metadata"]["namespace"] = json!(place.1);
        self.store(place.clone(), object);
        (200, self.objects[place].clone())
    }

    fn merge(&mut self, place: &Place, mut body: Value) -> (u16, Value) {
        if self.is_stale(place, &body) {
            return (409, status(409, "the object has been modified"));
        }
        let Some(mut object) = self.objects.get(place).cloned() else {
            return (404, status(404, "not found"));
        };
        body["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("resourceVersion");
        merge(&mut object, &body);
        self.store(place.clone(), object);
        (200, self.objects[place].clone())
    }

    /// Stores an object; version and generation move only when something changed.
    fn store(&mut self, place: Place, mut object: Value) {
        let before = self.objects.get(&place);
        if before == Some(&object) {
            return;
        }
        self.version += 1;
        let births = self.births.entry(place.clone()).or_default();
        if before.is_none() {
            *births += 1;
        }
        let metadata = &mut object["metadata"];
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("{}-{}-{births}", place.0, place.2));
        }
        metadata["resourceVersion"] = json!(self.version.to_string());
        let generation =
            before.map_or(0, |one| one["metadata"]["generation"].as_i64().unwrap_or(0));
        let same_spec = before.is_some_and(|one| one["spec"] == object["spec"]);
        object["metadata"]["generation"] = json!(generation + i64::from(!same_spec));
        self.objects.insert(place, object);
    }
}

/// Whether a pod passes its readiness probe.
pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// Fields that were applied and are no longer.
fn give_up(object: &mut Value, before: &Value, now: &Value) {
    let (Value::Object(object), Value::Object(before)) = (object, before) else {
        return;
    };
    for (key, was) in before {
        match (now.get(key), object.get_mut(key)) {
            (None, _) => {
                object.remove(key);
            }
            (Some(now), Some(live)) => give_up(live, was, now),
            (Some(_), None) => {}
        }
    }
}

fn overlay(object: &mut Value, wanted: &Value) {
    match (object, wanted) {
        (Value::Object(object), Value::Object(wanted)) => {
            for (key, value) in wanted {
                overlay(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (object, wanted) => *object = wanted.clone(),
    }
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (key, value) in patch {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut object[key], value);
        }
    }
}
