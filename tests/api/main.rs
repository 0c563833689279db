//! The running binary over HTTP, on the tiny base.
#![allow(dead_code, reason = "the driver has every verb, whichever are used")]

#[path = "../support/mod.rs"]
mod support;

mod adapters;
mod app;
mod crash;
mod http;
mod jobs;
mod moments;
mod shutdown;
mod traces;
mod watching;
mod wire;
mod mixed;
mod traffic;
mod workers;
