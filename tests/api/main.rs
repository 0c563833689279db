//! The running binary over HTTP, on the tiny base.
#![allow(dead_code, reason = "the driver has every verb, whichever are used")]

#[path = "../support/mod.rs"]
mod support;

mod api;
mod app;
mod bad_adapters;
mod bad_files;
mod bad_predictions;
mod bad_requests;
mod bad_routes;
mod bad_uploads;
mod datasets;
mod http;
mod jobs;
mod refusals;
mod request;
