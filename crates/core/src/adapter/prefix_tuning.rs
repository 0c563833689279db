//! Prefix tuning: keys and values in front of every sequence's own, in every layer (Li & Liang 2021). They start from those
//! that the base makes of real tokens, or are made by a small network while they are trained (the paper's
//! reparametrisation).

use super::targets::{self, Layers, MethodValidator};
use super::virtual_tokens::{self, PromptEncoder, add_linear};
use super::{BuildContext, TensorSet, prompt_tuning};
use crate::adapter::ParameterBuilder;
use crate::error::{Error, Result};
use crate::model::hooks::PrefixKeyValues;
use crate::model::{
    BaseModel, Batch, FirstTrainableLayer, Hooks, Module, RequiredRows, Site, SiteInfo, Tokens, VirtualTokens,
};
use espalier_tensor::backend::Activation;
use espalier_tensor::backend::PrependedRows;
use espalier_tensor::{ParamId, Recording, Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PrefixTuning)]
pub struct Config {
    pub num_virtual_tokens: usize,
    /// Real tokens, whose keys and values the prefix starts from; of no effect with a `projection_hidden_size`.
    pub init: prompt_tuning::VirtualTokenInit,
    /// Width of the network that makes the prefix while it is trained; none where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection_hidden_size: Option<usize>,
    pub layers: Layers,
    /// Of the rows that the head reads, in training alone.
    pub dropout: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            num_virtual_tokens: virtual_tokens::DEFAULT_NUM_VIRTUAL_TOKENS,
            init: prompt_tuning::VirtualTokenInit::default(),
            projection_hidden_size: None,
            layers: Layers::default(),
            dropout: 0.0,
        }
    }
}

/// Beyond this the network would cost more than the base.
const MAX_HIDDEN_SIZE: usize = 8192;

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo], max_tokens: usize) -> Result<Self> {
        let mut validator = MethodValidator::new(sites);
        virtual_tokens::check_count(&mut validator, self.num_virtual_tokens, max_tokens);
        self.init.validate(&mut validator);
        validator.check_layers(self.layers);
        let is_valid_width = self.projection_hidden_size.is_none_or(|width| (1..=MAX_HIDDEN_SIZE).contains(&width));
        let message = format!("projection_hidden_size must be between 1 and {MAX_HIDDEN_SIZE}");
        validator.require(is_valid_width, "projection_hidden_size", message);
        validator.check_dropout(self.dropout);
        validator.finish(|| true)?;
        Ok(self.clone())
    }

    fn layer_indices(&self, sites: &[SiteInfo]) -> Vec<usize> {
        let num_layers = targets::num_layers(sites);
        (0..num_layers).filter(|layer| self.layers.contains(*layer, num_layers)).collect()
    }

    pub fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<PrefixTuning> {
        let (count, layers) = (self.num_virtual_tokens, self.layer_indices(context.sites));
        let source = match (context.tensor_set, self.projection_hidden_size) {
            (TensorSet::Training, Some(width)) => self.build_projected(context, &layers, width, builder),
            _ => self.build_direct(context, &layers, builder)?,
        };
        Ok(PrefixTuning { source, num_virtual_tokens: count })
    }

    fn build_direct(
        &self,
        context: &BuildContext,
        layers: &[usize],
        builder: &mut ParameterBuilder,
    ) -> Result<PrefixSource> {
        let (base, count) = (context.base, self.num_virtual_tokens);
        let mut initial_key_values: Option<BTreeMap<Site, Tensor>> = None;
        let mut key_values = BTreeMap::new();
        for layer in layers {
            let mut add_tensor = |module: Module| {
                let site = Site { layer: Some(*layer), module };
                let init = |seed: u64, _: &str| {
                    let key_values = match &mut initial_key_values {
                        Some(key_values) => key_values,
                        empty => {
                            empty.insert(compute_key_values(base, &self.init.token_ids(base, count, seed, "prefix")?)?)
                        }
                    };
                    key_values.remove(&site).ok_or_else(|| Error::internal("a layer without keys and values"))
                };
                builder.add_with(tensor_name(site), &[count, key_value_width(context.sites, site)], init)
            };
            key_values.insert(*layer, [add_tensor(Module::Key)?, add_tensor(Module::Value)?]);
        }
        Ok(PrefixSource::Direct(key_values))
    }

    fn build_projected(
        &self,
        context: &BuildContext,
        layers: &[usize],
        projection_size: usize,
        builder: &mut ParameterBuilder,
    ) -> PrefixSource {
        let widths = [context.base.info().hidden_size, projection_size];
        let encoder = PromptEncoder::build(self.num_virtual_tokens, &widths, Activation::Tanh, builder);
        let mut add_projection = |layer: usize, module: Module| {
            let site = Site { layer: Some(layer), module };
            add_linear(builder, &tensor_name(site), key_value_width(context.sites, site), projection_size)
        };
        let layer_projections =
            |layer: &usize| (*layer, [add_projection(*layer, Module::Key), add_projection(*layer, Module::Value)]);
        PrefixSource::Projected { encoder, projections: layers.iter().map(layer_projections).collect() }
    }
}

