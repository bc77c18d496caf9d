//! What the doors make of good and bad input: the bad-input catalogue (contract.md section 4) and
//! the HTTP API against a running store, over raw sockets where a client library would not say
//! such a thing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod aborted;
mod admin;
mod changes;
mod digests;
mod flood;
mod forms;
mod framing;
mod garbage;
mod listings;
mod names;
mod outage;
mod pace;
mod reads;
mod site;
