//! Bottleneck adapters: a narrow feed-forward network after or beside a sublayer, `x + s·up(f(down(x)))`.
//!
//! `houlsby` (Houlsby et al. 2019) adds one after attention and one after the feed-forward sublayer. `pfeiffer` (Pfeiffer et al.
//! 2020) adds the second only, which reads the normalised sum with the residual. `parallel` (He et al. 2021) adds one beside
//! the feed-forward sublayer. Inputs and residuals are those of AdapterHub's configurations of these names.

use super::method::{Method, TrainingDefaults};
use super::parameter_builder::{BuildContext, ParameterBuilder, TensorInit, TensorMap};
use super::peft::{ModuleNaming, PeftMapping};
use super::target_modules::{Layers, hidden_size, num_layers};
use super::tensor_spec::TensorSpec;
use super::validator::MethodValidator;
use crate::error::Result;
use crate::model::hooks::{Sublayer, SublayerContext};
use crate::model::{BaseModelInfo, FirstTrainableLayer, Hooks, Module, SiteInfo};
use espalier_tensor::backend::Activation;
use espalier_tensor::{ParamId, Tape, Var};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

pub mod adapterhub;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Bottleneck)]
pub struct Config {
    pub placement: Placement,
    /// Hidden size of the base divided by the width of the bottleneck; by default 16, for `parallel` 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduction_factor: Option<f64>,
    /// By default `relu`, for `houlsby` `silu`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Factor of the bottleneck's output; by default 1, for `parallel` 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<f64>,
    /// Dropout rate of the bottleneck's input during training.
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

impl Config {
    fn bottleneck_size(&self, hidden_size: usize) -> usize {
        ((hidden_size as f64 / self.reduction_factor.unwrap_or(1.0)) as usize).max(1)
    }

    fn sublayers(&self) -> &'static [Sublayer] {
        match self.placement {
            Placement::Houlsby => &[Sublayer::Attention, Sublayer::FeedForward],
            Placement::Pfeiffer | Placement::Parallel => &[Sublayer::FeedForward],
        }
    }

    /// Layer and sublayer of every bottleneck.
    fn positions(&self, sites: &[SiteInfo]) -> Vec<(usize, Sublayer)> {
        let layers = self.layers.indices(num_layers(sites));
        layers.flat_map(|layer| self.sublayers().iter().map(move |sublayer| (layer, *sublayer))).collect()
    }

    /// The tensors of one bottleneck, by the end of their names.
    fn tensors(&self, sites: &[SiteInfo]) -> [(BottleneckTensor, Vec<usize>); 4] {
        let hidden_size = hidden_size(sites);
        let bottleneck_size = self.bottleneck_size(hidden_size);
        BottleneckTensor::ALL.map(|tensor| {
            let shape = match tensor {
                BottleneckTensor::DownWeight => vec![bottleneck_size, hidden_size],
                BottleneckTensor::DownBias => vec![bottleneck_size],
                BottleneckTensor::UpWeight => vec![hidden_size, bottleneck_size],
                BottleneckTensor::UpBias => vec![hidden_size],
            };
            (tensor, shape)
        })
    }
}

/// A tensor of one bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BottleneckTensor {
    DownWeight,
    DownBias,
    UpWeight,
    UpBias,
}

impl BottleneckTensor {
    const ALL: [Self; 4] = [Self::DownWeight, Self::DownBias, Self::UpWeight, Self::UpBias];

    fn name(self, layer: usize, sublayer: Sublayer) -> String {
        let suffix = match self {
            Self::DownWeight => "down.weight",
            Self::DownBias => "down.bias",
            Self::UpWeight => "up.weight",
            Self::UpBias => "up.bias",
        };
        let sublayer = match sublayer {
            Sublayer::Attention => "attention",
            Sublayer::FeedForward => "feed_forward",
        };
        format!("layer.{layer}.{sublayer}_adapter.{suffix}")
    }

    fn init(self) -> TensorInit {
        match self {
            Self::DownWeight => TensorInit::LinearDefault,
            Self::DownBias | Self::UpWeight | Self::UpBias => TensorInit::Zeros,
        }
    }
}

impl Method for Config {
    fn resolve(&self, _: &BaseModelInfo, sites: &[SiteInfo]) -> Result<Self> {
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
        validator.finish(|| resolved.layers.indices(num_layers(sites)).next().is_some())?;
        Ok(resolved)
    }

    fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Box<dyn Hooks>> {
        let tensors = self.tensors(context.sites);
        let mut layers = BTreeMap::new();
        for (layer, sublayer) in self.positions(context.sites) {
            let [down_weight, down_bias, up_weight, up_bias] = tensors
                .each_ref()
                .map(|(tensor, shape)| builder.add(tensor.name(layer, sublayer), shape, tensor.init()));
            let (down_projection, up_projection) = ((down_weight, down_bias), (up_weight, up_bias));
            layers.insert((layer, sublayer), BottleneckLayer { down_projection, up_projection });
        }
        Ok(Box::new(Bottleneck {
            layers,
            placement: self.placement,
            activation: self.activation.unwrap_or(Activation::Relu),
            scaling: self.scaling.unwrap_or(1.0),
            dropout: self.dropout,
        }))
    }

    fn num_virtual_tokens(&self) -> usize {
        0
    }

    fn head_dropout(&self) -> f64 {
        0.0
    }

    fn training_defaults(&self) -> TrainingDefaults {
        TrainingDefaults::with_learning_rate(3e-3)
    }

    fn learning_rate_ratio(&self, _: &str) -> f64 {
        1.0
    }

    fn is_identity_at_init(&self) -> bool {
        true
    }

    fn inference_weights(&self, _: &BuildContext, weights: TensorMap) -> Result<TensorMap> {
        Ok(weights)
    }

    fn tensor_specs(&self, sites: &[SiteInfo], _: ModuleNaming) -> Vec<TensorSpec> {
        let tensors = self.tensors(sites);
        let specs = |(layer, sublayer): (usize, Sublayer)| {
            tensors.clone().map(|(tensor, shape)| TensorSpec::with_native_key(tensor.name(layer, sublayer), shape))
        };
        self.positions(sites).into_iter().flat_map(specs).collect()
    }

    fn peft(&self) -> Option<&dyn PeftMapping> {
        None
    }
}

/// Where the adapters are placed in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    Houlsby,
    Pfeiffer,
    Parallel,
}

/// Hooks that add the output of a bottleneck after, or beside, a sublayer.
pub struct Bottleneck {
    pub layers: BTreeMap<(usize, Sublayer), BottleneckLayer>,
    pub placement: Placement,
    pub activation: Activation,
    pub scaling: f64,
    /// Dropout rate of the input.
    pub dropout: f64,
}

/// Trainable projections of one bottleneck.
pub struct BottleneckLayer {
    /// Weight `(bottleneck, hidden)` and bias.
    pub down_projection: (ParamId, ParamId),
    /// Weight `(hidden, bottleneck)` and bias, zero at initialisation.
    pub up_projection: (ParamId, ParamId),
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
