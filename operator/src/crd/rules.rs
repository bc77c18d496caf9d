//! CEL rules, one function for each place that carries some. Messages are static: a message that is
//! computed from a number costs more than the API server's budget.

use serde_json::{Value, json};

/// Across parts of the spec; guards the scale subresource too.
pub(super) fn spec() -> Value {
    json!([{
        "rule": "self.replication.factor <= self.dataNodes.replicas",
        "message": "dataNodes.replicas must not be lower than replication.factor: \
                    replicas of a chunk are on distinct datanodes",
        "fieldPath": ".dataNodes.replicas",
    }])
}

/// On the whole object.
pub(super) fn root() -> Value {
    json!([
        {
            "rule": "size(self.metadata.name) <= 40",
            "message": "metadata.name must not have more than 40 characters: \
                        the names of pods and labels are made from it",
        },
        {
            "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "message": "metadata.name must start with a letter and have only a-z, 0-9 and -: \
                        Services are named after it",
        },
    ])
}

pub(super) fn replication() -> Value {
    json!([{
        "rule": "!has(self.minWrite) || self.minWrite <= self.factor",
        "message": "minWrite must not be higher than factor",
        "fieldPath": ".minWrite",
    }])
}

fn is_quantity() -> Value {
    json!({
        "rule": "isQuantity(string(self))",
        "message": "must be a quantity like 10Gi, 500M or 1073741824",
    })
}

/// A quantity above zero. `string()` is free here: the field is an integer or a string.
pub(super) fn positive() -> Value {
    json!([
        is_quantity(),
        {
            "rule": "!isQuantity(string(self)) || quantity(string(self)).isGreaterThan(quantity('0'))",
            "message": "must be more than zero",
        },
    ])
}

/// Chunks to be packed are kept in memory while they stream: so much of one that datanodes refuse more.
pub(super) fn pack_limit() -> Value {
    json!([
        is_quantity(),
        {
            "rule": "!isQuantity(string(self)) || (quantity(string(self)).isInteger() && \
                     quantity(string(self)).asInteger() >= 0 && \
                     quantity(string(self)).asInteger() <= 16777216)",
            "message": "must be from 0, which packs nothing, to 16Mi",
        },
    ])
}

/// Bytes in a second: fewer than a mebibyte would take days for one chunk.
pub(super) fn rate() -> Value {
    with(
        positive(),
        &[json!({
            "rule": "!isQuantity(string(self)) || \
                     quantity(string(self)).compareTo(quantity('1Mi')) >= 0",
            "message": "must be at least 1Mi",
        })],
    )
}

/// Volumes grow and never shrink.
pub(super) fn grows() -> Value {
    with(
        positive(),
        &[json!({
            "rule": "!isQuantity(string(self)) || !isQuantity(string(oldSelf)) || \
                     quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0",
            "message": "a volume can grow but not shrink",
        })],
    )
}

pub(super) fn chunk_size() -> Value {
    with(
        positive(),
        &[
            json!({
                "rule": "!isQuantity(string(self)) || (quantity(string(self)).isInteger() && \
                         quantity(string(self)).asInteger() % 1048576 == 0 && \
                         quantity(string(self)).asInteger() <= 1073741824)",
                "message": "must be a multiple of 1Mi, at most 1Gi",
            }),
            json!({
                // Compared as quantities: 65536Ki is 64Mi.
                "rule": "!isQuantity(string(self)) || !isQuantity(string(oldSelf)) || \
                         quantity(string(self)).compareTo(quantity(string(oldSelf))) == 0",
                "message": "chunkSize is immutable",
            }),
        ],
    )
}

/// On the parent, with has(): a rule on an optional field does not see it come or go.
pub(super) fn storage() -> Value {
    json!([{
        "rule": "has(self.storageClassName) == has(oldSelf.storageClassName) && \
                 (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)",
        "message": "storageClassName is immutable: it cannot be set, changed or removed later",
        "fieldPath": ".storageClassName",
    }])
}

pub(super) fn image() -> Value {
    json!([{
        "rule": "!(has(self.tag) && has(self.digest))",
        "message": "give a tag or a digest, not both",
    }])
}

pub(super) fn resources() -> Value {
    let within = |name: &str| {
        json!({
            "rule": format!(
                "!has(self.requests) || !has(self.limits) || !has(self.requests.{name}) || \
                 !has(self.limits.{name}) || !isQuantity(string(self.requests.{name})) || \
                 !isQuantity(string(self.limits.{name})) || \
                 quantity(string(self.requests.{name})).compareTo(quantity(string(self.limits.{name}))) <= 0"
            ),
            "message": format!("the {name} request must not be higher than its limit"),
            "fieldPath": format!(".requests.{name}"),
        })
    };
    json!([within("cpu"), within("memory")])
}

pub(super) fn toleration() -> Value {
    json!([
        {
            "rule": "self.operator == 'Exists' ? !has(self.value) || self.value == '' : true",
            "message": "a toleration with operator Exists has no value",
            "fieldPath": ".value",
        },
        {
            "rule": "self.operator == 'Exists' || (has(self.key) && self.key != '')",
            "message": "a toleration without a key needs operator Exists",
            "fieldPath": ".key",
        },
        {
            "rule": "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "message": "tolerationSeconds needs effect NoExecute",
            "fieldPath": ".tolerationSeconds",
        },
    ])
}

pub(super) fn allowed_client() -> Value {
    json!([
        {
            "rule": "has(self.podLabels) || has(self.namespaceLabels) || has(self.cidr)",
            "message": "an allowed client has podLabels, namespaceLabels or a cidr",
        },
        {
            "rule": "!has(self.cidr) || !(has(self.podLabels) || has(self.namespaceLabels))",
            "message": "cidr stands alone: it names addresses, not pods",
            "fieldPath": ".cidr",
        },
    ])
}

/// The network's first address and a prefix length, of either family.
pub(super) fn cidr() -> Value {
    json!([{
        "rule": "isCIDR(self) && cidr(self) == cidr(self).masked()",
        "message": "must be a network like 10.42.0.0/16 or fd00::/8, written with its first address",
    }])
}

/// A list of [`cidr`].
pub(super) fn cidrs() -> Value {
    json!([{
        "rule": "self.all(net, isCIDR(net) && cidr(net) == cidr(net).masked())",
        "message": "each must be a network like 10.42.0.0/16 or fd00::/8, written with its first address",
    }])
}

fn with(rules: Value, more: &[Value]) -> Value {
    match rules {
        Value::Array(mut all) => {
            all.extend_from_slice(more);
            Value::Array(all)
        }
        other => other,
    }
}
