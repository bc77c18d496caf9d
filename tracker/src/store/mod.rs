//! The durable catalog.
