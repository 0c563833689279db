//! Fixtures for the tests of all crates: tiny base models, examples and jobs.

pub mod folders;
pub mod gradients;
pub mod hub_server;
pub mod jobs;
pub mod tasks;

use std::path::{Path, PathBuf};

/// Root folder of the workspace, with `tests/fixtures` and `examples`.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate is two folders deep").to_path_buf()
}
