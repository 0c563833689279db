//! An adapter in memory, and `espalier.json`: the part of it that PEFT's files cannot hold.

use super::base::{BaseModelId, BaseSummary};
use super::vocabulary::Vocabulary;
use crate::adapter::tensor_spec::invalid_file;
use crate::adapter::{self, TensorMap};
use crate::error::{Context, Error, Result};
use crate::model::{MIN_SEQUENCE_LENGTH, Pooling};
use crate::task::{self, Thresholds};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

pub const MANIFEST_FILE: &str = "espalier.json";

/// An adapter in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    pub manifest: AdapterManifest,
    /// Tensors of adapter and head by native names (`layer.3.query.lora_A`, `head.weight`).
    pub weights: TensorMap,
}

/// The content of `espalier.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterManifest {
    /// Version of the file's format: 1.
    pub format: u32,
    pub task: task::Config,
    pub method: adapter::Config,
    /// Changes of the word embeddings and of the language model's head.
    #[serde(default, skip_serializing_if = "Vocabulary::is_empty")]
    pub vocabulary: Vocabulary,
    /// In the order of the head's rows.
    pub labels: Vec<String>,
    /// Divides the logits before the softmax.
    pub temperature: f32,
    /// Probability from which a label is predicted, where a request asks for the suggested one.
    #[serde(default, skip_serializing_if = "Thresholds::is_empty")]
    pub thresholds: Thresholds,
    /// Tokens of an input; longer inputs are truncated, as in training.
    pub max_length: usize,
    pub base: BaseModelId,
    pub probe: Probe,
    /// Metrics on the validation split of the run; absent for an imported adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<serde_json::Value>,
}

impl AdapterManifest {
    /// The manifest of an imported adapter: no fingerprint, no metrics, and an empty probe, which is recorded later.
    pub fn imported(
        task: task::Config,
        method: adapter::Config,
        labels: Vec<String>,
        max_length: usize,
        summary: &BaseSummary,
    ) -> Self {
        Self {
            format: FORMAT_VERSION,
            task,
            method,
            vocabulary: Vocabulary::default(),
            labels,
            temperature: 1.0,
            thresholds: Thresholds::new(),
            max_length,
            base: BaseModelId { name: summary.info.name.clone(), fingerprint: None },
            probe: Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: summary.info.backend.clone() },
            metrics: None,
        }
    }
}

/// Inputs and the outputs that the adapter gave for them when it was made, replayed at each load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    pub inputs: Vec<task::Input>,
    /// One row of logits per input.
    pub outputs: Vec<Vec<f32>>,
    /// The backend that computed them, which decides the tolerance of a replay.
    pub kernels: String,
}

/// The format version that is written and read.
pub const FORMAT_VERSION: u32 = 1;

#[derive(Deserialize)]
struct FormatHeader {
    format: u32,
}

/// Writes the fields in the order of the struct and the metrics with sorted keys: equal manifests give equal bytes.
pub fn write(manifest: &AdapterManifest) -> Result<Vec<u8>> {
    let mut sorted = manifest.clone();
    if let Some(metrics) = &mut sorted.metrics {
        metrics.sort_all_objects();
    }
    let mut bytes = serde_json::to_vec(&sorted).context("writing espalier.json")?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// # Errors
/// `Invalid` (`unreadable_adapter`) if the file is malformed or has a newer format.
pub fn read(bytes: &[u8]) -> Result<AdapterManifest> {
    let parse_error = |error| invalid_manifest(format!("it cannot be read ({error}); export the adapter again"));
    let header: FormatHeader = serde_json::from_slice(bytes).map_err(parse_error)?;
    if header.format != FORMAT_VERSION {
        return Err(invalid_manifest(format!(
            "its format is {}, this server reads {FORMAT_VERSION}: use the version of espalier that wrote it",
            header.format
        )));
    }
    serde_json::from_slice(bytes).map_err(parse_error)
}

/// Checks that the manifest is consistent and possible on this base. `head_rows` is the number of rows of the head's output layer.
///
/// # Errors
/// `Invalid` (`unreadable_adapter`).
pub fn validate(manifest: &AdapterManifest, head_rows: usize, summary: &BaseSummary) -> Result<()> {
    validate_outputs(manifest, head_rows)?;
    let pooling = summary.pooling(&manifest.task);
    if !summary.info.poolings.contains(&pooling) {
        let name = pooling_name(pooling);
        return Err(invalid_manifest(format!("its pooling is {name}, which this base does not offer")));
    }
    if let Some(problem) = manifest.vocabulary.problem(&manifest.task, &summary.info) {
        return Err(invalid_manifest(format!("its vocabulary {problem}")));
    }
    let temperature = manifest.temperature;
    if !(temperature.is_finite() && temperature > 0.0) {
        return Err(invalid_manifest(format!("its temperature is {temperature}, expected a number above 0")));
    }
    let is_valid =
        |(label, threshold): (&String, &f32)| manifest.labels.contains(label) && (0.0..=1.0).contains(threshold);
    if !manifest.thresholds.iter().all(is_valid) {
        return Err(invalid_manifest(
            "its thresholds must be numbers between 0 and 1, each of one of its labels".to_string(),
        ));
    }
    let (max_length, limit) = (manifest.max_length, summary.max_input_tokens(manifest.method.num_virtual_tokens()));
    if !(MIN_SEQUENCE_LENGTH..=limit).contains(&max_length) {
        let reason = format!("its max_length is {max_length}, expected {MIN_SEQUENCE_LENGTH} to {limit}");
        return Err(invalid_manifest(reason));
    }
    let probe = &manifest.probe;
    let is_complete = !probe.inputs.is_empty() && probe.inputs.len() == probe.outputs.len();
    let row_width = manifest.task.head_outputs(&manifest.labels).unwrap_or(summary.info.hidden_size);
    if !is_complete || probe.outputs.iter().any(|row| row.is_empty() || !row.len().is_multiple_of(row_width)) {
        return Err(invalid_manifest("its probe needs at least one input, and each its outputs".to_string()));
    }
    Ok(())
}

fn validate_outputs(manifest: &AdapterManifest, head_rows: usize) -> Result<()> {
    // The number of outputs of a task with one output per label is 0 without labels.
    if manifest.task.head_outputs(&[]) == Some(0) {
        return validate_labels(&manifest.labels, head_rows).map_err(invalid_manifest);
    }
    let outputs = manifest.task.head_outputs(&manifest.labels);
    if outputs.unwrap_or(0) == head_rows && manifest.labels.is_empty() {
        return Ok(());
    }
    let (name, outputs) = (manifest.task.type_name(), outputs.map_or("no".to_string(), |outputs| outputs.to_string()));
    Err(invalid_manifest(format!(
        "an adapter for {name} has {outputs} output and no labels, not {head_rows} and {}",
        manifest.labels.len()
    )))
}

/// Checks that there is one label per row of the head, none empty and none twice.
///
/// # Errors
/// The reason, with the label.
pub fn validate_labels(labels: &[String], head_rows: usize) -> Result<(), String> {
    if labels.len() != head_rows {
        return Err(format!("there are {} labels, but the head has {head_rows} rows", labels.len()));
    }
    let mut seen = BTreeSet::new();
    for label in labels {
        if label.trim().is_empty() {
            return Err("a label is empty".to_string());
        }
        if !seen.insert(label) {
            return Err(format!("the label {label:?} is there twice"));
        }
    }
    Ok(())
}

fn pooling_name(pooling: Pooling) -> &'static str {
    match pooling {
        Pooling::Mean => "mean",
        Pooling::Cls => "cls",
        Pooling::First => "first",
        Pooling::Last => "last",
    }
}

