//! Captured streams for the tests of this crate.

use std::sync::{Arc, Mutex, PoisonError};

use crate::output::Output;

/// Remembers what a command wrote.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captured {
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
}

impl Captured {
    pub(crate) fn output(&self) -> Output {
        Output::new(self.stdout.clone(), self.stderr.clone(), false)
    }

    pub(crate) fn stdout_bytes(&self) -> Vec<u8> {
        self.stdout
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.stdout_bytes()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        let bytes = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(bytes.clone()).unwrap()
    }
}
