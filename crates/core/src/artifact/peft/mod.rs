//! PEFT's two files: `adapter_config.json` and the keys of `adapter_model.safetensors`, in and out.
//!
//! Knows nothing of folders, versions or probes. What PEFT means but this server cannot do is refused by name, never
//! left out in silence.

pub mod config;
pub mod entries;
pub mod export;
pub mod head;
pub mod keys;
pub mod methods;
pub mod suffixes;
pub mod supported;
pub mod targets;
pub mod weights;

pub use config::Config;
pub use methods::Method;
