//! The language model's head that a checkpoint may bring: from a token's row to a number for each word of the vocabulary, for
//! hidden words (Devlin et al. 2019) or for the next one. Frozen, as everything of the base.
//!
//! Knows no architecture but by the names of its tensors.

use super::weights::CheckpointTensors;
use crate::error::Result;
use espalier_tensor::backend::{Activation, FrozenLinear, FrozenNorm, NormKind};
use espalier_tensor::stored_weight::StoredWeight;
use espalier_tensor::{Backend, Buffer, Tape, Tensor, Var};
use serde_json::Value;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a checkpoint calls the head's parts.
struct LmHeadTensorNames {
    dense: &'static str,
    norm: &'static str,
    /// Of the words, under one name or the other.
    bias: [&'static str; 2],
    /// The words' own rows, where they are not those of the embeddings.
    decoder: &'static str,
}

const ROBERTA: LmHeadTensorNames = LmHeadTensorNames {
    dense: "lm_head.dense",
    norm: "lm_head.layer_norm",
    bias: ["lm_head.bias", "lm_head.decoder.bias"],
    decoder: "lm_head.decoder.weight",
};

const BERT: LmHeadTensorNames = LmHeadTensorNames {
    dense: "cls.predictions.transform.dense",
    norm: "cls.predictions.transform.LayerNorm",
    bias: ["cls.predictions.bias", "cls.predictions.decoder.bias"],
    decoder: "cls.predictions.decoder.weight",
};

const DISTILBERT: LmHeadTensorNames = LmHeadTensorNames {
    dense: "vocab_transform",
    norm: "vocab_layer_norm",
    bias: ["vocab_projector.bias"; 2],
    decoder: "vocab_projector.weight",
};

/// A decoder's words alone.
const CAUSAL: LmHeadTensorNames =
    LmHeadTensorNames { dense: "-", norm: "-", bias: ["-"; 2], decoder: "lm_head.weight" };

const MODERNBERT: LmHeadTensorNames =
    LmHeadTensorNames { dense: "head.dense", norm: "head.norm", bias: ["decoder.bias"; 2], decoder: "decoder.weight" };

fn tensor_names(model_type: &str) -> &'static LmHeadTensorNames {
    match model_type {
        "bert" => &BERT,
        "distilbert" => &DISTILBERT,
        "modernbert" => &MODERNBERT,
        "llama" | "mistral" | "qwen2" | "qwen3" | "gpt2" => &CAUSAL,
        _ => &ROBERTA,
    }
}

/// Whether a decoder's words are those of its embeddings. Where the config leaves it out they are GPT-2's alone.
pub fn ties_word_embeddings(config: &Value) -> bool {
    config["tie_word_embeddings"].as_bool().unwrap_or(config["model_type"] == "gpt2")
}

/// Our name for a tensor of the head.
pub fn canonical_name(model_type: &str, name: &str) -> Option<String> {
    let names = tensor_names(model_type);
    let renamed = |path: &str, canonical_prefix: &str| {
        name.strip_prefix(path)?.strip_prefix('.').map(|end| format!("{canonical_prefix}.{end}"))
    };
    let name = || {
        if names.bias.contains(&name) {
            return Some(DECODER_BIAS.to_string());
        }
        (name == names.decoder).then(|| DECODER_WEIGHT.to_string())
    };
    let norm = |ours: String| ours.replace(".gamma", ".weight").replace(".beta", ".bias");
    renamed(names.dense, TRANSFORM_DENSE).or_else(|| renamed(names.norm, TRANSFORM_NORM).map(norm)).or_else(name)
}

const TRANSFORM_DENSE: &str = "language.dense";
const TRANSFORM_NORM: &str = "language.norm";
const DECODER_WEIGHT: &str = "language.words.weight";
const DECODER_BIAS: &str = "language.words.bias";

pub struct LmHead {
    /// What rows go through first, where hidden words are found.
    transform: Option<Transform>,
    bias: Option<Tensor>,
    /// Where they are not those of the embeddings.
    untied_weight: Mutex<Option<StoredWeight>>,
    /// Made when they are first asked for: they take as much memory as the embeddings.
    linear: OnceLock<Arc<FrozenLinear>>,
}

