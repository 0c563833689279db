//! Changes of the word embeddings and of a language model's head that an adapter has beside its method: PEFT's `modules_to_save`, LoRA of
//! these modules, and trainable tokens. They are imported and served; jobs do not train them.

mod hooks;
mod loaded;

use crate::adapter::TensorMap;
use crate::adapter::lora::LowRank;
use crate::error::{Error, Result};
use crate::model::{BaseModel, BaseModelInfo};
use crate::task;
use half::bf16;
use serde::{Deserialize, Serialize};

pub use loaded::{LmHeadChange, LoadedVocabulary};

/// What an adapter changes at the two ends of the model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vocabulary {
    #[serde(skip_serializing_if = "ModuleChange::is_none")]
    pub embeddings: ModuleChange,
    #[serde(skip_serializing_if = "ModuleChange::is_none")]
    pub lm_head: ModuleChange,
}

/// Changes of one module with a row per token, applied in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModuleChange {
    /// Whether the adapter has a weight `(vocabulary, hidden)` of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low_rank: Option<LowRank>,
    /// Tokens whose rows the adapter replaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub token_ids: Vec<u32>,
}

impl ModuleChange {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

// Native names of the tensors.
pub const EMBEDDINGS: &str = "embeddings";
pub const LM_HEAD: &str = "lm_head";
pub const WEIGHT: &str = "weight";
pub const LORA_A: &str = "lora_A";
pub const LORA_B: &str = "lora_B";
pub const TOKEN_ROWS: &str = "token_rows";

/// Native name of a tensor of a module.
pub fn tensor_name(module: &str, tensor: &str) -> String {
    format!("{module}.{tensor}")
}

/// Splits native tensors into those of the vocabulary and the others.
pub fn split_weights(weights: TensorMap) -> (TensorMap, TensorMap) {
    weights.into_iter().partition(|(name, _)| is_vocabulary_tensor(name))
}

fn is_vocabulary_tensor(name: &str) -> bool {
    [EMBEDDINGS, LM_HEAD].iter().any(|module| name.strip_prefix(module).is_some_and(|rest| rest.starts_with('.')))
}

impl Vocabulary {
    pub fn is_empty(&self) -> bool {
        self.embeddings.is_none() && self.lm_head.is_none()
    }

    /// Why the changes are not possible on this base.
    pub fn problem(&self, task: &task::Config, info: &BaseModelInfo) -> Option<String> {
        let uses_lm_head = task.is_generative() && info.is_causal_lm;
        if !uses_lm_head && !self.lm_head.is_none() {
            return Some("changes lm_head, which its task does not use".to_string());
        }
        let changes = [&self.embeddings, &self.lm_head];
        let mut low_ranks = changes.iter().filter_map(|change| change.low_rank);
        if low_ranks.any(|low_rank| low_rank.rank == 0 || !low_rank.scaling().is_finite()) {
            return Some("has a low-rank update without a rank or a finite alpha".to_string());
        }
        let mut token_ids = changes.iter().flat_map(|change| &change.token_ids);
        let unknown = token_ids.find(|id| **id as usize >= info.vocabulary_size);
        unknown.map(|id| format!("names the token {id} of {}", info.vocabulary_size))
    }

    /// # Errors
    /// `Invalid` (`adapter_not_trainable`) unless it is empty: a job would lose the changes.
    pub fn check_trainable(&self) -> Result<()> {
        match self.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid(
                "adapter_not_trainable",
                "the adapter changes word embeddings or the language model's head, which jobs do not train: start from \
                 another adapter",
            )),
        }
    }

    /// Removes weights that are those of the base: PEFT saves them beside LoRA of these modules. A file may have rounded them to bf16.
    pub fn remove_base_weights(&mut self, weights: &mut TensorMap, base: &BaseModel) -> Result<()> {
        let ids: Vec<u32> = (0..base.info().vocabulary_size as u32).collect();
        let rounded = |value: &f32| bf16::from_f32(*value);
        for (module, change) in [(EMBEDDINGS, &mut self.embeddings), (LM_HEAD, &mut self.lm_head)] {
            let name = tensor_name(module, WEIGHT);
            let Some(weight) = weights.get(&name).filter(|_| module == EMBEDDINGS || base.ties_lm_head()) else {
                continue;
            };
            let base_rows = base.embedding_rows(&ids)?.values;
            let is_rounded = weight.values.iter().all(|value| rounded(value).to_f32() == *value);
            let is_same = match is_rounded {
                true => weight.values.iter().map(rounded).eq(base_rows.iter().map(rounded)),
                false => weight.values == base_rows,
            };
            if is_same {
                weights.remove(&name);
                change.replaced = false;
            }
        }
        Ok(())
    }
}
