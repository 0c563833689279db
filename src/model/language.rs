//! The masked language model's head that a checkpoint may bring: from a token's row to a number for each word of the
//! vocabulary (Devlin et al. 2019). Frozen, as everything of the base.
//!
//! Knows no architecture but by the names of its tensors.

use super::weights::Weights;
use crate::compute::kernels::{Activation, FrozenLinear, FrozenNorm, NormForm};
use crate::compute::{Buffer, Kernels, Rows, Tape, Tensor};
use crate::error::Result;
use std::sync::{Arc, OnceLock};

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

const MODERNBERT: Names =
    Names { dense: "head.dense", norm: "head.norm", bias: ["decoder.bias"; 2], words: "decoder.weight" };

fn names(model_type: &str) -> &'static Names {
    match model_type {
        "bert" => &BERT,
        "distilbert" => &DISTILBERT,
        "modernbert" => &MODERNBERT,
        _ => &ROBERTA,
    }
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
    dense: Arc<FrozenLinear>,
    norm: Arc<FrozenNorm>,
    bias: Tensor,
    /// Where they are not those of the embeddings.
    own: Option<Tensor>,
    /// Made when they are first asked for: they take as much memory as the embeddings.
    words: OnceLock<Arc<FrozenLinear>>,
}

impl LanguageHead {
    /// The checkpoint's, where it has one.
    pub fn load(
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
        Ok(Some(Self {
            dense: Arc::new(dense),
            norm: Arc::new(kernels.freeze_norm(NormForm::Layer, gain, shift, epsilon)?),
            bias: take(WORDS_BIAS, &[vocabulary])?.unwrap_or_else(|| Tensor::zeros([vocabulary])),
            own: take(WORDS, &[vocabulary, hidden])?,
            words: OnceLock::new(),
        }))
    }

    /// `(rows, hidden)` → `(rows, vocabulary)`; `embeddings` are the base's word embeddings.
    pub fn logits(
        &self,
        kernels: &dyn Kernels,
        tape: &mut Tape,
        rows: Rows,
        embeddings: impl FnOnce() -> Result<Tensor>,
    ) -> Result<Rows> {
        let dense = tape.linear(rows, &self.dense)?;
        let active = tape.activate(Activation::Gelu, dense)?;
        let normed = tape.norm(active, None, &self.norm)?;
        let words = self.words(kernels, embeddings)?;
        tape.linear(normed, words)
    }

    fn words(&self, kernels: &dyn Kernels, embeddings: impl FnOnce() -> Result<Tensor>) -> Result<&Arc<FrozenLinear>> {
        if let Some(words) = self.words.get() {
            return Ok(words);
        }
        let rows = self.own.clone().map_or_else(embeddings, Ok)?;
        let made = Arc::new(kernels.freeze_linear(rows, Some(self.bias.clone()))?);
        Ok(self.words.get_or_init(|| made))
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        self.dense.buffers().chain(self.norm.buffers())
    }
}
