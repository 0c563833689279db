//! Tests of the command line: runs the binary and checks its output and exit code.

mod doctor;
mod follow;
mod run;
mod start;
mod train;
