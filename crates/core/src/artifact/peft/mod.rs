//! PEFT's two files: `adapter_config.json`, and the keys of `adapter_model.safetensors`.
//!
//! Holds what depends on the task and the head; the methods map themselves (`adapter::peft`). Settings that are not implemented are
//! rejected by name.

pub mod config;
mod config_writer;
mod field_support;
pub mod head;
pub mod vocabulary;
pub mod weights;

pub use config::Config;
pub use config_writer::write_config;
