//! The operating system's wish that the process ends.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::shutdown::ShutdownTrigger;

/// Triggers the shutdown at the first SIGTERM or SIGINT and returns at the second, so that the
/// caller can end an impatient person's process at once. Handlers are in place when the returned
/// future is made; fails when the operating system refuses them. Call it inside a Tokio runtime.
pub fn on_signals(
    trigger: ShutdownTrigger,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        for _ in 0..2 {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "shutting down");
            trigger.trigger();
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::shutdown::shutdown_pair;

    #[tokio::test]
    async fn fault_37_sigterm_triggers_the_shutdown_and_a_second_one_ends_the_wait() {
        let (trigger, shutdown) = shutdown_pair();
        let wait = tokio::spawn(on_signals(trigger).unwrap());
        assert!(!shutdown.is_triggered());
        let this = rustix::process::getpid();
        rustix::process::kill_process(this, rustix::process::Signal::TERM).unwrap();
        tokio::time::timeout(Duration::from_secs(20), shutdown.triggered())
            .await
            .unwrap();
        assert!(shutdown.is_triggered());
        rustix::process::kill_process(this, rustix::process::Signal::TERM).unwrap();
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap()
            .unwrap();
    }
}
