//! Volumes that are to grow. A StatefulSet's template of claims cannot change, so claims that exist are
//! asked for more one by one; new ones start at the template's size and follow.

use super::labels::Component;
use crate::crd::{DfsClusterSpec, ParseQuantityError, Quantity};

/// What a claim of a component is to ask for, if that is more than it asks for now. Never less.
pub fn growth(
    spec: &DfsClusterSpec,
    component: Component,
    asked: &str,
) -> Result<Option<Quantity>, ParseQuantityError> {
    let wanted = match component {
        Component::Tracker => &spec.tracker.storage.size.0,
        Component::Datanode => &spec.data_nodes.storage.size.0,
        Component::Gateway => return Ok(None),
    };
    let grows = wanted.bytes()? > Quantity::from(asked).bytes()?;
    Ok(grows.then(|| wanted.clone()))
}
