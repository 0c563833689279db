//! Bottleneck adapters: a narrow layer beside or behind a sublayer, `x + s·up(f(down(x)))`.
//!
//! `houlsby` (Houlsby et al. 2019) has one behind attention and one behind the feed-forward part; `pfeiffer` (Pfeiffer et al.
//! 2020) only the second, which reads the normed sum with the residual; `parallel` (He et al. 2021) has one beside the
//! feed-forward part. What each reads and adds to is what AdapterHub's configurations of these names do.

use super::BuildContext;
use super::targets::{self, Layers, MethodValidator};
use crate::adapter::{ParameterBuilder, TensorInit};
use crate::error::Result;
use crate::model::hooks::{Sublayer, SublayerContext};
use crate::model::{FirstTrainableLayer, Hooks, Module, SiteInfo};
use espalier_tensor::backend::Activation;
use espalier_tensor::{ParamId, Tape, Var};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Bottleneck)]
pub struct Config {
    pub placement: Placement,
    /// The base's width over the bottleneck's: 16, for `parallel` 2, where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduction_factor: Option<f64>,
    /// `relu`, for `houlsby` `silu`, where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// What the bottleneck's output is multiplied by: 1, for `parallel` 4, where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<f64>,
    /// Of what goes into the bottleneck, in training.
    pub dropout: f64,
    pub layers: Layers,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            placement: Placement::Pfeiffer,
            reduction_factor: None,
            activation: None,
            scaling: None,
            dropout: 0.0,
            layers: Layers::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    Houlsby,
    Pfeiffer,
    Parallel,
}

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo]) -> Result<Self> {
        let is_parallel = self.placement == Placement::Parallel;
        let reduction_factor = self.reduction_factor.unwrap_or(if is_parallel { 2.0 } else { 16.0 });
        let scaling = self.scaling.unwrap_or(if is_parallel { 4.0 } else { 1.0 });
        let default_activation = if self.placement == Placement::Houlsby { Activation::Silu } else { Activation::Relu };
        let mut validator = MethodValidator::new(sites);
        validator.check_layers(self.layers);
        validator.check_dropout(self.dropout);
        let hidden_size = hidden_size(sites);
        let message = format!("reduction_factor must be a number above 0 and at most {hidden_size}");
        validator.require(
            reduction_factor.is_finite() && reduction_factor > 0.0 && reduction_factor <= hidden_size as f64,
            "reduction_factor",
            message,
        );
        validator.require(scaling.is_finite() && scaling != 0.0, "scaling", "scaling must be a number, and not 0");
        let activation = Some(self.activation.unwrap_or(default_activation));
        let resolved =
            Self { reduction_factor: Some(reduction_factor), scaling: Some(scaling), activation, ..self.clone() };
        validator.finish(|| resolved.layer_indices(sites).next().is_some())?;
        Ok(resolved)
    }

    /// Numbers in the bottleneck.
    pub fn bottleneck_size(&self, hidden_size: usize) -> usize {
        ((hidden_size as f64 / self.reduction_factor.unwrap_or(1.0)) as usize).max(1)
    }

    pub fn sublayers(&self) -> &'static [Sublayer] {
        match self.placement {
            Placement::Houlsby => &[Sublayer::Attention, Sublayer::FeedForward],
            Placement::Pfeiffer | Placement::Parallel => &[Sublayer::FeedForward],
        }
    }

    /// The layers that it is in.
    pub fn layer_indices<'a>(&'a self, sites: &'a [SiteInfo]) -> impl Iterator<Item = usize> + 'a {
        let num_layers = targets::num_layers(sites);
        (0..num_layers).filter(move |layer| self.layers.contains(*layer, num_layers))
    }
}

/// The base's width.
pub fn hidden_size(sites: &[SiteInfo]) -> usize {
    sites.iter().find(|info| info.site.module == Module::AttentionOutput).map_or(0, |info| info.out_features)
}

/// A bottleneck's name, for its tensors.
pub fn tensor_prefix(layer: usize, part: Sublayer) -> String {
    let sublayer = match part {
        Sublayer::Attention => "attention",
        Sublayer::FeedForward => "feed_forward",
    };
    format!("layer.{layer}.{sublayer}_adapter")
}

pub struct Bottleneck {
    layers: BTreeMap<(usize, Sublayer), BottleneckLayer>,
    placement: Placement,
    activation: Activation,
    scaling: f64,
    dropout: f64,
}

struct BottleneckLayer {
    /// Weight `(bottleneck, hidden)` and bias.
    down_projection: (ParamId, ParamId),
    /// Weight `(hidden, bottleneck)` and bias, zero at first: a fresh adapter leaves the base as it is.
    up_projection: (ParamId, ParamId),
}

impl Bottleneck {
    pub fn build(config: &Config, context: &BuildContext, builder: &mut ParameterBuilder) -> Self {
        let hidden_size = hidden_size(context.sites);
        let bottleneck_size = config.bottleneck_size(hidden_size);
        let mut layers = BTreeMap::new();
        for layer in config.layer_indices(context.sites) {
            for sublayer in config.sublayers() {
                let prefix = tensor_prefix(layer, *sublayer);
                let mut add_tensor =
                    |suffix: &str, shape: &[usize], init| builder.add(format!("{prefix}.{suffix}"), shape, init);
                let down_projection = (
                    add_tensor("down.weight", &[bottleneck_size, hidden_size], TensorInit::LinearDefault),
                    add_tensor("down.bias", &[bottleneck_size], TensorInit::Zeros),
                );
                let up_projection = (
                    add_tensor("up.weight", &[hidden_size, bottleneck_size], TensorInit::Zeros),
                    add_tensor("up.bias", &[hidden_size], TensorInit::Zeros),
                );
                layers.insert((layer, *sublayer), BottleneckLayer { down_projection, up_projection });
            }
        }
        Self {
            layers,
            placement: config.placement,
            activation: config.activation.unwrap_or(Activation::Relu),
            scaling: config.scaling.unwrap_or(1.0),
            dropout: config.dropout,
        }
    }
}

impl Hooks for Bottleneck {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        self.layers.keys().next().map_or(FirstTrainableLayer::Head, |(layer, _)| FirstTrainableLayer::Layer(*layer))
    }

    fn has_sublayer_hook(&self, layer: usize, part: Sublayer) -> bool {
        self.layers.contains_key(&(layer, part))
    }

    fn on_sublayer_output(&self, tape: &mut Tape, context: &SublayerContext, output: Var) -> Result<Var> {
        let Some(layer) = self.layers.get(&(context.layer, context.sublayer)) else { return Ok(output) };
        let input = match (self.placement, context.norm) {
            (Placement::Houlsby, _) => output,
            (Placement::Parallel, _) => context.residual,
            (Placement::Pfeiffer, Some(norm)) => tape.norm(output, Some(context.residual), norm)?,
            (Placement::Pfeiffer, None) => {
                let copy = tape.copy(output)?;
                tape.add_rows_scaled(copy, context.residual, 1.0)?
            }
        };
        let dropout_stream = Module::ALL.len() as u64 + 2 * context.layer as u64 + context.sublayer as u64;
        let input = tape.dropout(input, self.dropout, dropout_stream << 32)?;
        let down_output = tape.dense(input, layer.down_projection.0, layer.down_projection.1)?;
        let activated = tape.activate(self.activation, down_output)?;
        let up_output = tape.dense(activated, layer.up_projection.0, layer.up_projection.1)?;
        Ok(tape.add_rows_scaled(output, up_output, self.scaling)?)
    }
}
