//! The command line as its users see it: the real binary, what it writes, and how it ends.
#![allow(dead_code, reason = "the driver has every verb, whichever are used")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../api/app.rs"]
mod app;

mod doctor;
mod follow;
mod run;
mod start;
mod train;
