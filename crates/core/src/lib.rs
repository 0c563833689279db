//! The engine of espalier: what is learned and on what. No async, no SQL, no HTTP.
//!
//! Modules from the bottom layer to the top; imports only go down (`tests/layers.rs` of the workspace):
//!
//! - [`error`]: error kinds by what the caller can do about them
//! - [`durable_fs`]: file writes that survive a crash
//! - [`model`]: the frozen base model and the hooks through which an adapter changes its forward pass
//! - [`adapter`]: adapter methods, their parameters and hooks
//! - [`task`]: tasks: heads, targets, losses, metrics
//! - [`dataset`]: dataset files become validated examples and a report
//! - [`artifact`]: the published adapter folder: versions, strict loading, import and export
//! - [`training`]: the training loop: batching, schedule, optimizer, checkpoints

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)
)]

pub mod adapter;
pub mod artifact;
pub mod dataset;
pub mod durable_fs;
pub mod error;
pub mod model;
pub mod task;
pub mod training;
