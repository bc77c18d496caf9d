//! Caches that are behind, changes that are missed or seen twice: at worst something is done later.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use dfs_operator::error::{Category, ReconcileError};
use dfs_operator::observe::{ClaimView, Inventory, LiveInventory, NodeSight, OwnedKind, PodView};
use dfs_operator::reconcile;
use dfs_operator::validate::ClusterKey;
use kube::api::DynamicObject;
use serde_json::json;

use crate::tracker::Told;
use crate::world::World;

/// A cache that shows what it saw when it was last let look.
struct Frozen {
    live: LiveInventory,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    pods: Vec<PodView>,
    claims: Vec<ClaimView>,
    owned: Vec<(OwnedKind, Vec<DynamicObject>)>,
}

fn key() -> ClusterKey {
    ClusterKey {
        namespace: "default".into(),
        name: "a".into(),
    }
}

impl Frozen {
    fn new(world: &World) -> Arc<Self> {
        Arc::new(Self {
            live: LiveInventory::new(world.api.client()),
            seen: Mutex::default(),
        })
    }

    async fn look(&self) {
        let mut owned = Vec::new();
        for kind in OwnedKind::ALL {
            owned.push((*kind, self.live.owned(*kind, &key()).await.unwrap()));
        }
        let seen = Seen {
            pods: self.live.pods(&key()).await.unwrap(),
            claims: self.live.claims(&key()).await.unwrap(),
            owned,
        };
        *self.seen.lock().unwrap() = seen;
    }
}

#[async_trait]
impl Inventory for Frozen {
    async fn pods(&self, _: &ClusterKey) -> Result<Vec<PodView>, ReconcileError> {
        Ok(self.seen.lock().unwrap().pods.clone())
    }

    async fn claims(&self, _: &ClusterKey) -> Result<Vec<ClaimView>, ReconcileError> {
        Ok(self.seen.lock().unwrap().claims.clone())
    }

    async fn node(&self, name: &str) -> Result<NodeSight, ReconcileError> {
        self.live.node(name).await
    }

    async fn owned(
        &self,
        kind: OwnedKind,
        _: &ClusterKey,
    ) -> Result<Vec<DynamicObject>, ReconcileError> {
        let seen = self.seen.lock().unwrap();
        let found = seen.owned.iter().find(|(cached, _)| *cached == kind);
        Ok(found
            .map(|(_, objects)| objects.clone())
            .unwrap_or_default())
    }
}

#[tokio::test]
async fn i28_a_cache_that_is_behind_never_lowers_the_datanodes() {
    let world = World::new();
    world.converge(&world.operator()).await;
    let cache = Frozen::new(&world);
    cache.look().await;
    let old_cluster = world.cluster();
    // Someone else, an earlier leader say, has scaled to five meanwhile.
    world.api.change("dfsclusters", "a", |cluster| {
        cluster["spec"]["dataNodes"]["replicas"] = json!(5);
    });
    world.converge(&world.operator()).await;
    world.api.change("services", "a-datanode", |service| {
        service["spec"]["ports"][0]["port"] = json!(1);
    });
    cache.look().await;
    cache
        .seen
        .lock()
        .unwrap()
        .owned
        .iter_mut()
        .for_each(|(kind, objects)| {
            if *kind == OwnedKind::StatefulSet {
                for set in objects {
                    set.data["spec"]["replicas"] = json!(3);
                    set.data["status"] = json!({"replicas": 3});
                    set.metadata.annotations = None;
                }
            }
        });
    let ctx = world.operator_with(cache);
    let _stale = reconcile(&ctx, &old_cluster).await;
    let set = world.api.get("statefulsets", "a-datanode").unwrap();
    assert_eq!(set["spec"]["replicas"], 5, "an old cache scaled down");
}

