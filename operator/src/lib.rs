//! The operator: reads `DfsCluster` resources and makes the cluster be what they say.

pub mod crd;
