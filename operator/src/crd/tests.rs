//! The schema against our own rules for schemas, and the samples against the schema. What only an API
//! server can judge (CEL) is in `tests/cel.rs`.

use serde_json::{Value, json};

use super::*;

fn schema() -> Value {
    let crd = serde_json::to_value(manifest().unwrap()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// Calls `look` on every schema below this one.
fn walk(schema: &Value, path: &str, look: &mut impl FnMut(&str, &Value)) {
    look(path, schema);
    if let Some(properties) = schema["properties"].as_object() {
        for (name, property) in properties {
            walk(property, &format!("{path}.{name}"), look);
        }
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            walk(&schema[key], &format!("{path}{mark}"), look);
        }
    }
}

#[test]
fn every_field_of_spec_and_status_is_described() {
    let schema = schema();
    let mut undescribed = Vec::new();
    for part in ["spec", "status"] {
        walk(&schema["properties"][part], part, &mut |path, field| {
            let inner = path.ends_with("[]") || path.ends_with("{}");
            if !inner && field["description"].as_str().is_none_or(str::is_empty) {
                undescribed.push(path.to_owned());
            }
        });
    }
    assert_eq!(undescribed, Vec::<String>::new());
}

#[test]
fn every_text_list_and_map_has_a_bound_and_no_number_is_unsigned() {
    let schema = schema();
    let mut unbounded = Vec::new();
    let mut fields = 0;
    for part in ["spec", "status"] {
        walk(&schema["properties"][part], part, &mut |path, field| {
            fields += 1;
            let bounded = match field["type"].as_str() {
                Some("string") => ["maxLength", "enum", "format"]
                    .iter()
                    .any(|bound| !field[*bound].is_null()),
                Some("array") => !field["maxItems"].is_null(),
                Some("object") => {
                    field["additionalProperties"].is_null() || !field["maxProperties"].is_null()
                }
                Some("integer") => field["format"]
                    .as_str()
                    .is_some_and(|f| f.starts_with("int")),
                Some(_) => false,
                None => {
                    field["x-kubernetes-int-or-string"] == true && !field["maxLength"].is_null()
                }
            };
            if !bounded {
                unbounded.push(format!("{path}: {field}"));
            }
        });
    }
    assert!(fields > 80, "only {fields} fields were looked at");
    assert_eq!(unbounded, Vec::<String>::new());
}

#[test]
fn nothing_may_be_null_because_neither_defaults_nor_rules_see_through_it() {
    walk(&schema(), "", &mut |path, field| {
        assert!(field["nullable"].is_null(), "{path}");
        let nulls = field["enum"]
            .as_array()
            .is_some_and(|all| all.contains(&Value::Null));
        assert!(!nulls, "{path}");
    });
}

#[test]
fn the_number_of_datanodes_is_required_and_has_no_default() {
    let schema = schema();
    let datanodes = &schema["properties"]["spec"]["properties"]["dataNodes"];
    assert!(datanodes["properties"]["replicas"]["default"].is_null());
    let required = datanodes["required"].as_array().unwrap();
    assert!(required.contains(&json!("replicas")), "{required:?}");
}

#[test]
fn defaults_are_the_api_servers_so_that_a_small_manifest_shows_them() {
    let schema = schema();
    let spec = &schema["properties"]["spec"]["properties"];
    assert_eq!(spec["replication"]["properties"]["factor"]["default"], 3);
    assert_eq!(spec["chunkSize"]["default"], "64Mi");
    assert_eq!(spec["repairDelay"]["default"], "5m");
    assert_eq!(spec["trashRetention"]["default"], "24h");
    assert_eq!(spec["gateway"]["default"]["replicas"], 2);
    assert_eq!(spec["tracker"]["default"]["storage"]["size"], "10Gi");
    assert_eq!(spec["networkPolicy"]["default"]["mode"], "Enabled");
}

#[test]
fn the_definition_fits_into_an_annotation_of_a_client_side_apply() {
    let crd = serde_json::to_string(&manifest().unwrap()).unwrap();
    assert!(crd.len() < 64 << 10, "{} bytes", crd.len());
}

#[test]
fn the_scale_subresource_and_the_columns_point_at_fields_that_exist() {
    let crd = serde_json::to_value(manifest().unwrap()).unwrap();
    let version = &crd["spec"]["versions"][0];
    let scale = &version["subresources"]["scale"];
    let mut paths: Vec<&str> = scale
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(paths.len(), 3);
    for column in version["additionalPrinterColumns"].as_array().unwrap() {
        paths.push(column["jsonPath"].as_str().unwrap());
    }
    for path in paths
        .into_iter()
        .filter(|path| !path.starts_with(".metadata"))
    {
        // `.a.b[?(...)].c`: an element of the list b, of which the filter says which.
        let (list, inner) = path.split_once("[?(").unwrap_or((path, ""));
        let inner = inner.split_once(")].").map_or("", |(_, inner)| inner);
        let mut field = &version["schema"]["openAPIV3Schema"];
        for part in list.trim_start_matches('.').split('.') {
            field = &field["properties"][part];
        }
        if !inner.is_empty() {
            field = &field["items"]["properties"][inner];
        }
        assert!(field["type"].is_string(), "{path} points at nothing");
    }
}

fn samples() -> Vec<(String, String)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/samples");
    let mut samples: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read_to_string(entry.path()).unwrap())
        })
        .collect();
    samples.sort();
    samples
}

