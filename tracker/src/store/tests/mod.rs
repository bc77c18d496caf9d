//! Tests of the catalog's promises: I9, I10, I12 to I19, faults 13, 14, 17, 18.

mod commands;
mod conformance;
mod crash;
mod factor;
mod history;
mod journal;
mod listing;
mod model;
mod moving;
mod sim_disk;
mod support;
