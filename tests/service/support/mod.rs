//! Drivers shared by the tests of the service.

pub mod database;
pub mod house;
pub mod samples;
