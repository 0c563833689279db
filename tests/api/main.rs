//! The running binary over HTTP, on the tiny base.
#![allow(dead_code, reason = "the driver has every verb, whichever are used")]
#![allow(clippy::too_many_lines, reason = "a table of cases is one function")]

#[path = "../support/mod.rs"]
mod support;

mod adapterhub;
mod adapters;
mod api;
mod app;
mod bad_adapters;
mod bad_files;
mod bad_predictions;
mod bad_requests;
mod bad_routes;
mod bad_uploads;
mod crash;
mod datasets;
mod decoders;
mod formats;
mod from_adapter;
mod generation;
mod http;
mod jobs;
mod mixed;
mod moments;
mod preferences;
mod proteins;
mod race;
mod refusals;
mod request;
mod samples;
mod shutdown;
mod tasks;
mod texts;
mod traces;
mod traffic;
mod watching;
mod wire;
mod workers;
