//! Hooks of prefix tuning, and the keys and values from which the prefix starts.

use crate::adapter::parameter_builder::TensorMap;
use crate::adapter::soft_prompt::PromptEncoder;
use crate::error::Result;
use crate::model::hooks::PrefixKeyValues;
use crate::model::{BaseModel, Batch, FirstTrainableLayer, Hooks, Module, RequiredRows, Site, Tokens, VirtualTokens};
use espalier_tensor::backend::PrependedRows;
use espalier_tensor::{ParamId, Recording, Tape, Tensor, Var};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Tensor name of a prefix: `layer.0.prefix_key` or `layer.0.prefix_value`, each `(virtual tokens, key width)`.
pub fn tensor_name(site: Site) -> String {
    format!("layer.{}.prefix_{}", site.layer.unwrap_or_default(), site.module.name())
}

/// Runs the bare base on these tokens and returns the keys and values of every layer.
pub fn compute_key_values(base: &BaseModel, ids: &[u32]) -> Result<BTreeMap<Site, Tensor>> {
    let tokens = Tokens::from_ids(ids.to_vec());
    let recorder = InitialKeyValues(Mutex::default());
    let mut tape = Tape::new(Arc::clone(base.backend()), Arc::from([]), Recording::Off);
    base.encode(&mut tape, &Batch::new([&tokens], VirtualTokens::Disabled), &recorder, RequiredRows::All)?;
    Ok(recorder.0.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Records the outputs of the key and value projections without changing them.
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
        if site.module == Module::QueryKeyValue {
            let width = tape.width(output) / 3;
            for (index, module) in [(1, Module::Key), (2, Module::Value)] {
                let projection = tape.slice_channels(output, index * width..(index + 1) * width)?;
                recorded.insert(Site { module, ..site }, tape.to_host(projection)?);
            }
        } else {
            recorded.insert(site, tape.to_host(output)?);
        }
        Ok(output)
    }
}

/// Where keys and values of the prefix come from: trained tensors, or an encoder during training.
pub enum PrefixSource {
    /// Tensors of keys and values, by layer.
    Direct(BTreeMap<usize, [ParamId; 2]>),
    Projected {
        encoder: PromptEncoder,
        /// Weight and bias of the linear layers to keys and to values, by layer.
        projections: BTreeMap<usize, [(ParamId, ParamId); 2]>,
    },
}

/// Hooks that prepend trainable keys and values in every adapted layer.
pub struct PrefixTuning {
    pub source: PrefixSource,
    pub num_virtual_tokens: usize,
}

impl PrefixTuning {
    /// Keys and values of a layer, each `(virtual tokens, key width)`; `None` if the layer has no prefix.
    fn key_value(&self, tape: &mut Tape, layer: usize) -> Result<Option<[Var; 2]>> {
        match &self.source {
            PrefixSource::Direct(key_values) => match key_values.get(&layer) {
                Some([key, value]) => Ok(Some([tape.parameter(*key)?, tape.parameter(*value)?])),
                None => Ok(None),
            },
            PrefixSource::Projected { encoder, projections } => match projections.get(&layer) {
                Some([key, value]) => {
                    let hidden = encoder.forward(tape)?;
                    Ok(Some([tape.dense(hidden, key.0, key.1)?, tape.dense(hidden, value.0, value.1)?]))
                }
                None => Ok(None),
            },
        }
    }

    /// The published tensors: keys and values of every adapted layer, computed by the encoder if there is one.
    pub fn inference_tensors(&self, tape: &mut Tape) -> Result<TensorMap> {
        let layers: Vec<usize> = match &self.source {
            PrefixSource::Direct(key_values) => key_values.keys().copied().collect(),
            PrefixSource::Projected { projections, .. } => projections.keys().copied().collect(),
        };
        let mut tensors = TensorMap::new();
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
    /// The positions of the text start after the prefix, so the embeddings differ from the base's.
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