/// The tensor's name: `layer.0.prefix_key`, `layer.0.prefix_value`, each `(virtual tokens, key width)`.
pub fn tensor_name(site: Site) -> String {
    format!("layer.{}.prefix_{}", site.layer.unwrap_or_default(), site.module.name())
}

/// How wide keys, or values, are at their site, which may be a part of a fused one.
pub fn key_value_width(sites: &[SiteInfo], site: Site) -> usize {
    let fused_site = Site { module: Module::QueryKeyValue, ..site };
    let width_at = |info: &SiteInfo| match info.site {
        this if this == site => Some(info.out_features),
        this if this == fused_site => Some(info.out_features / 3),
        _ => None,
    };
    sites.iter().find_map(width_at).unwrap_or(0)
}

/// What the bare base makes of these tokens at every key and value projection.
fn compute_key_values(base: &BaseModel, ids: &[u32]) -> Result<BTreeMap<Site, Tensor>> {
    let tokens = Tokens::from_ids(ids.to_vec());
    let recorder = InitialKeyValues(Mutex::default());
    let mut tape = Tape::new(Arc::clone(base.backend()), Arc::from([]), Recording::Off);
    base.encode(&mut tape, &Batch::new([&tokens], VirtualTokens::Disabled), &recorder, RequiredRows::All)?;
    Ok(recorder.0.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Changes nothing, and keeps what it sees.
struct InitialKeyValues(Mutex<BTreeMap<Site, Tensor>>);

impl Hooks for InitialKeyValues {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        FirstTrainableLayer::Layer(0)
    }

    fn has_output_hook(&self, site: Site) -> bool {
        matches!(site.module, Module::Key | Module::Value | Module::QueryKeyValue)
    }

    fn on_linear_output(&self, tape: &mut Tape, site: Site, _input: Var, output: Var) -> Result<Var> {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match site.module {
            Module::QueryKeyValue => {
                let projection_width = tape.width(output) / 3;
                for (index, module) in [(1, Module::Key), (2, Module::Value)] {
                    let projection =
                        tape.slice_channels(output, index * projection_width..(index + 1) * projection_width)?;
                    recorded.insert(Site { module, ..site }, tape.to_host(projection)?);
                }
            }
            _ => {
                recorded.insert(site, tape.to_host(output)?);
            }
        }
        Ok(output)
    }
}

enum PrefixSource {
    /// Keys and values by layer.
    Direct(BTreeMap<usize, [ParamId; 2]>),
    Projected {
        encoder: PromptEncoder,
        /// By layer, the dense layers that end in keys and in values.
        projections: BTreeMap<usize, [(ParamId, ParamId); 2]>,
    },
}

pub struct PrefixTuning {
    source: PrefixSource,
    num_virtual_tokens: usize,
}

impl PrefixTuning {
    /// Keys and values of a layer, each `(virtual tokens, key width)`.
    pub fn key_value(&self, tape: &mut Tape, layer: usize) -> Result<Option<[Var; 2]>> {
        match &self.source {
            PrefixSource::Direct(key_values) => match key_values.get(&layer) {
                Some([key, value]) => Ok(Some([tape.parameter(*key)?, tape.parameter(*value)?])),
                None => Ok(None),
            },
            PrefixSource::Projected { encoder, projections } => match projections.get(&layer) {
                Some([key, value]) => {
                    let hidden = encoder.forward(tape, true)?;
                    Ok(Some([tape.dense(hidden, key.0, key.1)?, tape.dense(hidden, value.0, value.1)?]))
                }
                None => Ok(None),
            },
        }
    }

    /// The tensors without the network that made them.
    pub fn inference_tensors(&self, tape: &mut Tape) -> Result<BTreeMap<String, Tensor>> {
        let layers: Vec<usize> = match &self.source {
            PrefixSource::Direct(key_values) => key_values.keys().copied().collect(),
            PrefixSource::Projected { projections, .. } => projections.keys().copied().collect(),
        };
        let mut tensors = BTreeMap::new();
        for layer in layers {
            let key_value = self.key_value(tape, layer)?.into_iter().flatten();
            for (module, rows) in [Module::Key, Module::Value].into_iter().zip(key_value) {
                tensors.insert(tensor_name(Site { layer: Some(layer), module }), tape.to_host(rows)?);
            }
        }
        Ok(tensors)
    }
}

impl Hooks for PrefixTuning {
    /// Real tokens are counted on from the prefix, so their embeddings are others.
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        FirstTrainableLayer::Embeddings
    }

    fn virtual_tokens(&self) -> VirtualTokens {
        VirtualTokens::Prefix(self.num_virtual_tokens)
    }

    fn prefix_key_values(
        &self,
        tape: &mut Tape,
        layer: usize,
        sequences: Range<usize>,
    ) -> Result<Vec<PrefixKeyValues>> {
        let prepended = |rows| PrependedRows { sequences: sequences.clone(), rows };
        let key_value = self.key_value(tape, layer)?;
        Ok(key_value
            .map(|[key, value]| PrefixKeyValues { key: prepended(key), value: prepended(value) })
            .into_iter()
            .collect())
    }
}
