//! Tests of the command line: runs the binary and checks its output and exit code.

mod compose;
mod doctor;
mod follow;
mod retention;
pub(crate) mod run;
mod start;
mod train;
