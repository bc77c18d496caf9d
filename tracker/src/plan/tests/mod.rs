//! The planners against tables and random clusters.

mod cluster;
mod gc;
mod judgement;
mod placement;
mod repair;
mod trash;
