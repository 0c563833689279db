//! A plain PEFT folder: two files, and what the request adds.

use super::ImportRequest;
use crate::artifact::peft::{self, head::Head, weights};
use crate::artifact::{Artifact, BaseCard, CONFIG_FILE, Card, Outline, Probe, TENSOR_FILE, card, names, safetensors};
use crate::error::{Context, Error, Result};
use crate::model::Pooling;
use crate::model::tokenizer::SHORTEST;
use crate::task;
use std::fs;
use std::path::Path;

/// PEFT's word for adapters that say what comes next.
const CAUSAL: &str = "CAUSAL_LM";

/// The bytes of the two files.
pub struct Plain {
    pub config: Vec<u8>,
    pub tensors: Vec<u8>,
}

impl Plain {
    pub fn load(folder: &Path) -> Result<Self> {
        let file = |name: &str| fs::read(folder.join(name)).context("reading an unpacked adapter");
        Ok(Self { config: file(CONFIG_FILE)?, tensors: file(TENSOR_FILE)? })
    }

    /// The adapter, but for its probe.
    pub fn open(&self, request: &ImportRequest, outline: &Outline) -> Result<Artifact> {
        let config = peft::Config::read(&self.config)?;
        let method = config.method.as_ref().ok_or_else(|| {
            unsupported(
                "peft_type is null and there is no espalier.json: upload the zip as it was downloaded".to_string(),
            )
        })?;
        check_base(config.base.as_deref(), "base_model_name_or_path", request, outline)?;
        config.check_base(outline)?;
        let pooling = pooling(&config, request, outline)?;
        let sites = outline.sites(pooling);
        let tensors = safetensors::read(&self.tensors)?;
        let method = method.on(sites, weights::form(&tensors, sites))?;
        let task = task::Config::default().with_pooling(pooling).with_head_of(outline.info.head());
        let head = Head::in_file(&tensors, &task, outline);
        let task = match config.task_type.as_deref() {
            // Rows without a head are there to be compared.
            Some("FEATURE_EXTRACTION") if head.is_absent(&tensors) => {
                task::Config::Embedding(task::embedding::Config { pooling: Some(pooling), loss: None })
            }
            Some(CAUSAL) => task::Config::CausalLanguageModel(task::causal_language_model::Config::default()),
            _ => task,
        };
        // Of a language model the head is the base's.
        let is_headed = !(matches!(task, task::Config::Embedding(_)) || task.generates());
        let weights = weights::from_peft(tensors, &method, sites, is_headed.then_some(head), outline.info.hidden_size)?;
        let labels = match weights.get("head.bias") {
            Some(bias) => labels(config.labels, request, bias.shape[0])?,
            None => Vec::new(),
        };
        let card = Card {
            format: card::FORMAT,
            task,
            max_length: max_length(request, outline, method.virtual_tokens())?,
            method,
            labels,
            temperature: 1.0,
            base: BaseCard { name: outline.info.name.clone(), fingerprint: None },
            probe: Probe { inputs: Vec::new(), outputs: Vec::new(), kernels: outline.info.kernels.clone() },
            metrics: None,
        };
        Ok(Artifact { card, weights })
    }
}

/// `named` is what `field` of the config says.
pub fn check_base(named: Option<&str>, field: &str, request: &ImportRequest, outline: &Outline) -> Result<()> {
    let ours = &outline.info.name;
    let other = |detail: String| Err(Error::invalid("other_base", detail));
    match (&request.base, named) {
        (Some(said), _) if names::same(said, ours) => Ok(()),
        (Some(said), _) => {
            other(format!("the request says that the adapter was made for {said:?}, this server runs {ours:?}"))
        }
        (None, Some(named)) if names::same(named, ours) => Ok(()),
        (None, Some(named)) => other(format!(
            "adapter_config.json names {named:?} as its base, this server runs {ours:?}: if they are the same weights, say \
             so by \"base\": {ours:?} in the request"
        )),
        (None, None) => other(format!(
            "adapter_config.json names no base model ({field}): if it was trained on the base of this server, say so by \
             \"base\": {ours:?} in the request"
        )),
    }
}

fn pooling(config: &peft::Config, request: &ImportRequest, outline: &Outline) -> Result<Pooling> {
    let by_task = match config.task_type.as_deref() {
        Some("SEQ_CLS") | None => Some(outline.info.classified_by()),
        Some(CAUSAL) if outline.info.generates => Some(Pooling::Mean),
        Some(CAUSAL) => {
            return Err(unsupported(
                "its task_type is CAUSAL_LM, and this server's base is not a language model".to_string(),
            ));
        }
        Some("FEATURE_EXTRACTION") => None,
        Some(other) => {
            return Err(unsupported(format!(
                "its task_type is {other}, this server takes SEQ_CLS, FEATURE_EXTRACTION and CAUSAL_LM"
            )));
        }
    };
    let pooling = request.pooling.or(by_task).ok_or_else(|| {
        unsupported(
            "its task_type is FEATURE_EXTRACTION: say in the request by \"pooling\" (\"mean\" or \"cls\") how its head \
             reads a sequence"
                .to_string(),
        )
    })?;
    match outline.info.poolings.contains(&pooling) {
        true => Ok(pooling),
        false => Err(unsupported("its pooling is not one that this base offers".to_string())),
    }
}

/// Of a head with so many rows; `named` is what the config says.
pub fn labels(named: Option<Vec<String>>, request: &ImportRequest, rows: usize) -> Result<Vec<String>> {
    if rows < 2 {
        return Err(unsupported("its head has fewer than two rows: it is not a classifier".to_string()));
    }
    let (labels, code) = match (&request.labels, named) {
        (Some(said), _) => (said.clone(), "invalid_import"),
        (None, Some(named)) => (named, "unreadable_adapter"),
        (None, None) => ((0..rows).map(|row| format!("LABEL_{row}")).collect(), "unreadable_adapter"),
    };
    let wrong = |reason| Error::invalid(code, format!("the adapter's labels cannot be used: {reason}"));
    card::check_labels(&labels, rows).map_err(wrong)?;
    Ok(labels)
}

pub fn max_length(request: &ImportRequest, outline: &Outline, virtual_tokens: usize) -> Result<usize> {
    let longest = outline.info.max_tokens.saturating_sub(virtual_tokens);
    match request.max_length.unwrap_or(longest) {
        length if (SHORTEST..=longest).contains(&length) => Ok(length),
        length => {
            let detail = format!("max_length is {length}, expected {SHORTEST} to {longest}");
            Err(Error::invalid("invalid_import", detail))
        }
    }
}

fn unsupported(what: String) -> Error {
    Error::invalid("unsupported_adapter", format!("the adapter cannot be used here: {what}"))
}
