//! espalier as a service: training jobs and inference over one frozen transformer and many adapters.
//!
//! Modules from the bottom layer to the top; imports only go down (`tests/layers.rs`). The engine is in `espalier-core` and
//! `espalier-tensor`.
//!
//! - [`telemetry`]: JSON logs, OpenTelemetry traces, W3C trace context
//! - [`store`]: jobs, adapters and datasets in SQL, their files in the data folder
//! - [`worker`]: claims a job, trains, publishes, under a lease
//! - [`serving`]: loaded adapters, batching, predictions and text generation
//! - [`http`]: the public API
//! - [`config`], [`cli`]: settings and the command line

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)
)]

pub mod cli;
pub mod config;
pub mod http;
pub mod serving;
pub mod store;
pub mod telemetry;
pub mod worker;
