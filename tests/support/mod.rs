//! What the tests of several rooms share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod database;
pub mod folders;
pub mod gradients;
pub mod jobs;
pub mod tasks;
pub mod values;
