//! A plain PEFT folder: two files, and what the request adds.

use super::ImportRequest;
use crate::artifact::peft::{self, head::HeadLayout, weights};
use crate::artifact::{
    AdapterManifest, Artifact, BaseModelId, BaseSummary, CONFIG_FILE, Probe, WEIGHTS_FILE, base_match, manifest,
    safetensors,
};
use crate::error::{Context, Error, Result};
use crate::model::MIN_SEQUENCE_LENGTH;
use crate::model::Pooling;
use crate::task;
use std::fs;
use std::path::Path;

/// PEFT's word for adapters that say what comes next.
const CAUSAL_LM: &str = "CAUSAL_LM";

/// The bytes of the two files.
pub struct PeftFiles {
    pub config: Vec<u8>,
    pub weights: Vec<u8>,
}

impl PeftFiles {
    pub fn load(folder: &Path) -> Result<Self> {
        let read_file = |name: &str| fs::read(folder.join(name)).context("reading an unpacked adapter");
        Ok(Self { config: read_file(CONFIG_FILE)?, weights: read_file(WEIGHTS_FILE)? })
    }

    /// The adapter, but for its probe.
    pub fn parse(&self, request: &ImportRequest, summary: &BaseSummary) -> Result<Artifact> {
        let config = peft::Config::parse(&self.config)?;
        let method = config.method.as_ref().ok_or_else(|| {
            unsupported_adapter(
                "peft_type is null and there is no espalier.json: upload the zip as it was downloaded".to_string(),
            )
        })?;
        check_base_name(config.base_model_name.as_deref(), "base_model_name_or_path", request, summary)?;
        config.check_base(summary)?;
        let pooling = resolve_pooling(&config, request, summary)?;
        let sites = summary.sites_for(pooling);
        let tensors = safetensors::read(&self.weights)?;
        let method = method.to_config(sites, weights::detect_naming(&tensors, sites))?;
        let task = task::Config::default().with_pooling(pooling).with_base_head(summary.info.classification_head());
        let head = HeadLayout::for_reading(&tensors, &task, summary);
        let task = match config.task_type.as_deref() {
            // Rows without a head are there to be compared.
            Some("FEATURE_EXTRACTION") if head.is_missing_from(&tensors) => {
                task::Config::Embedding(task::embedding::Config { pooling: Some(pooling), loss: None })
            }
            Some(CAUSAL_LM) => task::Config::CausalLanguageModel(task::causal_language_model::Config::default()),
            _ => task,
        };
        // Of a language model the head is the base's.
        let has_own_head = !(matches!(task, task::Config::Embedding(_)) || task.is_generative());
        let weights =
            weights::from_peft(tensors, &method, sites, has_own_head.then_some(head), summary.info.hidden_size)?;
        let labels = match weights.get("head.bias") {
            Some(bias) => resolve_labels(config.labels, request, bias.shape[0])?,
            None => Vec::new(),
        };
        let manifest = AdapterManifest {
            format: manifest::FORMAT_VERSION,
            task,
            max_length: resolve_max_length(request, summary, method.num_virtual_tokens())?,
            method,
            labels,
            temperature: 1.0,
            base: BaseModelId { name: summary.info.name.clone(), fingerprint: None },
            probe: Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: summary.info.backend.clone() },
            metrics: None,
        };
        Ok(Artifact { manifest, weights })
    }
}

/// `named` is what `field` of the config says.
pub fn check_base_name(
    config_base: Option<&str>,
    field: &str,
    request: &ImportRequest,
    summary: &BaseSummary,
) -> Result<()> {
    let server_base = &summary.info.name;
    let mismatch = |detail: String| Err(Error::invalid("other_base", detail));
    match (&request.base, config_base) {
        (Some(requested), _) if base_match::is_same_model_name(requested, server_base) => Ok(()),
        (Some(requested), _) => mismatch(format!(
            "the request says that the adapter was made for {requested:?}, this server runs {server_base:?}"
        )),
        (None, Some(named)) if base_match::is_same_model_name(named, server_base) => Ok(()),
        (None, Some(config_name)) => mismatch(format!(
            "adapter_config.json names {config_name:?} as its base, this server runs {server_base:?}: if they are the same weights, say \
             so by \"base\": {server_base:?} in the request"
        )),
        (None, None) => mismatch(format!(
            "adapter_config.json names no base model ({field}): if it was trained on the base of this server, say so by \
             \"base\": {server_base:?} in the request"
        )),
    }
}

fn resolve_pooling(config: &peft::Config, request: &ImportRequest, summary: &BaseSummary) -> Result<Pooling> {
    let task_pooling = match config.task_type.as_deref() {
        Some("SEQ_CLS") | None => Some(summary.info.classification_pooling()),
        Some(CAUSAL_LM) if summary.info.is_causal_lm => Some(Pooling::Mean),
        Some(CAUSAL_LM) => {
            return Err(unsupported_adapter(
                "its task_type is CAUSAL_LM, and this server's base is not a language model".to_string(),
            ));
        }
        Some("FEATURE_EXTRACTION") => None,
        Some(other) => {
            return Err(unsupported_adapter(format!(
                "its task_type is {other}, this server takes SEQ_CLS, FEATURE_EXTRACTION and CAUSAL_LM"
            )));
        }
    };
    let pooling = request.pooling.or(task_pooling).ok_or_else(|| {
        unsupported_adapter(
            "its task_type is FEATURE_EXTRACTION: say in the request by \"pooling\" (\"mean\" or \"cls\") how its head \
             reads a sequence"
                .to_string(),
        )
    })?;
    match summary.info.poolings.contains(&pooling) {
        true => Ok(pooling),
        false => Err(unsupported_adapter("its pooling is not one that this base offers".to_string())),
    }
}

/// Of a head with so many rows; `named` is what the config says.
pub fn resolve_labels(
    config_labels: Option<Vec<String>>,
    request: &ImportRequest,
    head_rows: usize,
) -> Result<Vec<String>> {
    if head_rows < 2 {
        return Err(unsupported_adapter("its head has fewer than two rows: it is not a classifier".to_string()));
    }
    let (labels, code) = match (&request.labels, config_labels) {
        (Some(requested), _) => (requested.clone(), "invalid_import"),
        (None, Some(from_config)) => (from_config, "unreadable_adapter"),
        (None, None) => ((0..head_rows).map(|row| format!("LABEL_{row}")).collect(), "unreadable_adapter"),
    };
    let invalid_labels = |reason| Error::invalid(code, format!("the adapter's labels cannot be used: {reason}"));
    manifest::validate_labels(&labels, head_rows).map_err(invalid_labels)?;
    Ok(labels)
}

pub fn resolve_max_length(request: &ImportRequest, summary: &BaseSummary, virtual_tokens: usize) -> Result<usize> {
    let limit = summary.info.max_tokens.saturating_sub(virtual_tokens);
    match request.max_length.unwrap_or(limit) {
        length if (MIN_SEQUENCE_LENGTH..=limit).contains(&length) => Ok(length),
        length => {
            let detail = format!("max_length is {length}, expected {MIN_SEQUENCE_LENGTH} to {limit}");
            Err(Error::invalid("invalid_import", detail))
        }
    }
}

fn unsupported_adapter(what: String) -> Error {
    Error::invalid("unsupported_adapter", format!("the adapter cannot be used here: {what}"))
}
