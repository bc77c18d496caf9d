//! Prints what this machine and the store do, as ratios of one interleaved run: JSON lines, then
//! one table. What the rows mean is in docs/performance.md.

use std::io;

use dfs_e2e::bench::{Settings, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    run(&Settings::from_env()?).await
}
