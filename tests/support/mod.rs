//! What the tests of several rooms share.

pub mod database;
pub mod values;
