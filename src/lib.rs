//! espalier: one frozen transformer, many small adapters, trained and served from the one copy.
//!
//! The rooms, in reading order; imports only go down this list's floors (`tests/floors.rs`):
//!
//! - [`error`]: what can go wrong, named by what the caller can do about it
//! - [`compute`]: arithmetic on packed rows, each operation with its backward pass
//! - [`model`]: the frozen base model and the places where an adapter may touch it
//! - [`adapter`]: what is trained, one file per method
//! - [`task`]: what is asked, one file per task
//! - [`data`]: a user's file becomes examples, or a report of every bad row
//! - [`artifact`]: the published adapter: its folder, its hash, strict reading, import and export
//! - [`training`]: the loop: order, schedule, optimiser, checkpoint
//! - [`store`]: remembering jobs, adapters and datasets in SQL
//! - [`worker`]: claim, train, publish, under a lease
//! - [`serving`]: resident adapters, batching, predictions
//! - [`http`]: the public API
//! - [`config`], [`cli`]: settings and the command line

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)
)]

pub mod error;

pub mod compute;
pub mod model;

pub mod adapter;
pub mod task;

pub mod artifact;
pub mod data;
pub mod training;

pub mod store;

pub mod serving;
pub mod worker;

pub mod http;

pub mod cli;
pub mod config;
