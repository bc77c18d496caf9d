//! The planners against tables and random clusters.
