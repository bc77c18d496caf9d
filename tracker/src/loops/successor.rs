//! A tracker that a majority of its datanodes fell silent to asks them whether they obey another one:
//! where they were moved to a later tracker no heartbeat would ever say so, and it would go on
//! answering reads from a catalog that is old.

use std::sync::Arc;
use std::time::Duration;

use dfs_protocol::datanode::Liveness;
use futures_util::future::join_all;

use super::Work;
use crate::model::datanodes::Datanode;
use crate::service::Tracker;

/// How long one datanode may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Successor {
    asked: Option<Duration>,
}

impl Work for Successor {
    async fn tick(&mut self, tracker: &Arc<Tracker>) {
        let now = tracker.clock.monotonic();
        let silent: Vec<_> = {
            let state = tracker.state();
            let pause = state.policy.liveness.dead_window();
            let lately = self.asked.is_some_and(|at| now.saturating_sub(at) < pause);
            if lately || state.datanodes.writes_refused(now).is_none() {
                return;
            }
            let silent = |node: &&Datanode| state.datanodes.liveness(node, now) != Liveness::Live;
            let serving = state.datanodes.serving();
            serving.filter(silent).map(Datanode::at).collect()
        };
        self.asked = Some(now);
        let answers = silent.iter().map(|at| async move {
            let asked = tracker.datanode_client.identity(&at.address);
            let identity = tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?;
            (identity.datanode == at.id).then_some(identity.fence)
        });
        for fence in join_all(answers).await.into_iter().flatten() {
            if let Err(error) = tracker.meet_fence(fence).await {
                tracing::error!(%error, "silent datanodes obey another tracker");
                return;
            }
        }
    }
}
