//! Captured streams for the tests of this crate.

use std::sync::{Arc, Mutex, PoisonError};

use dfs_protocol::DatanodeId;
use dfs_protocol::datanode::{AdminState, DatanodeStats, Liveness};
use dfs_protocol::status::DatanodeStatus;

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

/// A datanode in service, as the tracker tells of it.
pub(crate) fn datanode(id: u128, address: &str) -> DatanodeStatus {
    DatanodeStatus {
        id: DatanodeId::from_u128(id),
        address: address.to_owned(),
        zone: None,
        host: None,
        liveness: Liveness::Live,
        admin: AdminState::InService,
        stats: DatanodeStats::default(),
        last_heartbeat: Some("2026-05-04T03:02:01Z".parse().unwrap()),
        version: "0.1.0".to_owned(),
        chunks_remaining: None,
        pod: None,
        volume: None,
        refused: None,
        unreachable: false,
        maintenance_until: None,
        traffic: None,
    }
}
