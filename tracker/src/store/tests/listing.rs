//! Listings: order, pages, common prefixes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use dfs_protocol::upload::{ListEntry, ListRequest};

use super::support::*;
use crate::store::kv::{Direction, ReadTxn, See, Span, Table};
use crate::store::{Catalog, Snapshot, StoreError};

const NAMES: [&str; 9] = [
    "a", "d-", "d/a", "d/b/c", "d/b/d", "d/c", "d0", "e/f/g", "z",
];

async fn filled() -> Catalog {
    let catalog = catalog().await;
    for (i, name) in NAMES.iter().enumerate() {
        catalog.submit(commit(name, i as u128, &[])).await.unwrap();
    }
    catalog
}

// All pages of a listing; each but the last must be full.
async fn listed(catalog: &Catalog, start: &str, delimited: bool, limit: u32) -> Vec<String> {
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = catalog
            .list(ListRequest {
                prefix: prefix(start),
                delimited,
                limit,
                after: after.clone(),
            })
            .await
            .unwrap();
        names.extend(page.entries.iter().map(|entry| match entry {
            ListEntry::File { path, .. } => path.to_string(),
            ListEntry::Directory { path } => path.to_string(),
        }));
        let Some(next) = page.next else { break };
        assert_eq!(page.entries.len(), limit as usize);
        after = Some(next);
    }
    names
}

#[tokio::test]
async fn every_page_size_gives_the_same_listing_in_byte_order() {
    let catalog = filled().await;
    for limit in 1..12 {
        assert_eq!(listed(&catalog, "", false, limit).await, NAMES);
        assert_eq!(
            listed(&catalog, "", true, limit).await,
            ["a", "d-", "d/", "d0", "e/", "z"]
        );
        assert_eq!(
            listed(&catalog, "d/", true, limit).await,
            ["d/a", "d/b/", "d/c"]
        );
        assert_eq!(
            listed(&catalog, "d/", false, limit).await,
            ["d/a", "d/b/c", "d/b/d", "d/c"]
        );
        assert_eq!(listed(&catalog, "d", true, limit).await, ["d-", "d/", "d0"]);
        assert!(listed(&catalog, "nothing", true, limit).await.is_empty());
    }
}

#[tokio::test]
async fn a_page_may_begin_behind_any_text() {
    let catalog = filled().await;
    let page = |after: &str| ListRequest {
        prefix: prefix("d/"),
        delimited: true,
        limit: 10,
        after: Some(after.to_owned()),
    };
    for (after, count) in [
        ("", 3),
        ("d/", 0),
        ("d/a", 2),
        ("d/b/", 1),
        ("d/bb", 1),
        ("x", 0),
    ] {
        let found = catalog.list(page(after)).await.unwrap();
        assert_eq!(found.entries.len(), count, "{after}");
    }
}

#[tokio::test]
async fn i16_a_listing_shows_a_change_as_soon_as_it_is_acknowledged() {
    let catalog = filled().await;
    catalog.submit(delete("d/a", None)).await.unwrap();
    catalog.submit(commit("d/aa", 77, &[])).await.unwrap();
    assert_eq!(
        listed(&catalog, "d/", true, 10).await,
        ["d/aa", "d/b/", "d/c"]
    );
}

struct Counting<'t>(&'t dyn ReadTxn, AtomicUsize);

impl ReadTxn for Counting<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(table, key)
    }

    fn walk(
        &self,
        table: Table,
        span: &Span,
        direction: Direction,
        see: &mut See<'_>,
    ) -> Result<(), StoreError> {
        self.0.walk(table, span, direction, &mut |key, value| {
            self.1.fetch_add(1, Ordering::Relaxed);
            see(key, value)
        })
    }
}

#[tokio::test]
async fn a_common_prefix_costs_the_same_however_much_lies_below_it() {
    let catalog = catalog().await;
    let mut writers = tokio::task::JoinSet::new();
    for i in 0..2000u128 {
        let catalog = catalog.clone();
        writers.spawn(async move {
            catalog
                .submit(commit(&format!("{}/{i}", i % 4), i, &[]))
                .await
                .unwrap();
        });
    }
    writers.join_all().await;
    let engine = catalog.engine();
    let txn = engine.read().unwrap();
    let counting = Counting(txn.as_ref(), AtomicUsize::new(0));
    let request = ListRequest {
        prefix: prefix(""),
        delimited: true,
        limit: 100,
        after: None,
    };
    let page = Snapshot::new(&counting).list(&request).unwrap();
    let names: BTreeSet<String> = page
        .entries
        .iter()
        .map(|entry| match entry {
            ListEntry::File { path, .. } => path.to_string(),
            ListEntry::Directory { path } => path.to_string(),
        })
        .collect();
    assert_eq!(names.len(), 4);
    assert!(counting.1.load(Ordering::Relaxed) <= 20);
}
