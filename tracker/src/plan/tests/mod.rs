//! The planners against tables and random clusters.

mod cluster;
mod factor;
mod gc;
mod judgement;
mod limits;
mod placement;
mod rebalance;
mod repair;
mod spread;
mod trash;
mod what_if;