#[tokio::test]
async fn i28_a_status_from_an_old_look_is_refused_and_the_recorded_id_stays() {
    let world = World::new();
    let ctx = world.operator();
    let before = world.cluster();
    world.converge(&ctx).await;
    let recorded = world.cluster().status.unwrap().cluster_id;
    world
        .tracker
        .with(|state| state.cluster = dfs_protocol::ClusterId::from_u128(0xdead));
    let error = reconcile(&world.operator(), &before).await.unwrap_err();
    assert_eq!(error.category(), Category::Conflict);
    assert_eq!(world.cluster().status.unwrap().cluster_id, recorded);
}

#[tokio::test]
async fn i28_a_volume_that_only_a_cache_shows_is_not_bound() {
    let world = World::new();
    world.converge(&world.operator()).await;
    let cache = Frozen::new(&world);
    cache.look().await;
    let ctx = world.operator_with(cache.clone());
    // Pod and claim are replaced; the cache still shows the old ones.
    world.api.remove("pods", "a-datanode-1");
    world
        .api
        .remove("persistentvolumeclaims", "data-a-datanode-1");
    world.settle();
    world.tracker.take_told();
    let address = world.api.get("pods", "a-datanode-1").unwrap()["status"]["podIP"].clone();
    // The worst case: the new pod has the old one's address.
    cache.seen.lock().unwrap().pods.iter_mut().for_each(|pod| {
        if pod.name == "a-datanode-1" {
            pod.ips = vec![address.as_str().unwrap().to_owned()];
        }
    });
    world.reconcile(&ctx).await.unwrap();
    let live = world
        .api
        .get("persistentvolumeclaims", "data-a-datanode-1")
        .unwrap();
    let uid = live["metadata"]["uid"].as_str().unwrap();
    let told = world.tracker.take_told();
    let volumes = told.iter().filter_map(|told| match told {
        Told::Admit(_, to) => Some(to.volume.as_str()),
        _ => None,
    });
    let volumes: Vec<_> = volumes.collect();
    assert_eq!(
        volumes,
        [uid],
        "bound to a volume that does not exist: {told:?}"
    );
}

#[tokio::test]
async fn i28_a_volume_that_a_cache_misses_is_not_lost() {
    let world = World::new();
    world.converge(&world.operator()).await;
    let cache = Frozen::new(&world);
    cache.look().await;
    let ctx = world.operator_with(cache.clone());
    world.tracker.take_told();
    // The cache shows a claim of the same name with another UID, and the datanode is down.
    cache
        .seen
        .lock()
        .unwrap()
        .claims
        .iter_mut()
        .for_each(|claim| {
            if claim.name == "data-a-datanode-1" {
                claim.uid = dfs_operator::observe::Uid("imagined".into());
            }
        });
    let id = world.uuid("a-datanode-1");
    world.tracker.with(|state| {
        state.nodes.get_mut(&id).unwrap().liveness = dfs_protocol::datanode::Liveness::Dead;
    });
    world.reconcile(&ctx).await.unwrap();
    assert_eq!(
        world.tracker.take_told(),
        [],
        "a datanode was given up for a stale cache"
    );
}

#[tokio::test]
async fn i28_events_that_are_missed_or_replayed_change_nothing_at_the_end() {
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    let undisturbed = World::new();
    undisturbed.converge(&undisturbed.operator()).await;
    let world = World::new();
    let cache = Frozen::new(&world);
    let mut ctx = world.operator_with(cache.clone());
    let mut known = vec![world.cluster()];
    for _ in 0..120 {
        match rng.u32(..5) {
            0 => cache.look().await,
            1 => world.settle(),
            2 => known.push(world.cluster()),
            // An old version of the object, as a replayed event brings it.
            3 => {
                let old = &known[rng.usize(..known.len())];
                let _may_conflict = reconcile(&ctx, old).await;
            }
            _ => ctx = world.operator_with(cache.clone()),
        }
    }
    world.converge(&world.operator()).await;
    assert_eq!(world.end_state(), undisturbed.end_state(), "seed {seed}");
}
