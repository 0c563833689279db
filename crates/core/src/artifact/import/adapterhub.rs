//! Import of a folder that AdapterHub's `adapters` wrote: four files, and the request.

use super::ImportRequest;
use crate::adapter::{self, tensor_spec::CONFIG_FILE};
use crate::artifact::adapterhub::{AdapterHubFiles, HEAD_CONFIG_FILE, HEAD_WEIGHTS_FILE, WEIGHTS_FILE};
use crate::artifact::base::BaseSummary;
use crate::artifact::manifest::{AdapterManifest, Artifact};
use crate::error::{Context, Error, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// # Errors
/// `Invalid` (`unsupported_adapter`) if a file is missing.
pub fn read_files(folder: &Path) -> Result<AdapterHubFiles> {
    let read_file = |name: &str| match fs::read(folder.join(name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::invalid(
            "unsupported_adapter",
            format!(
                "the adapter holds no {name}: save the adapter with its head, save_adapter(…, with_head=True, \
                 use_safetensors=True)"
            ),
        )),
        other => other.context("reading an unpacked adapter"),
    };
    Ok(AdapterHubFiles {
        config: read_file(CONFIG_FILE)?,
        weights: read_file(WEIGHTS_FILE)?,
        head_config: read_file(HEAD_CONFIG_FILE)?,
        head_weights: read_file(HEAD_WEIGHTS_FILE)?,
    })
}

/// Converts the files to an adapter with an empty probe.
pub fn parse(files: &AdapterHubFiles, request: &ImportRequest, summary: &BaseSummary) -> Result<Artifact> {
    let parsed = files.parse(summary)?;
    super::check_base_name(parsed.config.model_name.as_deref(), "model_name", request, summary)?;
    let task = parsed.head.to_task();
    if request.pooling.is_some_and(|requested| task.pooling() != Some(requested)) {
        let detail = format!("{HEAD_CONFIG_FILE} says how the head reads a sequence: leave pooling out of the request");
        return Err(Error::invalid("invalid_import", detail));
    }
    let method = adapter::Config::Bottleneck(parsed.config.method);
    let max_length = super::resolve_max_length(request, summary, method.num_virtual_tokens())?;
    let labels = super::resolve_labels(parsed.head.labels.clone(), request, parsed.head.num_labels())?;
    let manifest = AdapterManifest::imported(task, method, labels, max_length, summary);
    Ok(Artifact { manifest, weights: parsed.weights })
}
