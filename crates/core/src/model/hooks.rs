//! Hooks: the points of the forward pass at which an adapter changes the base model.
//!
//! Every hook returns its input by default. `()` is the bare base model.
//! The layers of all architectures are built from frozen operations with hooks.

use super::site::{FirstTrainableLayer, Site, SiteInfo};
use crate::error::Result;
use espalier_tensor::backend::{FrozenLinear, FrozenNorm, PrependedRows};
use espalier_tensor::{ParamId, Tape, Var};
use std::ops::Range;
use std::sync::Arc;

/// Virtual tokens that an adapter prepends to every sequence. The positions of real tokens start after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VirtualTokens {
    #[default]
    Disabled,
    /// Number of soft prompt embeddings. They pass through all layers.
    Prompt(usize),
    /// Number of prefix keys and values in every layer.
    Prefix(usize),
}

impl VirtualTokens {
    /// Number of rows that pass through the layers before the real tokens of a sequence.
    pub fn prompt_rows(self) -> usize {
        match self {
            Self::Prompt(count) => count,
            Self::Disabled | Self::Prefix(_) => 0,
        }
    }
}

/// One of the two halves of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Sublayer {
    Attention,
    FeedForward,
}

/// Arguments of [`Hooks::on_sublayer_output`] besides the output.
#[derive(Debug, Clone, Copy)]
pub struct SublayerContext<'a> {
    pub layer: usize,
    pub sublayer: Sublayer,
    /// Rows that will be added to the output.
    pub residual: Var,
    /// Norm of the sum, in post-norm architectures.
    pub norm: Option<&'a Arc<FrozenNorm>>,
}

/// Prefix keys and values of a range of sequences in one layer.
pub struct PrefixKeyValues {
    pub key: PrependedRows<Var>,
    pub value: PrependedRows<Var>,
}

/// An adapter as the base model sees it. A hook may overwrite the buffers that it gets.
///
/// # Errors
/// All functions return only errors of the backend.
pub trait Hooks: Send + Sync {
    fn first_trainable_layer(&self) -> FirstTrainableLayer;

    /// Whether the output of `site` is changed, by [`Self::on_linear_output`] or [`Self::on_norm_output`]. At all other sites
    /// the base model fuses operations and saves no activations.
    fn has_output_hook(&self, _site: Site) -> bool {
        false
    }

    /// Whether the input of the linear map at `site` is changed, by [`Self::on_linear_input`].
    fn has_input_hook(&self, _site: Site) -> bool {
        false
    }

    fn has_sublayer_hook(&self, _layer: usize, _sublayer: Sublayer) -> bool {
        false
    }

    /// Whether the word embeddings are changed, by [`Self::on_word_embeddings`].
    fn has_word_embedding_hook(&self) -> bool {
        false
    }

    /// Changes the word embeddings of the tokens `ids`, before positions, token types and norm are applied. `base_rows` are those of
    /// the base, and `output` is a copy or the same value.
    fn on_word_embeddings(&self, _tape: &mut Tape, _ids: &[u32], _base_rows: Var, output: Var) -> Result<Var> {
        Ok(output)
    }

    /// Changes the input of the linear map at `site`. `input` is a copy that only this linear map reads.
    fn on_linear_input(&self, _tape: &mut Tape, _site: Site, input: Var) -> Result<Var> {
        Ok(input)
    }

    /// Changes the output of the linear map at `site`. Low-rank updates of a part of the batch are deferred: other changes of
    /// `output` apply after them, but nothing may read `output` before they ran.
    fn on_linear_output(&self, _tape: &mut Tape, _site: Site, _input: Var, output: Var) -> Result<Var> {
        Ok(output)
    }

    /// Changes the output of a norm. `normalised` is the output without weight and bias.
    fn on_norm_output(&self, _tape: &mut Tape, _site: Site, _normalised: Var, output: Var) -> Result<Var> {
        Ok(output)
    }

    /// Changes the output of a sublayer before the residual is added and, in post-norm architectures, the sum is normed.
    fn on_sublayer_output(&self, _tape: &mut Tape, _context: &SublayerContext, output: Var) -> Result<Var> {
        Ok(output)
    }

