//! Import of a folder that PEFT wrote: two files, and the request.

use super::{ImportRequest, unsupported_adapter};
use crate::adapter::TensorMap;
use crate::adapter::tensor_spec::CONFIG_FILE;
use crate::artifact::base::BaseSummary;
use crate::artifact::folder::WEIGHTS_FILE;
use crate::artifact::manifest::{AdapterManifest, Artifact};
use crate::artifact::peft::{self, head::HeadLayout, weights};
use crate::artifact::safetensors;
use crate::error::{Context, Result};
use crate::model::Pooling;
use crate::task;
use std::fs;
use std::path::Path;

/// PEFT's `task_type` of causal language models.
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

    /// Converts the files to an adapter with an empty probe.
    pub fn parse(&self, request: &ImportRequest, summary: &BaseSummary) -> Result<Artifact> {
        let config = peft::Config::parse(&self.config)?;
        let method = config.method.as_ref().ok_or_else(|| {
            unsupported_adapter("peft_type is null and there is no espalier.json: upload the zip as it was downloaded")
        })?;
        let base_model_name = config.base_model_name.as_deref();
        super::check_base_name(base_model_name, "base_model_name_or_path", request, summary)?;
        config.check_base(summary)?;
        let pooling = resolve_pooling(&config, request, summary)?;
        let sites = summary.sites_for(pooling);
        let tensors = safetensors::read(&self.weights)?;
        let method = method.to_config(sites, weights::detect_naming(&tensors, sites))?;
        let (task, head) = resolve_task(&config, pooling, &tensors, summary);
        let weights = weights::from_peft(tensors, &method, sites, head, summary.info.hidden_size)?;
        let labels = match weights.get(task::head::OUTPUT_BIAS) {
            Some(bias) => super::resolve_labels(config.labels, request, bias.shape[0])?,
            None => Vec::new(),
        };
        let max_length = super::resolve_max_length(request, summary, method.num_virtual_tokens())?;
        Ok(Artifact { manifest: AdapterManifest::imported(task, method, labels, max_length, summary), weights })
    }
}

/// The task of the adapter, and the layout of its head if it has one of its own.
fn resolve_task(
    config: &peft::Config,
    pooling: Pooling,
    tensors: &TensorMap,
    summary: &BaseSummary,
) -> (task::Config, Option<HeadLayout>) {
    let classification =
        task::Config::default().with_pooling(pooling).with_base_head(summary.info.classification_head());
    let head = HeadLayout::for_reading(tensors, &classification, summary);
    match config.task_type.as_deref() {
        // An encoder without a head gives embeddings.
        Some("FEATURE_EXTRACTION") if head.is_missing_from(tensors) => {
            let embedding = task::embedding::Config { pooling: Some(pooling), loss: None };
            (task::Config::Embedding(embedding), None)
        }
        // The head of a language model belongs to the base.
        Some(CAUSAL_LM) => (task::Config::CausalLanguageModel(task::causal_language_model::Config::default()), None),
        _ => (classification, Some(head)),
    }
}

fn resolve_pooling(config: &peft::Config, request: &ImportRequest, summary: &BaseSummary) -> Result<Pooling> {
    let task_pooling = match config.task_type.as_deref() {
        Some("SEQ_CLS") | None => Some(summary.info.classification_pooling()),
        Some(CAUSAL_LM) if summary.info.is_causal_lm => Some(Pooling::Mean),
        Some(CAUSAL_LM) => {
            return Err(unsupported_adapter(
                "its task_type is CAUSAL_LM, and this server's base is not a language model",
            ));
        }
        Some("FEATURE_EXTRACTION") => None,
        Some(other) => {
            return Err(unsupported_adapter(&format!(
                "its task_type is {other}, this server takes SEQ_CLS, FEATURE_EXTRACTION and CAUSAL_LM"
            )));
        }
    };
    let pooling = request.pooling.or(task_pooling).ok_or_else(|| {
        unsupported_adapter(
            "its task_type is FEATURE_EXTRACTION: say in the request by \"pooling\" (\"mean\" or \"cls\") how its head \
             reads a sequence",
        )
    })?;
    match summary.info.poolings.contains(&pooling) {
        true => Ok(pooling),
        false => Err(unsupported_adapter("its pooling is not one that this base offers")),
    }
}