fn invalid_manifest(reason: String) -> Error {
    invalid_file(MANIFEST_FILE, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::lora::LowRank;
    use crate::artifact::testing;
    use proptest::prelude::*;

    #[test]
    fn metric_order_does_not_change_bytes() {
        let mut one = testing::lora_artifact(Pooling::Mean).manifest;
        let mut other = one.clone();
        one.metrics = serde_json::from_str(r#"{"b": {"d": 1, "c": 2}, "a": 3}"#).unwrap();
        other.metrics = serde_json::from_str(r#"{"a": 3, "b": {"c": 2, "d": 1}}"#).unwrap();
        assert_eq!(write(&one).unwrap(), write(&other).unwrap());
    }

    #[test]
    fn newer_format_is_rejected() {
        let error = read(br#"{"format": 2, "news": true}"#).unwrap_err();
        assert!(error.to_string().contains("its format is 2, this server reads 1"), "{error}");
        assert_eq!(read(b"{}").unwrap_err().code(), "unreadable_adapter");
    }

    #[test]
    fn inconsistent_manifest_is_rejected() {
        type Mutation = fn(&mut AdapterManifest);
        let cases: [(Mutation, &str); 12] = [
            (|manifest| manifest.thresholds = [("unknown".to_string(), 0.5)].into(), "its thresholds"),
            (|manifest| manifest.thresholds = [("refund".to_string(), 1.5)].into(), "its thresholds"),
            (|manifest| manifest.vocabulary.lm_head.replaced = true, "changes lm_head"),
            (|manifest| manifest.vocabulary.embeddings.token_ids = vec![131], "names the token 131 of 131"),
            (
                |manifest| {
                    manifest.vocabulary.embeddings.low_rank = Some(LowRank { rank: 0, alpha: 1.0, rslora: false });
                },
                "without a rank",
            ),
            (|manifest| manifest.labels[0] = "refund".to_string(), "\"refund\" is there twice"),
            (|manifest| manifest.labels[0] = " ".to_string(), "a label is empty"),
            (|manifest| manifest.labels.truncate(2), "there are 2 labels, but the head has 3 rows"),
            (|manifest| manifest.temperature = 0.0, "its temperature is 0"),
            (|manifest| manifest.max_length = 129, "its max_length is 129, expected 4 to 128"),
            (|manifest| manifest.probe.outputs[0].truncate(2), "its probe needs"),
            (|manifest| manifest.probe.inputs.clear(), "its probe needs"),
        ];
        let summary = testing::base_summary();
        validate(&testing::lora_artifact(Pooling::Cls).manifest, 3, &summary).unwrap();
        for (change, expected) in cases {
            let mut manifest = testing::lora_artifact(Pooling::Cls).manifest;
            change(&mut manifest);
            let error = validate(&manifest, 3, &summary).unwrap_err();
            assert!(error.to_string().contains(expected), "{error} should say {expected}");
        }
    }

    proptest! {
        #[test]
        fn numbers_round_trip_exactly(outputs in proptest::collection::vec(any::<f32>(), 3), alpha in any::<f64>()) {
            prop_assume!(outputs.iter().all(|value| value.is_finite()) && alpha.is_finite());
            let mut manifest = testing::lora_artifact(Pooling::Cls).manifest;
            manifest.probe.outputs = vec![outputs];
            if let crate::adapter::Config::Lora(lora) = &mut manifest.method {
                lora.alpha = Some(alpha);
            }
            let parsed = read(&write(&manifest).unwrap()).unwrap();
            prop_assert_eq!(&parsed, &manifest);
            prop_assert_eq!(write(&parsed).unwrap(), write(&manifest).unwrap());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
