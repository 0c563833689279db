//! Fixtures shared by the tests of the service.

pub mod database;
pub mod population;
pub mod preload;
pub mod s3_server;
pub mod samples;
pub mod tcp_proxy;
pub mod worker_fixture;
