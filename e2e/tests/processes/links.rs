//! Links that break between real processes, and two trackers at once.

use dfs_e2e::net::{Direction, OnceEffect};
use dfs_e2e::process::{ProcessSpec, free_ports};
use dfs_e2e::proxy::Proxy;
use dfs_e2e::store::Store;
use dfs_e2e::wait::eventually;

use crate::fleet::{CHUNK, DEADLINE, Fleet, Member, Options, bytes, seeded};

#[tokio::test(flavor = "multi_thread")]
async fn i03_i11_fault_23_an_upload_cut_anywhere_is_invisible_and_reclaimed() {
    let mut rng = seeded();
    let fleet = Fleet::start(Options::calm(3)).await;
    let proxy = Proxy::start(&fleet.tracker.address()).await.unwrap();
    let (near, store) = (Store::new(&proxy.address()), fleet.store());
    let chunk = CHUNK as u64;
    let body = bytes(&mut rng, CHUNK * 3);
    for (n, cut) in [10, 5_000, chunk - 1, chunk + 200, chunk * 2 + 300]
        .into_iter()
        .enumerate()
    {
        proxy.once(Direction::Forth, cut, OnceEffect::Cut);
        near.try_put(&format!("cut{n}"), body.clone())
            .await
            .unwrap_err();
        assert_eq!(
            store.content(&format!("cut{n}")).await,
            Ok(None),
            "cut after {cut}"
        );
    }
    // Nothing waits for the body any more: only the answer is lost, and the file may be there, whole.
    proxy.once(Direction::Back, 10, OnceEffect::Cut);
    near.try_put("answer-lost", body.clone()).await.unwrap_err();
    eventually("it is there or not", DEADLINE, || async {
        match store.content("answer-lost").await {
            Ok(Some(content)) if content == dfs_e2e::ledger::Content::of(&body) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let _ = store.delete("answer-lost").await;
    assert!(store.list("").await.is_empty());
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i04_fault_25_a_bit_flipped_on_the_wire_is_neither_stored_nor_served() {
    let mut rng = seeded();
    let mut fleet = Fleet::launch(Options::calm(2));
    // The third datanode is reached through the proxy alone: its port is chosen for it.
    let ports = free_ports(2);
    let (api, admin) = (ports[0].to_string(), ports[1].to_string());
    let proxy = Proxy::start(&format!("127.0.0.1:{api}")).await.unwrap();
    let advertise = proxy.address().to_string();
    fleet.add_datanode_at([ports[0], ports[1]], &["--advertise", &advertise]);
    fleet.wait_ready().await;
    let store = fleet.store();
    eprintln!("the proxy stands before {api} (admin {admin})");
    let body = bytes(&mut rng, CHUNK * 4);
    for n in 0..4_u64 {
        let forth = proxy.once(Direction::Forth, 60_000 + n * 40_000, OnceEffect::Flip);
        store.put(&format!("f{n}"), body.clone()).await;
        assert!(forth.is_done(), "the flip hit a write");
        assert!(store.get(&format!("f{n}")).await == body);
    }
    // Reads: only the datanode behind the proxy is left.
    store.wait_healthy(DEADLINE).await;
    let back = proxy.once(Direction::Back, 100_000, OnceEffect::Flip);
    eventually("a read was hit", DEADLINE, || async {
        assert!(store.get("f0").await == body, "a wrong byte was served");
        if back.is_done() {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await;
    store.wait_fsck_clean(DEADLINE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i08_i20_fault_20_of_two_trackers_the_older_is_refused_and_ends() {
    let mut rng = seeded();
    let mut fleet = Fleet::start(Options::default()).await;
    let body = bytes(&mut rng, CHUNK);
    fleet.store().put("f", body.clone()).await;
    // A copy of the catalog, taken while no tracker runs.
    fleet.tracker.process.kill_9().unwrap();
    let copy = fleet.root.path().join("second");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(&fleet.tracker.dir)
        .arg(&copy)
        .status();
    assert!(copied.unwrap().success());
    fleet.tracker.process.restart().unwrap();
    fleet.wait_ready().await;
    let older = fleet.store();
    // The second tracker starts on the copy; datanodes are told of it by hand, as the seed API allows.
    let ports = free_ports(2);
    let more = ["--heartbeat-interval", "200ms", "--orphan-age", "3s"].map(str::to_owned);
    let spec = ProcessSpec::dfs("second", ["tracker"]);
    let second = Member::start(spec, [ports[0], ports[1]], fleet.root.path(), &more);
    let newer = Store::new(&second.address());
    for number in 0..fleet.datanodes.len() {
        fleet.move_datanode(number, &second.address());
    }
    newer.wait_ready(3, DEADLINE).await;
    newer.put("g", body.clone()).await;
    // The older one must not acknowledge anything from here on.
    let late = older.try_put("h", body.clone()).await;
    assert!(
        late.is_err() || !late.as_ref().unwrap().status.is_success(),
        "{late:?}"
    );
    for datanode in &fleet.datanodes {
        // By hand, to the older one: it calls the datanode back, and learns that it is deposed.
        let _told = older
            .door
            .get(&format!("/register?port={}", datanode.port))
            .await;
    }
    let late = older.try_put("h", body.clone()).await;
    assert!(
        late.is_err() || !late.as_ref().unwrap().status.is_success(),
        "{late:?}"
    );
    let status = fleet.tracker.process.wait(DEADLINE).await;
    eprintln!("the older tracker ended with {status}");
    assert_eq!(status.code(), Some(1), "{}", fleet.tracker.process.log());
    for path in ["f", "g"] {
        assert!(newer.get(path).await == body, "{path}");
    }
    assert_eq!(newer.content("h").await, Ok(None));
    newer.wait_fsck_clean(DEADLINE).await;
}
