//! AdapterHub's folder, as the `adapters` package saves and loads it: bottleneck adapters with a classification head.
//!
//! Settings that are not implemented are rejected by name, and so are adapters that AdapterHub's format cannot express.

mod config;
mod files;
mod head;

pub use config::Config;
pub use files::{AdapterHubFiles, HEAD_WEIGHTS_FILE, PICKLE_FILES, ParsedAdapter, WEIGHTS_FILE};
pub use head::{ClassificationHead, HEAD_CONFIG_FILE};
