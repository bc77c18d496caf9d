//! The CustomResourceDefinition as the API server gets it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;

use super::{DfsCluster, rules};

/// What the derived schema did not have although we rely on it.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A part of the schema is not where it was.
    #[error("the generated resource definition has no {0}")]
    Missing(&'static str),
    /// A rule is no rule.
    #[error("a rule of the resource definition cannot be read")]
    Rule(#[from] serde_json::Error),
}

/// The definition, with the rules on the whole object that the derive cannot carry.
pub fn manifest() -> Result<CustomResourceDefinition, ManifestError> {
    let mut crd = DfsCluster::crd();
    let schema = crd
        .spec
        .versions
        .first_mut()
        .ok_or(ManifestError::Missing("version"))?
        .schema
        .as_mut()
        .and_then(|schema| schema.open_api_v3_schema.as_mut())
        .ok_or(ManifestError::Missing("schema"))?;
    schema.x_kubernetes_validations = serde_json::from_value(rules::root())?;
    forbid_null(schema);
    Ok(crd)
}

/// The derive lets every optional field be null. The API server then keeps the null, where has() finds
/// it and no default replaces it. Without the permission it drops it, as if the line were not there.
fn forbid_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    if let Some(values) = &mut schema.enum_ {
        values.retain(|value| !value.0.is_null());
    }
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|all| all.values_mut())
    {
        forbid_null(property);
    }
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => forbid_null(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items.iter_mut().for_each(forbid_null),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        forbid_null(values);
    }
}
