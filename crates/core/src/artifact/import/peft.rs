//! Import of a folder that PEFT wrote: two files, and the request.

use super::task_inference::{InferredTask, infer_task, regression_for};
use super::{ImportRequest, unsupported_adapter};
use crate::adapter::tensor_spec::CONFIG_FILE;
use crate::artifact::base::BaseSummary;
use crate::artifact::folder::WEIGHTS_FILE;
use crate::artifact::manifest::{AdapterManifest, Artifact};
use crate::artifact::peft::{self, weights};
use crate::artifact::safetensors;
use crate::error::{Context, Result};
use crate::task;
use std::fs;
use std::path::Path;

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
        let mut tensors = safetensors::read(&self.weights)?;
        let InferredTask { task, pooling, head } = infer_task(&config, request, &tensors, summary)?;
        let sites = summary.sites_for(pooling);
        let naming = weights::detect_naming(&tensors, sites);
        let method = method.to_config(sites, naming)?;
        let vocabulary = peft::vocabulary::infer(&mut tensors, &config, naming, &task, summary)?;
        let own = peft::vocabulary::take_tensors(&mut tensors, &vocabulary, naming, summary)?;
        let mut weights = weights::from_peft(tensors, &method, sites, head, summary.info.hidden_size)?;
        weights.extend(own);
        let head_rows = weights.get(task::head::OUTPUT_BIAS).map(|bias| bias.shape[0]);
        let (task, labels) = match head_rows {
            Some(1) => (regression_for(&task), Vec::new()),
            Some(rows) => {
                let labels = super::resolve_labels(config.labels, request, rows)?;
                (task, labels)
            }
            None => (task, Vec::new()),
        };
        if labels.is_empty() {
            super::check_no_labels(request, &task)?;
        }
        let max_length = super::resolve_max_length(request, summary, method.num_virtual_tokens())?;
        let manifest = AdapterManifest::imported(task, method, labels, max_length, summary);
        Ok(Artifact { manifest: AdapterManifest { vocabulary, ..manifest }, weights })
    }
}
