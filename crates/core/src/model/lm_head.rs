//! Frozen head of a masked (Devlin et al. 2019) or causal language model: from hidden states to logits of the vocabulary.

use super::weights::CheckpointTensors;
use crate::error::{Error, Result};
use espalier_tensor::backend::{Activation, FrozenLinear, FrozenNorm, NormKind};
use espalier_tensor::quant::StoredWeight;
use espalier_tensor::{Backend, Buffer, Tape, Tensor, Var};
use serde_json::Value;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Tensor names of the head in a checkpoint.
pub struct LmHeadTensorNames {
    /// Of a masked language model; a causal one has no transform.
    pub transform: Option<TransformNames>,
    /// Bias of the output projection, under any of these names.
    pub bias: &'static [&'static str],
    /// Weight of the output projection, if it is not tied to the word embeddings.
    pub decoder: &'static str,
}

/// Tensor names of the layer between the encoder and the output projection.
pub struct TransformNames {
    pub dense: &'static str,
    pub norm: &'static str,
}

/// Whether the output projection of a decoder is tied to the word embeddings. By default only that of GPT-2 is.
pub fn ties_word_embeddings(config: &Value) -> bool {
    config["tie_word_embeddings"].as_bool().unwrap_or(config["model_type"] == "gpt2")
}

/// Canonical name of a tensor of the head; `None` for other tensors.
pub fn canonical_name(names: &LmHeadTensorNames, name: &str) -> Option<String> {
    let renamed = |path: &str, canonical_prefix: &str| {
        name.strip_prefix(path)?.strip_prefix('.').map(|end| format!("{canonical_prefix}.{end}"))
    };
    let decoder = || {
        if names.bias.contains(&name) {
            return Some(DECODER_BIAS.to_string());
        }
        (name == names.decoder).then(|| DECODER_WEIGHT.to_string())
    };
    let norm = |canonical: String| canonical.replace(".gamma", ".weight").replace(".beta", ".bias");
    let transform = names.transform.as_ref().and_then(|transform| {
        renamed(transform.dense, TRANSFORM_DENSE).or_else(|| renamed(transform.norm, TRANSFORM_NORM).map(norm))
    });
    transform.or_else(decoder)
}

// Canonical names. They enter the fingerprint of the base model.
const TRANSFORM_DENSE: &str = "language.dense";
const TRANSFORM_NORM: &str = "language.norm";
const DECODER_WEIGHT: &str = "language.words.weight";
const DECODER_BIAS: &str = "language.words.bias";

/// Language model head of a checkpoint: an optional transform, and the output projection.
pub struct LmHead {
    /// Dense layer, GELU and norm before the output projection of a masked language model.
    transform: Option<Transform>,
    output: OutputProjection,
}

enum OutputProjection {
    Untied(Arc<FrozenLinear>),
    Tied(TiedProjection),
}

/// Output projection with the weight of the word embeddings.
#[derive(Default)]
struct TiedProjection {
    bias: Option<Tensor>,
    /// Built on first use, because with some backends it takes as much memory as the word embeddings.
    linear: OnceLock<Arc<FrozenLinear>>,
    /// Held while it is built.
    building: Mutex<()>,
}

struct Transform {
    dense: Arc<FrozenLinear>,
    norm: Arc<FrozenNorm>,
}

impl LmHead {
    /// Head of a masked language model, if the checkpoint has one. `shape` is `[vocabulary, hidden]`.
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
        let output = match take_optional(DECODER_WEIGHT, &[vocabulary, hidden])? {
            Some(weight) => {
                OutputProjection::Untied(Arc::new(backend.load_linear(StoredWeight::Dense(weight), Some(bias))?))
            }
            None => OutputProjection::Tied(TiedProjection { bias: Some(bias), ..TiedProjection::default() }),
        };
        Ok(Some(Self { transform: Some(Transform { dense: Arc::new(dense), norm }), output }))
    }

    /// Head of a causal language model: `None` if the checkpoint has no output projection and the config does not tie it to the
    /// word embeddings.
    ///
    /// Load it before the layers. The output projection is often the largest tensor, and the buffer that reads it is freed before the
    /// layers take memory. In the fingerprint it still follows the layers.
    pub fn causal(weights: &mut CheckpointTensors, backend: &dyn Backend, is_tied: bool) -> Result<Option<Self>> {
        let output = match weights.contains(DECODER_WEIGHT) && !is_tied {
            true => {
                let weight = weights.take_weight_hashed_last(DECODER_WEIGHT)?;
                OutputProjection::Untied(Arc::new(backend.load_linear(weight, None)?))
            }
            false if is_tied => OutputProjection::Tied(TiedProjection::default()),
            false => return Ok(None),
        };
        Ok(Some(Self { transform: None, output }))
    }

    /// # Errors
    /// `Invalid` (`base_model_damaged`) if the output projection does not map `hidden` to `vocabulary` values.
    pub fn check_shape(&self, [vocabulary, hidden]: [usize; 2]) -> Result<()> {
        match &self.output {
            OutputProjection::Untied(linear) if [linear.out_features, linear.in_features] != [vocabulary, hidden] => {
                let found = [linear.out_features, linear.in_features];
                let detail =
                    format!("the output projection is {found:?}, but the config asks for [{vocabulary}, {hidden}]");
                Err(Error::invalid("base_model_damaged", detail))
            }
            _ => Ok(()),
        }
    }

    pub fn is_tied(&self) -> bool {
        matches!(self.output, OutputProjection::Tied(_))
    }

    /// Input of the output projection: `(rows, hidden)` → `(rows, hidden)`.
    pub fn transform(&self, tape: &mut Tape, rows: Var) -> Result<Var> {
        let Some(Transform { dense, norm }) = &self.transform else { return Ok(rows) };
        let dense = tape.linear(rows, dense)?;
        let activated = tape.activate(Activation::Gelu, dense)?;
        Ok(tape.norm(activated, None, norm)?)
    }

    /// Output projection `(hidden)` → `(vocabulary)`. `tied_linear` builds it from the word embeddings and a bias.
    pub fn linear(
        &self,
        tied_linear: impl FnOnce(Option<Tensor>) -> Result<FrozenLinear>,
    ) -> Result<&Arc<FrozenLinear>> {
        let tied = match &self.output {
            OutputProjection::Untied(linear) => return Ok(linear),
            OutputProjection::Tied(tied) => tied,
        };
        if let Some(linear) = tied.linear.get() {
            return Ok(linear);
        }
        let _building = tied.building.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(linear) = tied.linear.get() {
            return Ok(linear);
        }
        let linear = tied_linear(tied.bias.clone())?;
        Ok(tied.linear.get_or_init(|| Arc::new(linear)))
    }

    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        self.transform.iter().flat_map(|transform| transform.dense.buffers().chain(transform.norm.buffers()))
    }
}
