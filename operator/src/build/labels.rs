//! Labels, selectors, metadata: the same for every object of a cluster.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{Frame, ports};

/// A part of the store that has pods of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// Keeps the catalog.
    Tracker,
    /// Keeps chunks.
    Datanode,
    /// The door.
    Gateway,
}

impl Component {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Tracker, Self::Datanode, Self::Gateway];

    /// As in labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tracker => "tracker",
            Self::Datanode => "datanode",
            Self::Gateway => "gateway",
        }
    }

    /// Its API's.
    pub(super) const fn port(self) -> i32 {
        match self {
            Self::Tracker => ports::TRACKER,
            Self::Datanode => ports::DATANODE,
            Self::Gateway => ports::GATEWAY,
        }
    }

    /// Name of its StatefulSet or Deployment, and of everything else that it has one of.
    pub fn object_name(self, cluster: &str) -> String {
        format!("{cluster}-{}", self.as_str())
    }
}

/// Longest value of a label.
const MAX_VALUE: usize = 63;

/// What selects a component's pods. Never changes: selectors are immutable.
pub fn selector_labels(cluster: &str, component: Component) -> BTreeMap<String, String> {
    owned([
        ("app.kubernetes.io/name", "dfs"),
        ("app.kubernetes.io/instance", cluster),
        ("app.kubernetes.io/component", component.as_str()),
    ])
}

/// Selects a component's pods.
pub(super) fn selector(cluster: &str, component: Component) -> LabelSelector {
    LabelSelector {
        match_labels: Some(selector_labels(cluster, component)),
        ..LabelSelector::default()
    }
}

/// Labels of a claim: those of a template that cannot change, so without a version.
pub(super) fn claim_labels(cluster: &str, component: Component) -> BTreeMap<String, String> {
    let mut labels = selector_labels(cluster, component);
    labels.extend(owned([("app.kubernetes.io/managed-by", "dfs-operator")]));
    labels
}

/// Labels of everything else.
pub(super) fn labels(frame: &Frame<'_>, component: Component) -> BTreeMap<String, String> {
    let mut labels = claim_labels(frame.name, component);
    labels.extend(owned([(
        "app.kubernetes.io/version",
        frame.version.as_str(),
    )]));
    labels
}

/// Metadata of an object of a component.
pub(super) fn metadata(frame: &Frame<'_>, component: Component) -> ObjectMeta {
    ObjectMeta {
        name: Some(component.object_name(frame.name)),
        namespace: Some(frame.namespace.to_owned()),
        labels: Some(labels(frame, component)),
        owner_references: Some(vec![frame.owner.clone()]),
        ..ObjectMeta::default()
    }
}

/// An image's version as a label: its tag, or the start of its digest.
pub(super) fn version(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let version = match (last.split_once('@'), last.split_once(':')) {
        (Some((_, digest)), _) => digest,
        (None, Some((_, tag))) => tag,
        (None, None) => "latest",
    };
    let kept: String = version
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' || c == '_' {
                c
            } else {
                '-'
            }
        })
        .take(MAX_VALUE)
        .collect();
    let kept = kept.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    if kept.is_empty() { "unknown" } else { kept }.to_owned()
}

pub(super) fn owned<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
