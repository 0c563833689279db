//! The language model's head that a checkpoint may bring: from a token's row to a number for each word of the vocabulary, for
//! hidden words (Devlin et al. 2019) or for the next one. Frozen, as everything of the base.
//!
//! Knows no architecture but by the names of its tensors.

use super::weights::Weights;
use crate::error::Result;
use espalier_tensor::kernels::{Activation, FrozenLinear, FrozenNorm, NormForm};
use espalier_tensor::raw::Raw;
use espalier_tensor::{Buffer, Kernels, Rows, Tape, Tensor};
use serde_json::Value;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a checkpoint calls the head's parts.
struct Names {
    dense: &'static str,
    norm: &'static str,
    /// Of the words, under one name or the other.
    bias: [&'static str; 2],
    /// The words' own rows, where they are not those of the embeddings.
    words: &'static str,
}

const ROBERTA: Names = Names {
    dense: "lm_head.dense",
    norm: "lm_head.layer_norm",
    bias: ["lm_head.bias", "lm_head.decoder.bias"],
    words: "lm_head.decoder.weight",
};

const BERT: Names = Names {
    dense: "cls.predictions.transform.dense",
    norm: "cls.predictions.transform.LayerNorm",
    bias: ["cls.predictions.bias", "cls.predictions.decoder.bias"],
    words: "cls.predictions.decoder.weight",
};

const DISTILBERT: Names = Names {
    dense: "vocab_transform",
    norm: "vocab_layer_norm",
    bias: ["vocab_projector.bias"; 2],
    words: "vocab_projector.weight",
};

/// A decoder's words alone.
const CAUSAL: Names = Names { dense: "-", norm: "-", bias: ["-"; 2], words: "lm_head.weight" };

const MODERNBERT: Names =
    Names { dense: "head.dense", norm: "head.norm", bias: ["decoder.bias"; 2], words: "decoder.weight" };

fn names(model_type: &str) -> &'static Names {
    match model_type {
        "bert" => &BERT,
        "distilbert" => &DISTILBERT,
        "modernbert" => &MODERNBERT,
        "llama" | "mistral" | "qwen2" | "qwen3" | "gpt2" => &CAUSAL,
        _ => &ROBERTA,
    }
}

/// Whether a decoder's words are those of its embeddings. Where the config leaves it out they are GPT-2's alone.
pub fn is_tied(config: &Value) -> bool {
    config["tie_word_embeddings"].as_bool().unwrap_or(config["model_type"] == "gpt2")
}

/// Our name for a tensor of the head.
pub fn canonical(model_type: &str, name: &str) -> Option<String> {
    let names = names(model_type);
    let part = |path: &str, ours: &str| name.strip_prefix(path)?.strip_prefix('.').map(|end| format!("{ours}.{end}"));
    let name = || {
        if names.bias.contains(&name) {
            return Some(WORDS_BIAS.to_string());
        }
        (name == names.words).then(|| WORDS.to_string())
    };
    let norm = |ours: String| ours.replace(".gamma", ".weight").replace(".beta", ".bias");
    part(names.dense, DENSE).or_else(|| part(names.norm, NORM).map(norm)).or_else(name)
}

const DENSE: &str = "language.dense";
const NORM: &str = "language.norm";
const WORDS: &str = "language.words.weight";
const WORDS_BIAS: &str = "language.words.bias";

pub struct LanguageHead {
    /// What rows go through first, where hidden words are found.
    transform: Option<Transform>,
    bias: Option<Tensor>,
    /// Where they are not those of the embeddings.
    own: Mutex<Option<Raw>>,
    /// Made when they are first asked for: they take as much memory as the embeddings.
    words: OnceLock<Arc<FrozenLinear>>,
}

struct Transform {
    dense: Arc<FrozenLinear>,
    norm: Arc<FrozenNorm>,
}

impl LanguageHead {
    /// A masked language model's, where the checkpoint has one.
    pub fn masked(
        weights: &mut Weights,
        kernels: &dyn Kernels,
        epsilon: f64,
        [vocabulary, hidden]: [usize; 2],
    ) -> Result<Option<Self>> {
        if !weights.has(&format!("{DENSE}.weight")) {
            return Ok(None);
        }
        let mut take = |name: &str, shape: &[usize]| {
            let is_there = weights.has(name);
            is_there.then(|| weights.take_aside(name, shape)).transpose()
        };
        let dense =
            take(&format!("{DENSE}.weight"), &[hidden, hidden])?.unwrap_or_else(|| Tensor::zeros([hidden, hidden]));
        let dense = kernels.freeze_linear(dense, take(&format!("{DENSE}.bias"), &[hidden])?)?;
        let gain =
            take(&format!("{NORM}.weight"), &[hidden])?.unwrap_or_else(|| Tensor::new([hidden], vec![1.0; hidden]));
        let shift = take(&format!("{NORM}.bias"), &[hidden])?.unwrap_or_else(|| Tensor::zeros([hidden]));
        let norm = Arc::new(kernels.freeze_norm(NormForm::Layer, gain, shift, epsilon)?);
        let bias = take(WORDS_BIAS, &[vocabulary])?.unwrap_or_else(|| Tensor::zeros([vocabulary]));
        let own = Mutex::new(take(WORDS, &[vocabulary, hidden])?.map(Raw::Numbers));
        let transform = Some(Transform { dense: Arc::new(dense), norm });
        Ok(Some(Self { transform, bias: Some(bias), own, words: OnceLock::new() }))
    }

    /// A decoder's: words of its own, or those of the embeddings where the config ties them; `None` where there are neither.
    pub fn causal(weights: &mut Weights, is_tied: bool, shape: [usize; 2]) -> Result<Option<Self>> {
        let own = match weights.has(WORDS) && !is_tied {
            true => Some(weights.take_raw(WORDS, shape)?),
            false if is_tied => None,
            false => return Ok(None),
        };
        Ok(Some(Self { transform: None, bias: None, own: Mutex::new(own), words: OnceLock::new() }))
    }

    /// What the words are compared with: `(rows, hidden)` → `(rows, hidden)`.
    pub fn transformed(&self, tape: &mut Tape, rows: Rows) -> Result<Rows> {
        let Some(Transform { dense, norm }) = &self.transform else { return Ok(rows) };
        let dense = tape.linear(rows, dense)?;
        let active = tape.activate(Activation::Gelu, dense)?;
        Ok(tape.norm(active, None, norm)?)
    }

    /// `(hidden)` → `(vocabulary)`; `embedded` makes it of the base's word embeddings, with a bias.
    pub fn words(
        &self,
        kernels: &dyn Kernels,
        embedded: impl FnOnce(Option<Tensor>) -> Result<FrozenLinear>,
    ) -> Result<&Arc<FrozenLinear>> {
        if let Some(words) = self.words.get() {
            return Ok(words);
        }
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = self.words.get() {
            return Ok(words);
        }
        let made = match own.clone() {
            Some(own) => kernels.hold_linear(own, self.bias.clone())?,
            None => embedded(self.bias.clone())?,
        };
        *own = None;
        Ok(self.words.get_or_init(|| Arc::new(made)))
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        self.transform.iter().flat_map(|transform| transform.dense.buffers().chain(transform.norm.buffers()))
    }
}
