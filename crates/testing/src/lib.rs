//! Fixtures of the tests of all crates: tiny base models, examples and jobs on them.

pub mod folders;
pub mod gradients;
pub mod jobs;
pub mod tasks;

use std::path::{Path, PathBuf};

/// The workspace's root folder, where `tests/fixtures` and `examples` are.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate is two folders deep").to_path_buf()
}