struct Transform {
    dense: Arc<FrozenLinear>,
    norm: Arc<FrozenNorm>,
}

impl LmHead {
    /// A masked language model's, where the checkpoint has one.
    pub fn masked(
        weights: &mut CheckpointTensors,
        backend: &dyn Backend,
        norm_eps: f64,
        [vocabulary, hidden]: [usize; 2],
    ) -> Result<Option<Self>> {
        if !weights.contains(&format!("{TRANSFORM_DENSE}.weight")) {
            return Ok(None);
        }
        let mut take_optional = |name: &str, shape: &[usize]| {
            let is_present = weights.contains(name);
            is_present.then(|| weights.take_unhashed(name, shape)).transpose()
        };
        let dense = take_optional(&format!("{TRANSFORM_DENSE}.weight"), &[hidden, hidden])?
            .unwrap_or_else(|| Tensor::zeros([hidden, hidden]));
        let dense = backend.freeze_linear(dense, take_optional(&format!("{TRANSFORM_DENSE}.bias"), &[hidden])?)?;
        let norm_weight = take_optional(&format!("{TRANSFORM_NORM}.weight"), &[hidden])?
            .unwrap_or_else(|| Tensor::new([hidden], vec![1.0; hidden]));
        let norm_bias =
            take_optional(&format!("{TRANSFORM_NORM}.bias"), &[hidden])?.unwrap_or_else(|| Tensor::zeros([hidden]));
        let norm = Arc::new(backend.freeze_norm(NormKind::LayerNorm, norm_weight, norm_bias, norm_eps)?);
        let bias = take_optional(DECODER_BIAS, &[vocabulary])?.unwrap_or_else(|| Tensor::zeros([vocabulary]));
        let untied_weight = Mutex::new(take_optional(DECODER_WEIGHT, &[vocabulary, hidden])?.map(StoredWeight::Dense));
        let transform = Some(Transform { dense: Arc::new(dense), norm });
        Ok(Some(Self { transform, bias: Some(bias), untied_weight, linear: OnceLock::new() }))
    }

    /// A decoder's: words of its own, or those of the embeddings where the config ties them; `None` where there are neither.
    pub fn causal(weights: &mut CheckpointTensors, is_tied: bool, shape: [usize; 2]) -> Result<Option<Self>> {
        let untied_weight = match weights.contains(DECODER_WEIGHT) && !is_tied {
            true => Some(weights.take_weight(DECODER_WEIGHT, shape)?),
            false if is_tied => None,
            false => return Ok(None),
        };
        Ok(Some(Self {
            transform: None,
            bias: None,
            untied_weight: Mutex::new(untied_weight),
            linear: OnceLock::new(),
        }))
    }

    /// What the words are compared with: `(rows, hidden)` → `(rows, hidden)`.
    pub fn transform(&self, tape: &mut Tape, rows: Var) -> Result<Var> {
        let Some(Transform { dense, norm }) = &self.transform else { return Ok(rows) };
        let dense = tape.linear(rows, dense)?;
        let activated = tape.activate(Activation::Gelu, dense)?;
        Ok(tape.norm(activated, None, norm)?)
    }

    /// `(hidden)` → `(vocabulary)`; `embedded` makes it of the base's word embeddings, with a bias.
    pub fn linear(
        &self,
        backend: &dyn Backend,
        tied_linear: impl FnOnce(Option<Tensor>) -> Result<FrozenLinear>,
    ) -> Result<&Arc<FrozenLinear>> {
        if let Some(words) = self.linear.get() {
            return Ok(words);
        }
        let mut untied_weight = self.untied_weight.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(words) = self.linear.get() {
            return Ok(words);
        }
        let linear = match untied_weight.clone() {
            Some(own) => backend.load_linear(own, self.bias.clone())?,
            None => tied_linear(self.bias.clone())?,
        };
        *untied_weight = None;
        Ok(self.linear.get_or_init(|| Arc::new(linear)))
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        self.transform.iter().flat_map(|transform| transform.dense.buffers().chain(transform.norm.buffers()))
    }
}
