//! The tracker: catalog, placement, repair, garbage collection. `model` and `plan` are pure;
//! `store` is the durable catalog; `http` and `loops` carry plans out.

pub mod model;
pub mod plan;
pub mod store;
