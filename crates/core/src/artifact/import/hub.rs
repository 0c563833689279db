//! A folder of AdapterHub's: four files, and what the request adds.

use super::ImportRequest;
use super::plain::{check_base, labels, max_length};
use crate::adapter;
use crate::artifact::adapterhub::{Files, HEAD_CONFIG_FILE, HEAD_TENSOR_FILE, TENSOR_FILE};
use crate::artifact::{Artifact, BaseCard, CONFIG_FILE, Card, Outline, Probe, card};
use crate::error::{Context, Error, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// # Errors
/// `Invalid` (`unsupported_adapter`) where there is no head.
pub fn load(folder: &Path) -> Result<Files> {
    let file = |name: &str| match fs::read(folder.join(name)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::invalid(
            "unsupported_adapter",
            format!(
                "the zip holds no {name}: save the adapter with its head, save_adapter(…, with_head=True, use_safetensors=True)"
            ),
        )),
        other => other.context("reading an unpacked adapter"),
    };
    Ok(Files {
        config: file(CONFIG_FILE)?,
        tensors: file(TENSOR_FILE)?,
        head_config: file(HEAD_CONFIG_FILE)?,
        head_tensors: file(HEAD_TENSOR_FILE)?,
    })
}

/// The adapter, but for its probe.
pub fn open(files: &Files, request: &ImportRequest, outline: &Outline) -> Result<Artifact> {
    let opened = files.open(outline)?;
    check_base(opened.config.model_name.as_deref(), "model_name", request, outline)?;
    let task = opened.head.task();
    if request.pooling.is_some_and(|asked| task.pooling() != Some(asked)) {
        let detail = format!("{HEAD_CONFIG_FILE} says how the head reads a sequence: leave pooling out of the request");
        return Err(Error::invalid("invalid_import", detail));
    }
    let card = Card {
        format: card::FORMAT,
        task,
        max_length: max_length(request, outline, 0)?,
        method: adapter::Config::Bottleneck(opened.config.method),
        labels: labels(opened.head.labels.clone(), request, opened.head.outputs())?,
        temperature: 1.0,
        base: BaseCard { name: outline.info.name.clone(), fingerprint: None },
        probe: Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: outline.info.kernels.clone() },
        metrics: None,
    };
    Ok(Artifact { card, weights: opened.weights })
}
