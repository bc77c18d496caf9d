//! The stand-alone gateway.

use std::sync::Arc;
use std::time::Duration;

use dfs_client::TrackerApi;
use dfs_protocol::calls::Nothing;
use dfs_runtime::admin::{Readiness, admin_router, serve_admin};
use dfs_runtime::forwarded::TrustedProxies;
use dfs_runtime::request::{RequestEdge, RequestMetrics};
use dfs_runtime::server::{ServerLimits, ServerMetrics, serve};
use dfs_runtime::shutdown::Shutdown;
use dfs_runtime::trace::Tracer;
use tokio::net::TcpListener;

use crate::config::GatewayConfig;
use crate::doors::{Doors, doors};
use crate::gateway::GatewayParts;

/// Between two looks at the tracker.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Configuration of a gateway of its own.
#[derive(Debug, Clone)]
pub struct StandAlone {
    /// The doors.
    pub gateway: GatewayConfig,
    /// The listener.
    pub limits: ServerLimits,
    /// Requests at once.
    pub in_flight: usize,
    /// Whose word on the client is taken.
    pub proxies: TrustedProxies,
    /// Who writes requests down.
    pub tracer: Tracer,
}

/// A gateway that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A metric is registered already: two gateways share a registry.
    #[error("cannot register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Serves the public door on `listener` and health and metrics on `admin_listener` until the
/// shutdown. Ready while the tracker answers.
pub async fn run(
    config: StandAlone,
    parts: GatewayParts,
    listener: TcpListener,
    admin_listener: TcpListener,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let StandAlone {
        gateway,
        limits,
        in_flight,
        proxies,
        tracer,
    } = config;
    let registry = parts.registry.clone();
    dfs_runtime::process::register(&registry, "gateway")?;
    let server_metrics = ServerMetrics::register(&registry, "api")?;
    let edge = RequestEdge::new(
        parts.rng.clone(),
        parts.clock.clone(),
        RequestMetrics::register(&registry)?,
        in_flight,
    )
    .trusting(proxies)
    .traced(tracer);
    let readiness = Readiness::new();
    let reach = tokio::spawn(reach_tracker(
        parts.tracker.clone(),
        readiness.clone(),
        shutdown.clone(),
    ));
    let Doors {
        public, release, ..
    } = doors(parts, gateway)?;
    let public = edge.wrap(public);
    let admin = serve_admin(
        admin_listener,
        admin_router(readiness, vec![registry.clone()]),
        ServerMetrics::register(&registry, "admin")?,
        shutdown.clone(),
    );
    tokio::join!(
        serve(listener, public, limits, server_metrics, shutdown),
        admin
    );
    release.run().await;
    reach.abort();
    Ok(())
}

/// Ready as soon as the tracker answered once, and from then on: while it restarts, requests wait here and are then
/// told to come again. Were all gateways taken out of rotation instead, an ingress would answer in their place, some
/// of them with 404, as if the files were gone.
async fn reach_tracker(tracker: Arc<dyn TrackerApi>, readiness: Readiness, shutdown: Shutdown) {
    loop {
        let state = tracker.status(Nothing {}).await;
        let reached = state.is_ok();
        readiness.set(
            "tracker reached",
            state.map(drop).map_err(|error| error.to_string()),
        );
        if reached {
            return;
        }
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CHUNK, ReadFault, config, content, parts};
    use dfs_runtime::shutdown::shutdown_pair;
    use std::sync::atomic::Ordering;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    /// Sends a request over a socket of its own and reads until the server closes it.
    async fn exchange(address: std::net::SocketAddr, head: &str, body: &[u8]) -> Vec<u8> {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(body).await.unwrap();
        let mut answer = Vec::new();
        // A broken download may end in a reset: what came before counts.
        let _ended = socket.read_to_end(&mut answer).await;
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_is_ready_once_it_reached_the_tracker_and_stays_so_while_that_is_away() {
        let (_parts, _chain, tracker, _end) = parts(3, CHUNK).await;
        let (_trigger, shutdown) = shutdown_pair();
        let readiness = Readiness::new();
        tracker.unasked.store(1, Ordering::SeqCst);
        let reach = reach_tracker(tracker.clone(), readiness.clone(), shutdown);
        let mut reach = tokio::spawn(reach);
        let first = tokio::time::timeout(CHECK_INTERVAL / 2, &mut reach).await;
        assert!(first.is_err() && !readiness.is_ready());
        // The last look: whatever becomes of the tracker, nobody asks again.
        let ended = tokio::time::timeout(10 * CHECK_INTERVAL, reach).await;
        ended.expect("it looks on").unwrap();
        assert!(readiness.is_ready(), "{}", readiness.describe());
    }

    #[tokio::test]
    async fn a_gateway_of_its_own_serves_files_health_and_metrics_until_the_shutdown() {
        let (parts, chain, tracker, _end) = parts(3, CHUNK).await;
        let (trigger, shutdown) = shutdown_pair();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (api, health) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
        let alone = StandAlone {
            gateway: crate::GatewayConfig {
                max_file_bytes: 10 * CHUNK,
                ..config()
            },
            limits: ServerLimits::default(),
            in_flight: 100,
            proxies: TrustedProxies::default(),
            tracer: Tracer::off(),
        };
        let running = tokio::spawn(run(alone, parts, listener, admin, shutdown));

        let bytes = content(2 * CHUNK);
        let put = |length: u64| {
            format!(
                "PUT /files/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 expect: 100-continue\r\ncontent-length: {length}\r\n\r\n"
            )
        };
        let answer = exchange(api, &put(2 * CHUNK), &bytes).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.starts_with("HTTP/1.1 100"), "{text}");
        assert!(text.contains("HTTP/1.1 201"), "{text}");
        // What is refused is refused without the 100 (bad input 19 and 21).
        let answer = exchange(api, &put(11 * CHUNK), b"").await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.starts_with("HTTP/1.1 413"), "{text}");

        let get = "GET /files/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let whole = exchange(api, get, b"").await;
        assert!(whole.ends_with(&bytes));
        // I5 on the wire: fewer bytes than announced.
        for datanode in 0..3 {
            chain.order_read(datanode, Some(ReadFault::Flip(2)));
        }
        let broken = exchange(api, get, b"").await;
        let text = String::from_utf8_lossy(&broken).to_lowercase();
        assert!(text.contains(&format!("content-length: {}", 2 * CHUNK)));
        assert!(broken.len() < 4 * 65_536, "{}", broken.len());

        let ready = "GET /readyz?verbose HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let text = exchange(health, ready, b"").await;
        assert!(String::from_utf8_lossy(&text).contains("[ok] tracker reached"));
        let metrics = ready.replace("readyz?verbose", "metrics");
        let text = exchange(health, &metrics, b"").await;
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(
            text.contains("dfs_gateway_broken_downloads_total 1"),
            "{text}"
        );
        assert_eq!(tracker.abandoned(), 0);
        trigger.trigger();
        running.await.unwrap().unwrap();
        // I29: what was placed ahead of need counts as being written, and would hold a drain back.
        let placed: u32 = tracker.allocations().iter().map(|asked| asked.chunks).sum();
        assert_eq!(tracker.abandoned(), placed as usize - 2);
    }
}
