//! A folder of AdapterHub's: four files, and what the request adds.

use super::ImportRequest;
use super::peft_files::{check_base_name, resolve_labels, resolve_max_length};
use crate::adapter;
use crate::artifact::adapterhub::{AdapterHubFiles, HEAD_CONFIG_FILE, HEAD_WEIGHTS_FILE, WEIGHTS_FILE};
use crate::artifact::{AdapterManifest, Artifact, BaseModelId, BaseSummary, CONFIG_FILE, Probe, manifest};
use crate::error::{Context, Error, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// # Errors
/// `Invalid` (`unsupported_adapter`) where there is no head.
pub fn read_files(folder: &Path) -> Result<AdapterHubFiles> {
    let read_file = |name: &str| match fs::read(folder.join(name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::invalid(
            "unsupported_adapter",
            format!(
                "the zip holds no {name}: save the adapter with its head, save_adapter(…, with_head=True, use_safetensors=True)"
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

/// The adapter, but for its probe.
pub fn parse(files: &AdapterHubFiles, request: &ImportRequest, summary: &BaseSummary) -> Result<Artifact> {
    let parsed = files.parse(summary)?;
    check_base_name(parsed.config.model_name.as_deref(), "model_name", request, summary)?;
    let task = parsed.head.to_task();
    if request.pooling.is_some_and(|requested| task.pooling() != Some(requested)) {
        let detail = format!("{HEAD_CONFIG_FILE} says how the head reads a sequence: leave pooling out of the request");
        return Err(Error::invalid("invalid_import", detail));
    }
    let manifest = AdapterManifest {
        format: manifest::FORMAT_VERSION,
        task,
        max_length: resolve_max_length(request, summary, 0)?,
        method: adapter::Config::Bottleneck(parsed.config.method),
        labels: resolve_labels(parsed.head.labels.clone(), request, parsed.head.num_labels())?,
        temperature: 1.0,
        base: BaseModelId { name: summary.info.name.clone(), fingerprint: None },
        probe: Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: summary.info.backend.clone() },
        metrics: None,
    };
    Ok(Artifact { manifest, weights: parsed.weights })
}