/// What the schema has against a value, without its patterns and rules.
fn complaints(value: &Value, schema: &Value, path: &str, out: &mut Vec<String>) {
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        out.push(format!("{path}: {value} is none of {allowed:?}"));
    }
    match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten() {
                if !fields.contains_key(name.as_str().unwrap()) {
                    out.push(format!("{path}: {name} is missing"));
                }
            }
            for (name, field) in fields {
                let inner = match &schema["properties"][name] {
                    Value::Null => &schema["additionalProperties"],
                    property => property,
                };
                if inner.is_null() {
                    out.push(format!("{path}: {name} is unknown"));
                } else {
                    complaints(field, inner, &format!("{path}.{name}"), out);
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                complaints(item, &schema["items"], &format!("{path}[]"), out);
            }
        }
        Value::String(_) if schema["type"] == "string" => {}
        Value::Number(number) if schema["type"] == "integer" => {
            let number = number.as_f64().unwrap();
            let least = schema["minimum"].as_f64().unwrap_or(f64::MIN);
            let most = schema["maximum"].as_f64().unwrap_or(f64::MAX);
            if !(least..=most).contains(&number) {
                out.push(format!("{path}: {number} is out of range"));
            }
        }
        Value::String(_) | Value::Number(_) if schema["x-kubernetes-int-or-string"] == true => {}
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Number(_) => {
            out.push(format!("{path}: {value} has the wrong type"));
        }
    }
}

#[test]
fn the_samples_are_what_the_schema_allows() {
    let schema = schema();
    let spec = &schema["properties"]["spec"];
    let samples = samples();
    let names: Vec<&str> = samples.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["production.yaml", "small.yaml", "zones.yaml"]);
    for (name, text) in &samples {
        let value: Value = serde_saphyr::from_str(text).unwrap();
        let mut out = Vec::new();
        complaints(&value["spec"], spec, "spec", &mut out);
        assert_eq!(out, Vec::<String>::new(), "{name}");
        let cluster: DfsCluster = serde_json::from_value(value).unwrap();
        assert_eq!(
            format!("{}.yaml", cluster.metadata.name.as_ref().unwrap()),
            *name
        );
        crate::build::tests::check(&cluster);
    }
}

#[test]
fn a_misspelt_or_misplaced_field_would_be_noticed_in_a_sample() {
    let spec = schema()["properties"]["spec"].clone();
    for wrong in [
        json!({"dataNodes": {"replicas": 3}}),
        json!({"dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}}, "repairDelayy": "5m"}),
        json!({"dataNodes": {"replicas": "3", "storage": {"size": "1Gi"}}}),
        json!({"dataNodes": {"replicas": 501, "storage": {"size": "1Gi"}}}),
        json!({"dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}}, "managementState": "Off"}),
        json!({"dataNodes": {"replicas": 3, "storage": {"size": "1Gi"}}, "managementState": "stopped"}),
    ] {
        let mut out = Vec::new();
        complaints(&wrong, &spec, "spec", &mut out);
        assert_eq!(out.len(), 1, "{wrong}: {out:?}");
    }
}

#[test]
fn deploy_crd_yaml_is_what_the_types_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crd.yaml");
    let committed: Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let types = serde_json::to_value(manifest().unwrap()).unwrap();
    assert!(committed == types, "run `make generate`");
}
