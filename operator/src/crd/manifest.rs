//! The CustomResourceDefinition as the API server gets it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
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
    Ok(crd)
}
