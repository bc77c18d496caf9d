//! Administration.

use dfs_protocol::datanode::AdminState;
use serde_json::json;

use super::fake::Fake;
use super::run;
use crate::exit::Exit;

#[tokio::test]
async fn administration_reaches_its_routes() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    let id = "000000000000000000000000000000ab";
    for line in [
        "decommission",
        "recommission",
        "maintenance",
        "maintenance --for 90s",
        "maintenance --end",
        "lost",
        "trash restore --to x/y",
        "trash purge",
    ] {
        let (exit, captured) = run(&fake, dir.path(), &format!("dfs {line} {id}")).await;
        assert_eq!(exit, Exit::Done, "{line}: {}", captured.stderr());
    }
    let changes = fake.doings().changes.join("\n");
    assert_eq!(
        changes,
        format!(
            "POST /nodes/{id}/decommission?\nPOST /nodes/{id}/recommission?\n\
             POST /nodes/{id}/maintenance?seconds=300\nPOST /nodes/{id}/maintenance?seconds=90\n\
             DELETE /nodes/{id}/maintenance?\n\
             POST /nodes/{id}/lost?\nPOST /trash/{id}/restore?to=x%2Fy\nDELETE /trash/{id}?"
        )
    );
}

#[tokio::test]
async fn decommission_waits_until_it_is_done_and_tells_how_far_it_is() {
    let (fake, dir) = (Fake::start().await, tempfile::tempdir().unwrap());
    let id = dfs_protocol::DatanodeId::from_u128(0xab);
    let seen = |admin: AdminState| {
        let mut node = crate::testing::datanode(0xab, "h:1");
        node.admin = admin;
        json!([node])
    };
    let verdict =
        json!({"safe": false, "reason": "2 chunks are not whole", "chunks": [], "chunk_count": 2});
    let mut status = crate::verbs::status::tests::healthy();
    status.repair.bytes_remaining = 3 << 20;
    fake.doings().answers = [
        (
            "/nodes",
            [
                seen(AdminState::Decommissioning),
                seen(AdminState::Decommissioned),
            ]
            .into(),
        ),
        (
            "/nodes/000000000000000000000000000000ab/safe-to-remove",
            [verdict].into(),
        ),
        ("/status", [json!(status)].into()),
    ]
    .into();
    let line = format!("dfs decommission -w {id}");
    let (exit, captured) = run(&fake, dir.path(), &line).await;
    let told = captured.stderr();
    assert_eq!(exit, Exit::Done, "{told}");
    let progress = "2 chunks left, 3.0 MiB to copy in the store: 2 chunks are not whole";
    assert!(told.contains(progress), "{told}");
    assert!(captured.stdout().contains("is decommissioned"));
    // Somebody else takes it back.
    fake.doings()
        .answers
        .insert("/nodes", [seen(AdminState::InService)].into());
    let (exit, captured) = run(&fake, dir.path(), &line).await;
    assert_eq!(exit, Exit::Conflict, "{}", captured.stderr());
    assert!(captured.stderr().contains("took it back"));
}

#[test]
fn a_maintenance_has_a_time_within_a_day_or_an_end() {
    let read = |line: &str| crate::args::parse(line.split(' ').map(Into::into).collect());
    for line in ["--for 1s", "--for 24h", "--end"] {
        assert!(
            read(&format!("dfs maintenance {line} ab")).is_ok(),
            "{line}"
        );
    }
    for line in ["--for 0s", "--for 25h", "--for 5", "--for 5m --end"] {
        assert!(
            read(&format!("dfs maintenance {line} ab")).is_err(),
            "{line}"
        );
    }
}
