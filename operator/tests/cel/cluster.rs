//! A namespace on the cluster under test, and the requests that tests make there.

use std::panic::AssertUnwindSafe;

use dfs_operator::crd::{DfsCluster, manifest};
use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams,
    ValidationDirective,
};
use kube::{Client, CustomResourceExt as _};
use serde_json::{Value, json};

/// A namespace that lasts as long as a test.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) dfs: Api<DynamicObject>,
}

/// What the API server said no with.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) message: String,
}

/// Runs a test against the cluster that KUBECONFIG names, if there is to be one.
pub(crate) async fn with_cluster<F: AsyncFnOnce(&Cluster)>(name: &str, test: F) {
    if std::env::var_os("DFS_KUBE_TESTS").is_none() {
        println!(
            "skipped: {name} needs a Kubernetes cluster; set DFS_KUBE_TESTS=1 and KUBECONFIG, or run make e2e"
        );
        return;
    }
    let cluster = Cluster::start(name).await;
    // The namespace goes whether or not the test found what it looked for.
    let end = AssertUnwindSafe(test(&cluster)).catch_unwind().await;
    cluster.stop().await;
    if let Err(panic) = end {
        std::panic::resume_unwind(panic);
    }
}

impl Cluster {
    async fn start(name: &str) -> Self {
        let client = Client::try_default()
            .await
            .expect("KUBECONFIG names a cluster");
        install(&client).await;
        // One namespace for each test and run: tests run side by side.
        let namespace = format!("dfs-cel-{name}-{:06x}", fastrand::u32(..1 << 24));
        let object: Namespace =
            serde_json::from_value(json!({"metadata": {"name": namespace}})).unwrap();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        Self {
            dfs: Api::namespaced_with(client.clone(), &namespace, &DfsCluster::api_resource()),
            client,
            namespace,
        }
    }

    async fn stop(self) {
        let namespaces: Api<Namespace> = Api::all(self.client);
        namespaces
            .delete(&self.namespace, &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Creates it, or only asks whether it could be created.
    pub(crate) async fn create(
        &self,
        object: &Value,
        dry_run: bool,
    ) -> Result<DynamicObject, Refusal> {
        let parameters = PostParams {
            dry_run,
            field_manager: Some("tester".to_owned()),
        };
        let url = format!(
            "/apis/dfs.io/v1alpha1/namespaces/{}/dfsclusters?fieldValidation=Strict&fieldManager=tester{}",
            self.namespace,
            if parameters.dry_run {
                "&dryRun=All"
            } else {
                ""
            },
        );
        let request = http::Request::post(url)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(object).unwrap())
            .unwrap();
        refusal(self.client.request(request).await)
    }

    /// Merges a change into a stored object.
    pub(crate) async fn change(&self, name: &str, change: Value) -> Result<DynamicObject, Refusal> {
        let parameters = PatchParams::default();
        refusal(
            self.dfs
                .patch(name, &parameters, &Patch::Merge(change))
                .await,
        )
    }

    /// Server-side apply without force.
    pub(crate) async fn apply(
        &self,
        manager: &str,
        object: &Value,
    ) -> Result<DynamicObject, Refusal> {
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or("nameless")
            .to_owned();
        let mut parameters = PatchParams::apply(manager);
        parameters.field_validation = Some(ValidationDirective::Strict);
        refusal(
            self.dfs
                .patch(&name, &parameters, &Patch::Apply(object))
                .await,
        )
    }

    /// Server-side apply of a status.
    pub(crate) async fn apply_status(
        &self,
        manager: &str,
        name: &str,
        status: Value,
    ) -> Result<DynamicObject, Refusal> {
        let object = json!({
            "apiVersion": "dfs.io/v1alpha1", "kind": "DfsCluster",
            "metadata": {"name": name}, "status": status,
        });
        let parameters = PatchParams::apply(manager);
        refusal(
            self.dfs
                .patch_status(name, &parameters, &Patch::Apply(object))
                .await,
        )
    }

    /// Asks for another number of datanodes, as `kubectl scale` does.
    pub(crate) async fn scale(&self, name: &str, replicas: i64) -> Result<Value, Refusal> {
        let change = json!({"spec": {"replicas": replicas}});
        let parameters = PatchParams {
            field_manager: Some("scaler".to_owned()),
            ..PatchParams::default()
        };
        let scaled = self
            .dfs
            .patch_scale(name, &parameters, &Patch::Merge(change))
            .await;
        refusal(scaled).map(|scale| serde_json::to_value(scale).unwrap())
    }
}

/// Puts the definition in place and waits until it is served.
async fn install(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = manifest().unwrap();
    let parameters = PatchParams::apply("dfs-cel-test").force();
    crds.patch(DfsCluster::crd_name(), &parameters, &Patch::Apply(&crd))
        .await
        .expect("the API server accepts the definition, its rules and their cost");
    let established = kube::runtime::conditions::is_crd_established();
    let waiting = kube::runtime::wait::await_condition(crds, DfsCluster::crd_name(), established);
    tokio::time::timeout(std::time::Duration::from_mins(1), waiting)
        .await
        .expect("the definition is established within a minute")
        .unwrap();
    // A changed schema takes effect a moment after it was stored.
    let resource: ApiResource = DfsCluster::api_resource();
    let probe: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    for _ in 0..100 {
        let mut object = good("probe");
        object["spec"]["dataNodes"]["replicas"] = json!(2);
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let parameters = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        if refusal(probe.create(&parameters, &object).await).is_err_and(|no| no.code == 422) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the definition's rules did not take effect");
}

fn refusal<T>(result: Result<T, kube::Error>) -> Result<T, Refusal> {
    result.map_err(|error| match error {
        kube::Error::Api(status) => Refusal {
            code: status.code,
            message: status.message.clone(),
        },
        other => panic!("no answer of the API server: {other:?}"),
    })
}

/// A small cluster that no operator touches.
pub(crate) fn good(name: &str) -> Value {
    json!({
        "apiVersion": "dfs.io/v1alpha1",
        "kind": "DfsCluster",
        "metadata": {"name": name},
        "spec": {
            "managementState": "Paused",
            "replication": {"factor": 3},
            "dataNodes": {"replicas": 3, "storage": {"size": "10Gi"}},
        },
    })
}

/// That with one value elsewhere.
pub(crate) fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let mut place = &mut object;
    for part in pointer.split('.') {
        place = &mut place[part];
    }
    *place = value;
    object
}

impl Refusal {
    /// It was the schema or a rule that said no, and it said so in these words.
    pub(crate) fn says(&self, words: &str) {
        assert_eq!(self.code, 422, "{}", self.message);
        assert!(
            self.message.contains(words),
            "`{words}` is not in: {}",
            self.message
        );
    }
}
