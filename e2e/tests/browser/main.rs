//! The status page in a real browser, against a running store.
//!
//! Needs Chromium and its driver. Where they are not installed the tests say so and are skipped, unless
//! `DFS_BROWSER_TESTS=1` demands them. Pictures of the page are left in `target/screenshots`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod door;
mod driver;
mod files;
mod states;
