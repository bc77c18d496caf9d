//! What the datanodes' volumes have, and what an administrator wants of each datanode.

use dfs_protocol::datanode::AdminState;
use dfs_protocol::status::Capacity;
use dfs_runtime::label_enum;
use dfs_runtime::metrics::{GaugeBy, GaugeOfEach, gauge};
use prometheus::{IntGauge, Registry};

use super::whole;
use crate::model::datanodes::{Datanode, DatanodeTable};

label_enum! {
    /// What an administrator wants of a datanode that has been admitted and is not gone for ever.
    pub enum AdminLabel: "admin" {
        /// Takes and serves chunks.
        InService = "in-service",
        /// Being emptied.
        Decommissioning = "decommissioning",
        /// Emptied.
        Decommissioned = "decommissioned",
    }
}

/// Numbers of volumes. A datanode has series of its own while the tracker knows it, silent or not: they
/// go when it is tombstoned.
#[derive(Debug, Clone)]
pub struct VolumeMetrics {
    capacity: GaugeOfEach<1>,
    used: GaugeOfEach<1>,
    free: GaugeOfEach<1>,
    total: IntGauge,
    total_used: IntGauge,
    total_free: IntGauge,
    admin: GaugeBy<AdminLabel>,
}

impl VolumeMetrics {
    /// Registers every number.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let each = |name: &str, help: &str| {
            GaugeOfEach::register(
                registry,
                &format!("dfs_tracker_datanode_{name}"),
                help,
                ["datanode"],
            )
        };
        Ok(Self {
            capacity: each(
                "capacity_bytes",
                "Bytes of the volume of each datanode that is known, as it last said",
            )?,
            used: each(
                "used_bytes",
                "Bytes that chunks occupy on each datanode that is known, as it last said",
            )?,
            free: each(
                "free_bytes",
                "Bytes that chunks may still take on each datanode that is known, as it last said",
            )?,
            total: gauge(
                registry,
                "dfs_tracker_capacity_bytes",
                "Bytes of the volumes of all datanodes that are not dead",
            )?,
            total_used: gauge(
                registry,
                "dfs_tracker_used_bytes",
                "Bytes that chunks occupy on all datanodes that are not dead",
            )?,
            total_free: gauge(
                registry,
                "dfs_tracker_free_bytes",
                "Bytes that chunks may still take on all datanodes that are not dead",
            )?,
            admin: GaugeBy::register(
                registry,
                "dfs_tracker_admin_state_datanodes",
                "Datanodes by what an administrator wants of them",
            )?,
        })
    }

    /// How it is now.
    pub fn set(&self, datanodes: &DatanodeTable, capacity: &Capacity) {
        let known = || datanodes.iter().filter(|node| label(node).is_some());
        let show = |gauge: &GaugeOfEach<1>, bytes: fn(&Datanode) -> u64| {
            gauge.show(known().map(|node| ([node.id.to_string()], whole(bytes(node)))));
        };
        show(&self.capacity, |node| node.stats.capacity_bytes);
        show(&self.used, |node| node.stats.used_bytes);
        show(&self.free, |node| node.stats.free_bytes);
        let Capacity {
            total_bytes,
            used_bytes,
            free_bytes,
        } = capacity;
        self.total.set(whole(*total_bytes));
        self.total_used.set(whole(*used_bytes));
        self.total_free.set(whole(*free_bytes));
        let mut counts = [0; 3];
        for at in known().filter_map(label) {
            counts[at as usize] += 1;
        }
        for at in [
            AdminLabel::InService,
            AdminLabel::Decommissioning,
            AdminLabel::Decommissioned,
        ] {
            self.admin.set(at, counts[at as usize]);
        }
    }
}

/// None for those that are no part of the cluster: not yet, or not any more.
fn label(node: &Datanode) -> Option<AdminLabel> {
    match node.record.admin {
        AdminState::Pending | AdminState::Tombstoned => None,
        AdminState::InService => Some(AdminLabel::InService),
        AdminState::Decommissioning => Some(AdminLabel::Decommissioning),
        AdminState::Decommissioned => Some(AdminLabel::Decommissioned),
    }
}
