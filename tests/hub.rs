//! Finding the base model, against a real HTTP server on the loopback interface.

#[path = "hub/server.rs"]
mod server;

#[path = "hub/caching.rs"]
mod caching;
#[path = "hub/downloading.rs"]
mod downloading;
#[path = "hub/folders.rs"]
mod folders;
#[path = "hub/refusals.rs"]
mod refusals;
