//! The files of an adapter in a repository on the Hugging Face hub.

use super::ImportSource;
use crate::adapter::tensor_spec::CONFIG_FILE;
use crate::artifact::adapterhub;
use crate::artifact::archive::ImportLimits;
use crate::artifact::folder::WEIGHTS_FILE;
use crate::artifact::manifest::MANIFEST_FILE;
use crate::error::{Error, Result};
use crate::model::hub::{self, RepositoryFiles};

/// Fetches the adapter of `owner/name` or `owner/name@revision` to the hub's cache.
///
/// # Errors
/// As [`hub::fetch_files`]; `Invalid` (`unsupported_adapter`) if the repository has no safetensors.
pub fn fetch_from_hub(id: &str, settings: &hub::Settings, limits: &ImportLimits) -> Result<ImportSource> {
    let optional = [
        WEIGHTS_FILE,
        MANIFEST_FILE,
        adapterhub::WEIGHTS_FILE,
        adapterhub::HEAD_CONFIG_FILE,
        adapterhub::HEAD_WEIGHTS_FILE,
    ];
    let files = RepositoryFiles { required: CONFIG_FILE, optional: &optional, max_bytes: limits.max_tensor_bytes };
    let path = hub::fetch_files(id, &files, settings)?;
    if ![WEIGHTS_FILE, adapterhub::WEIGHTS_FILE].iter().any(|file| path.join(file).is_file()) {
        let detail = format!(
            "the repository \"{id}\" has no {WEIGHTS_FILE}: an adapter_model.bin is a pickle, which can run code when it is \
             read, and is not opened here; save the adapter with save_pretrained(…, safe_serialization=True)"
        );
        return Err(Error::invalid("unsupported_adapter", detail));
    }
    Ok(ImportSource::Folder { path, root: settings.cache.clone() })
}
