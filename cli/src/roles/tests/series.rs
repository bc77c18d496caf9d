//! How many series a process has: bounded, and nothing that clients do makes one.

use std::collections::BTreeSet;
use std::sync::Arc;

use dfs_client::{ClientMetrics, HttpClient};
use dfs_datanode::{Datanode, DatanodeConfig, DatanodeSeams};
use dfs_gateway::{GatewayConfig, GatewayParts, doors};
use dfs_runtime::metrics::DURATION_BUCKETS;
use dfs_runtime::request::Routes;
use dfs_runtime::trace::TraceMetrics;
use http::Method;
use prometheus::{Registry, TextEncoder};

use super::super::tracker::{open_tracker, tracker_config, tracker_routes};
use super::*;

/// As docs/metrics.md states them.
const TRACKER: usize = 6000;
const DATANODE: usize = 2000;
const GATEWAY: usize = 4000;
/// Of each datanode that a tracker knows.
const EACH: usize = 3;
/// Kinds of changes of the catalog, times results: they appear with the first change.
const OPERATIONS: usize = 12 * 18;
/// Both listeners and the process itself, which are registered where sockets are.
const SHARED: usize = 150;

fn series(registry: &Registry) -> usize {
    let text = TextEncoder::new().encode_to_string(&registry.gather());
    text.unwrap()
        .lines()
        .filter(|l| !l.starts_with('#'))
        .count()
}

/// Series of requests when every method of every route, and one that it does not take, was answered
/// with every class of status.
fn of_requests(routes: &Routes) -> usize {
    let patterns = routes.endpoints.iter().map(|endpoint| &endpoint.route);
    let others = 1 + patterns.collect::<BTreeSet<_>>().len();
    let histogram = DURATION_BUCKETS.len() + 3;
    (routes.endpoints.len() + others) * (5 + histogram)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_process_can_have_more_series_than_its_page_says() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::real();
    let (trigger, shutdown) = shutdown_pair();
    let args = dev_args("dfs dev");
    let config = tracker_config(dir.path().join("tracker"), &args.policy);
    let registry = Registry::new();
    let opened = open_tracker(&config, &world, &registry, &shutdown).await;
    let (running, doors_of_tracker) = opened.unwrap();
    let routes = tracker_routes(&running, doors_of_tracker);
    assert!(routes.endpoints.len() > 40, "{:?}", routes.endpoints);
    let most = series(&registry) + of_requests(&routes) + OPERATIONS + SHARED;
    assert!(most <= TRACKER, "a tracker may have {most} series");

    let registry = Registry::new();
    let calls = ClientMetrics::register(&registry).unwrap();
    TraceMetrics::register(&registry).unwrap();
    let parts = GatewayParts {
        tracker: running.tracker.clone(),
        http: HttpClient::counted(world.connector.clone(), calls),
        clock: world.clock.clone(),
        rng: world.rng.clone(),
        registry: registry.clone(),
        shutdown: shutdown.clone(),
    };
    let public = doors(parts, GatewayConfig::default()).unwrap().public;
    let most = series(&registry) + of_requests(&public) + SHARED;
    assert!(most <= GATEWAY, "a gateway may have {most} series");

    let registry = Registry::new();
    // Nobody listens at these: what it registers does not depend on it.
    let config = DatanodeConfig::new(dir.path().join("datanode"), "127.0.0.1:1", "127.0.0.1:1");
    let seams = DatanodeSeams {
        disk: world.disk.clone(),
        clock: world.clock.clone(),
        rng: world.rng.clone(),
        connector: world.connector.clone(),
        registry: registry.clone(),
    };
    let datanode = Datanode::start(config, seams, shutdown).await.unwrap();
    let routes = dfs_datanode::http::router(Arc::clone(datanode.context()));
    let most = series(&registry) + of_requests(&routes) + SHARED;
    assert!(most <= DATANODE, "a datanode may have {most} series");
    trigger.trigger();
    running.stop().await;
}

/// Files under a name of their own are stored, fetched, missed and deleted, and unknown methods are
/// tried.
async fn use_it(store: &Store, http: &HttpClient, name: &str) {
    let ask = async |method: &str, path: &str| {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let timeout = Duration::from_secs(90);
        // What is answered does not matter here.
        let _answer = http.fetch(method, &store.address, path, &[], timeout).await;
    };
    for n in 0..5 {
        let (exit, told) = dfs(store, &format!("dfs put - {name}/{n}"), name.as_bytes()).await;
        assert_eq!(exit, Exit::Done, "{}", told.stderr());
        ask("GET", &format!("/files/{name}/{n}")).await;
        ask("GET", &format!("/download/{name}/{n}")).await;
        ask("GET", &format!("/files/{name}/absent-{n}")).await;
        ask(
            &format!("{}{n}", name.to_uppercase()),
            &format!("/files/{name}/{n}"),
        )
        .await;
        ask("GET", &format!("/{name}/nowhere/{n}")).await;
        ask("DELETE", &format!("/files/{name}/{n}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_make_no_series_and_the_page_has_every_metric_of_a_running_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = start(dir.path(), "--datanodes 3").await.unwrap();
    let http = HttpClient::new(TcpConnector::shared());
    let scrape = async || {
        let fetched = http.fetch(
            Method::GET,
            &store.address,
            "/metrics",
            &[],
            Duration::from_secs(90),
        );
        String::from_utf8(fetched.await.unwrap().to_vec()).unwrap()
    };
    // Of the tracker's own doors: what roles say to each other goes on all the time.
    let doors = |text: &str| -> BTreeSet<String> {
        let lines = text.lines().filter(|line| {
            let at = ["/files", "/download", "/upload", "none"];
            let of_door = |route: &&str| line.contains(&format!("route=\"{route}"));
            at.iter().any(of_door) && !line.contains("datanode=")
        });
        let names = lines.filter_map(|line| line.rsplit_once(' '));
        names.map(|(name, _)| name.to_owned()).collect()
    };
    use_it(&store, &http, "walnut").await;
    let first = scrape().await;
    for name in ["hazel", "pecan", "almond"] {
        use_it(&store, &http, name).await;
    }
    let last = scrape().await;
    assert!(!doors(&first).is_empty(), "{first}");
    let more: Vec<_> = doors(&last).difference(&doors(&first)).cloned().collect();
    assert!(more.is_empty(), "clients made {more:?}");
    let all = last.lines().filter(|line| !line.starts_with('#')).count();
    assert!(all <= TRACKER + 3 * (EACH + DATANODE), "{all} series");

    let page = include_str!("../../../../docs/metrics.md");
    let families = last.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let absent = families
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, kind)| !page.contains(&format!("| `{name}` | {kind} |")));
    let absent: Vec<_> = absent.collect();
    assert!(
        absent.is_empty(),
        "docs/metrics.md lacks {absent:?}: run make generate"
    );
    stop(store).await;
}
