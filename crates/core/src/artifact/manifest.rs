//! `espalier.json`: writing it always in the same bytes, reading it strictly.
//!
//! Knows nothing of tensors beyond the number of the head's rows.

use super::{AdapterManifest, BaseSummary};
use crate::error::{Context, Error, Result};
use crate::model::MIN_SEQUENCE_LENGTH;
use crate::model::Pooling;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The format that this code writes.
pub const FORMAT_VERSION: u32 = 1;

#[derive(Deserialize)]
struct FormatHeader {
    format: u32,
}

/// The fields in the order of the struct, the metrics with sorted keys: equal cards give equal bytes.
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
/// `Invalid` (`unreadable_adapter`) where it is no such file, or one of a later format.
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

/// Whether what the card says holds together and can be done on this base. `rows` are the head's.
///
/// # Errors
/// `Invalid` (`unreadable_adapter`).
pub fn validate(manifest: &AdapterManifest, head_rows: usize, summary: &BaseSummary) -> Result<()> {
    match (manifest.task.head_outputs(&[]), manifest.task.head_outputs(&manifest.labels)) {
        // As many as there are labels.
        (Some(0), _) => validate_labels(&manifest.labels, head_rows).map_err(invalid_manifest)?,
        (_, outputs) if outputs.unwrap_or(0) != head_rows || !manifest.labels.is_empty() => {
            let (name, outputs) =
                (manifest.task.type_name(), outputs.map_or("no".to_string(), |outputs| outputs.to_string()));
            return Err(invalid_manifest(format!(
                "an adapter for {name} has {outputs} output and no labels, not {head_rows} and {}",
                manifest.labels.len()
            )));
        }
        _ => {}
    }
    let pooling = summary.pooling(&manifest.task);
    let max_length = summary.info.max_tokens.saturating_sub(manifest.method.num_virtual_tokens());
    if !summary.info.poolings.contains(&pooling) {
        return Err(invalid_manifest(format!(
            "its pooling is {}, which this base does not offer",
            pooling_name(pooling)
        )));
    }
    if !(manifest.temperature.is_finite() && manifest.temperature > 0.0) {
        return Err(invalid_manifest(format!(
            "its temperature is {}, expected a number above 0",
            manifest.temperature
        )));
    }
    if !(MIN_SEQUENCE_LENGTH..=max_length).contains(&manifest.max_length) {
        return Err(invalid_manifest(format!(
            "its max_length is {}, expected {MIN_SEQUENCE_LENGTH} to {max_length}",
            manifest.max_length
        )));
    }
    let probe = &manifest.probe;
    let is_complete = !probe.inputs.is_empty() && probe.inputs.len() == probe.outputs.len();
    let row_width = manifest.task.head_outputs(&manifest.labels).unwrap_or(summary.info.hidden_size);
    if !is_complete || probe.outputs.iter().any(|row| row.is_empty() || !row.len().is_multiple_of(row_width)) {
        return Err(invalid_manifest("its probe needs at least one input, and each its outputs".to_string()));
    }
    Ok(())
}

/// One label per row of the head, none empty, none twice; the error says which.
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

fn invalid_manifest(what: String) -> Error {
    Error::invalid("unreadable_adapter", format!("espalier.json: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let cases: [(Mutation, &str); 7] = [
            (|card| card.labels[0] = "refund".to_string(), "\"refund\" is there twice"),
            (|card| card.labels[0] = " ".to_string(), "a label is empty"),
            (|card| card.labels.truncate(2), "there are 2 labels, but the head has 3 rows"),
            (|card| card.temperature = 0.0, "its temperature is 0"),
            (|card| card.max_length = 129, "its max_length is 129, expected 4 to 128"),
            (|card| card.probe.outputs[0].truncate(2), "its probe needs"),
            (|card| card.probe.inputs.clear(), "its probe needs"),
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
