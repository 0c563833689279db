//! The published adapter: folder and version, strict loading, probe, import and export.
//!
//! A folder holds PEFT's `adapter_config.json` and `adapter_model.safetensors`, and `espalier.json` with the rest. Its content does
//! not depend on the user, the time or the machine: equal base, data, settings and seed give the same version.

pub mod adapterhub;
pub mod archive;
pub mod base;
pub mod folder;
pub mod import;
pub mod loaded_adapter;
pub mod manifest;
pub mod peft;
pub mod probe;
pub mod safetensors;
pub mod vocabulary;
pub mod zip;

#[cfg(test)]
mod testing;

pub use crate::adapter::tensor_spec::CONFIG_FILE;
pub use archive::ImportLimits;
pub use base::{BaseModelId, BaseSummary};
pub use folder::{
    AdapterFiles, PriorFolder, PublishedAdapter, WEIGHTS_FILE, load_published, publish_artifact, publish_files,
};
pub use import::{ImportRequest, ImportSource, fetch_from_hub, import, import_source};
pub use loaded_adapter::LoadedAdapter;
pub use manifest::{AdapterManifest, Artifact, MANIFEST_FILE, Probe};
pub use vocabulary::Vocabulary;
