//! PEFT's two files: `adapter_config.json` and the keys of `adapter_model.safetensors`, in and out.
//!
//! Knows nothing of folders, versions or probes. What PEFT means but this server cannot do is refused by name, never
//! left out in silence.

pub mod config;
pub mod config_writer;
pub mod field_support;
pub mod head;
pub mod method;
pub mod module_naming;
pub mod target_selector;
pub mod target_suffixes;
pub mod tensor_specs;
pub mod weights;

pub use config::Config;
pub use method::Method;
