//! The cluster token: made once, never changed by the operator. Whoever wants another one edits the
//! Secret; its first line is what is sent, every line is accepted.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams, Resource as _};

use crate::apply::{FIELD_MANAGER, WRITE_TIMEOUT, answered, bounded};
use crate::crd::DfsCluster;
use crate::ctx::Ctx;
use crate::error::{ReconcileError, code};
use crate::names;
use crate::tracker_client::Token;
use crate::validate::Cluster;

/// Key of the token in its Secret, and name of the file in pods.
const KEY: &str = "token";

/// Reads the token; makes it where there is none and something may be made.
pub(crate) async fn token(
    ctx: &Ctx,
    cluster: &Cluster,
    object: &DfsCluster,
) -> Result<Option<Token>, ReconcileError> {
    let name = names::token_secret(&cluster.key.name);
    let api: Api<Secret> = Api::namespaced(ctx.client.clone(), &cluster.key.namespace);
    let found = answered(format!("read Secret {name}"), api.get_opt(&name)).await?;
    if let Some(secret) = found {
        return read_token(&secret, &name).map(Some);
    }
    if cluster.paused {
        return Ok(None);
    }
    let text = format!("{:032x}{:032x}", ctx.rng.u128(), ctx.rng.u128());
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(cluster.key.namespace.clone()),
            labels: Some(labels(&cluster.key.name)),
            owner_references: object.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(
            KEY.to_owned(),
            ByteString(format!("{text}\n").into_bytes()),
        )])),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    match bounded(api.create(&parameters, &secret)).await {
        None => Err(ReconcileError::Timeout(WRITE_TIMEOUT)),
        Some(Ok(created)) => read_token(&created, &name).map(Some),
        // Someone was faster: theirs is the token, and the next reconcile reads it.
        Some(Err(error)) if code(&error) == Some(409) => Ok(None),
        Some(Err(error)) => Err(ReconcileError::api(format!("create Secret {name}"))(error)),
    }
}

fn labels(cluster: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "dfs"),
        ("app.kubernetes.io/instance", cluster),
        ("app.kubernetes.io/managed-by", "dfs-operator"),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

fn read_token(secret: &Secret, name: &str) -> Result<Token, ReconcileError> {
    let data = secret.data.as_ref().and_then(|data| data.get(KEY));
    let text = data.and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    text.and_then(Token::first_of).ok_or_else(|| {
        ReconcileError::Internal(format!(
            "Secret {name} holds no token under the key `{KEY}`; delete it to have one made"
        ))
    })
}
