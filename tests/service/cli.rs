//! The command line as its users see it: the real binary, what it writes, and how it ends.

mod doctor;
mod follow;
mod run;
mod start;
mod train;