    /// Soft prompts of `sequences`: rows of *word* embeddings, before positions, token types and norm are applied.
    fn soft_prompts(&self, _tape: &mut Tape, _sequences: Range<usize>) -> Result<Vec<PrependedRows<Var>>> {
        Ok(Vec::new())
    }

    /// Prefix keys and values of `sequences` in `layer`. Rotary embeddings are not applied to them.
    fn prefix_key_values(
        &self,
        _tape: &mut Tape,
        _layer: usize,
        _sequences: Range<usize>,
    ) -> Result<Vec<PrefixKeyValues>> {
        Ok(Vec::new())
    }

    /// Parameters A and B of every low-rank update.
    fn lora_pairs(&self) -> Vec<[ParamId; 2]> {
        Vec::new()
    }

    /// Virtual tokens before every sequence.
    fn virtual_tokens(&self) -> VirtualTokens {
        VirtualTokens::Disabled
    }
}

/// The bare base model.
impl Hooks for () {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        FirstTrainableLayer::Head
    }
}

/// Applies a frozen linear map, x·Wᵀ + b.
pub fn linear(tape: &mut Tape, hooks: &dyn Hooks, site: Site, linear: &Arc<FrozenLinear>, input: Var) -> Result<Var> {
    let input = match hooks.has_input_hook(site) {
        true => {
            let copy = tape.copy(input)?;
            hooks.on_linear_input(tape, site, copy)?
        }
        false => input,
    };
    let output = tape.linear(input, linear)?;
    match hooks.has_output_hook(site) {
        true => hooks.on_linear_output(tape, site, input, output),
        false => Ok(output),
    }
}

/// Describes the site of a linear map.
pub fn linear_site_info(linear: &FrozenLinear, site: Site, module_path: String) -> SiteInfo {
    SiteInfo {
        site,
        in_features: linear.in_features,
        out_features: linear.out_features,
        has_bias: linear.bias().is_some(),
        module_path,
    }
}

/// A frozen norm with the hook through which an adapter replaces its weight and bias. The hook reads the output of `unweighted`,
/// the same norm without weight and bias.
pub struct HookedNorm {
    pub weighted: Arc<FrozenNorm>,
    pub unweighted: Arc<FrozenNorm>,
    /// Whether the checkpoint has a bias; the bias is zero otherwise.
    pub has_bias: bool,
    pub width: usize,
}

impl HookedNorm {
    pub fn site_info(&self, site: Site, module_path: String) -> SiteInfo {
        SiteInfo { site, in_features: self.width, out_features: self.width, has_bias: self.has_bias, module_path }
    }

    /// Norms `input`, or its sum with `residual`.
    pub fn forward(
        &self,
        tape: &mut Tape,
        hooks: &dyn Hooks,
        site: Site,
        input: Var,
        residual: Option<Var>,
    ) -> Result<Var> {
        let output = tape.norm(input, residual, &self.weighted)?;
        match hooks.has_output_hook(site) {
            true => {
                let normalised = tape.norm(input, residual, &self.unweighted)?;
                hooks.on_norm_output(tape, site, normalised, output)
            }
            false => Ok(output),
        }
    }
}

/// Applies the sublayer hook to the output of a sublayer, before its residual is added.
pub fn apply_sublayer_hook(tape: &mut Tape, hooks: &dyn Hooks, context: &SublayerContext, output: Var) -> Result<Var> {
    match hooks.has_sublayer_hook(context.layer, context.sublayer) {
        true => hooks.on_sublayer_output(tape, context, output),
        false => Ok(output),
    }
}

/// Applies the sublayer hook and adds the residual, in pre-norm layers. Overwrites `output`.
pub fn add_residual(
    tape: &mut Tape,
    hooks: &dyn Hooks,
    (layer, sublayer): (usize, Sublayer),
    residual: Var,
    output: Var,
) -> Result<Var> {
    let context = SublayerContext { layer, sublayer, residual, norm: None };
    let output = apply_sublayer_hook(tape, hooks, &context, output)?;
    Ok(tape.add_rows_scaled(output, residual, 1.0)?)
}
