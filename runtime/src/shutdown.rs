//! One signal that ends a role: stop accepting, finish what is in flight, leave.

use tokio::sync::watch;

/// Ends every holder of a [`Shutdown`] made with it. Dropping it ends them too.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

/// Tells a task when to end.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

/// A trigger and its first listener.
pub fn shutdown_pair() -> (ShutdownTrigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (ShutdownTrigger(sender), Shutdown(receiver))
}

impl ShutdownTrigger {
    /// Asks everyone to end. Asking twice is harmless.
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    /// One more listener.
    pub fn listen(&self) -> Shutdown {
        Shutdown(self.0.subscribe())
    }
}

impl Shutdown {
    /// Whether the end was asked for.
    pub fn is_triggered(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the end.
    pub async fn triggered(&self) {
        let mut receiver = self.0.clone();
        // An error means that the trigger is gone: the end as well.
        let _gone = receiver.wait_for(|ended| *ended).await;
    }
}
