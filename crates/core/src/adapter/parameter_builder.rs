//! Named trainable tensors: drawn from a seed, or restored from a file.
//!
//! A method requests each tensor by name, shape and initialisation, for a fresh adapter and for a restored one alike;
//! [`ParameterBuilder::build`] then reports every unknown, missing and misshapen tensor at once.

use super::tensor_spec::shape_mismatch;
use crate::error::{Error, Result};
use crate::model::{BaseModel, SiteInfo};
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::{ParamId, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

/// Tensors by name.
pub type TensorMap = BTreeMap<String, Tensor>;

/// Initialisation of a fresh tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TensorInit {
    Zeros,
    Ones,
    /// The same value everywhere.
    Constant(f32),
    /// Uniform in `±1/√(columns)`: `kaiming_uniform_(a=√5)`, PEFT's initialisation of LoRA's A and PyTorch's of a linear layer.
    LinearDefault,
    /// Uniform in `±√(6/columns)`.
    HeUniform,
    /// Normal with this standard deviation.
    Normal(f32),
}

enum TensorSource {
    Seed(u64),
    Weights(TensorMap),
}

/// Collects the tensors of one adapter and its head while they are built.
pub struct ParameterBuilder {
    source: TensorSource,
    names: Vec<String>,
    tensors: Vec<Tensor>,
    frozen: TensorMap,
    errors: Vec<String>,
}

impl ParameterBuilder {
    /// Draws every tensor from the seed and the tensor's name alone.
    pub fn from_seed(seed: u64) -> Self {
        Self::from_source(TensorSource::Seed(seed))
    }

    /// Takes every tensor from `weights`; [`Self::build`] fails if one is missing, misshapen or left over.
    pub fn from_weights(weights: TensorMap) -> Self {
        Self::from_source(TensorSource::Weights(weights))
    }

    fn from_source(source: TensorSource) -> Self {
        Self { source, names: Vec::new(), tensors: Vec::new(), frozen: TensorMap::new(), errors: Vec::new() }
    }

    /// Adds a trainable tensor and returns its index in [`ParameterSet::tensors`].
    pub fn add(&mut self, name: String, shape: &[usize], init: TensorInit) -> ParamId {
        let initialize = |seed: u64, name: &str| Ok::<_, Infallible>(initialize(seed, name, shape, init));
        match self.add_with(name, shape, initialize) {
            Ok(param) => param,
            Err(never) => match never {},
        }
    }

    /// Adds a trainable tensor that `init` computes for a fresh adapter, from the seed and the name.
    pub fn add_with<E>(
        &mut self,
        name: String,
        shape: &[usize],
        init: impl FnOnce(u64, &str) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<ParamId, E> {
        let tensor = match self.source {
            TensorSource::Seed(seed) => init(seed, &name)?,
            TensorSource::Weights(_) => self.take_weight(&name, shape),
        };
        assert_eq!(tensor.shape, shape, "{name} is initialised in its shape");
        let param = ParamId::new(self.tensors.len());
        self.names.push(name);
        self.tensors.push(tensor);
        Ok(param)
    }

    /// Adds a tensor that was read already.
    pub fn add_given(&mut self, name: String, tensor: Tensor) -> ParamId {
        let param = ParamId::new(self.tensors.len());
        self.names.push(name);
        self.tensors.push(tensor);
        param
    }

    /// Adds a tensor that is published with the adapter but not trained, drawn from `seed` uniformly
    /// ([`TensorInit::HeUniform`], as PEFT draws VeRA's projections).
    pub fn add_frozen(&mut self, name: &str, shape: &[usize; 2], seed: u64) -> Tensor {
        let tensor = match self.source {
            TensorSource::Seed(_) => initialize(seed, name, shape, TensorInit::HeUniform),
            TensorSource::Weights(_) => self.take_weight(name, shape),
        };
        self.frozen.insert(name.to_string(), tensor.clone());
        tensor
    }

    /// Takes a tensor out of the weights. If it is missing or misshapen, records the error and returns zeros.
    fn take_weight(&mut self, name: &str, shape: &[usize]) -> Tensor {
        let TensorSource::Weights(weights) = &mut self.source else { return Tensor::zeros(shape) };
        match weights.remove(name) {
            Some(tensor) if tensor.shape == shape => return tensor,
            Some(tensor) => self.errors.push(shape_mismatch(name, &tensor.shape, shape)),
            None => self.errors.push(format!("{name} {shape:?} is missing")),
        }
        Tensor::zeros(shape)
    }

    /// Adds the weight `(output, input)` and the zero bias `(output)` of a linear layer: `{name}.weight`, `{name}.bias`.
    pub fn add_linear(
        &mut self,
        name: &str,
        out_features: usize,
        in_features: usize,
        weight_init: TensorInit,
    ) -> (ParamId, ParamId) {
        let weight = self.add(format!("{name}.weight"), &[out_features, in_features], weight_init);
        (weight, self.add(format!("{name}.bias"), &[out_features], TensorInit::Zeros))
    }

    /// Adds a linear layer of a classification head, initialised as transformers initialises it.
    pub fn add_head_layer(&mut self, name: &str, out_features: usize, in_features: usize) -> (ParamId, ParamId) {
        self.add_linear(name, out_features, in_features, TensorInit::Normal(0.02))
    }

    /// Returns names and tensors in the order of the requests.
    ///
    /// # Errors
    /// `Invalid` (`adapter_tensors`) naming every unknown, missing and misshapen tensor.
    pub fn build(mut self) -> Result<ParameterSet> {
        if let TensorSource::Weights(unused) = &self.source {
            self.errors.extend(unused.keys().map(|name| format!("{name} is not a tensor of this adapter")));
        }
        let unique: BTreeSet<&String> = self.names.iter().collect();
        assert_eq!(unique.len(), self.names.len(), "every tensor is requested once");
        match self.errors.is_empty() {
            true => Ok(ParameterSet { names: self.names, tensors: self.tensors, frozen_tensors: self.frozen }),
            false => Err(Error::invalid(
                "adapter_tensors",
                format!("the adapter's tensors do not fit: {}", self.errors.join("; ")),
            )),
        }
    }
}

/// The tensors of one adapter and its head, indexed by [`ParamId`].
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSet {
    pub names: Vec<String>,
    pub tensors: Vec<Tensor>,
    /// Published tensors that are not trained.
    pub frozen_tensors: TensorMap,
}

impl ParameterSet {
    /// Trainable and frozen tensors by name.
    pub fn into_weights(self) -> TensorMap {
        self.names.into_iter().zip(self.tensors).chain(self.frozen_tensors).collect()
    }
}

fn initialize(seed: u64, name: &str, shape: &[usize], init: TensorInit) -> Tensor {
    let mut random = SeededRng::new(seed, &["init", name]);
    let count: usize = shape.iter().product();
    let values = match init {
        TensorInit::Zeros => vec![0.0; count],
        TensorInit::Ones => vec![1.0; count],
        TensorInit::Constant(value) => vec![value; count],
        TensorInit::LinearDefault | TensorInit::HeUniform => {
            let numerator: f32 = if init == TensorInit::HeUniform { 6.0 } else { 1.0 };
            let bound = (numerator / shape[shape.len() - 1] as f32).sqrt();
            (0..count).map(|_| (random.uniform() * 2.0 - 1.0) * bound).collect()
        }
        TensorInit::Normal(std) => (0..count).map(|_| random.standard_normal() * std).collect(),
    };
    Tensor::new(shape, values)
}

/// Which tensors of an adapter exist. P-tuning and projected prefix tuning train an encoder that is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorSet {
    Training,
    Inference,
}

/// The base model, its sites, and the set of tensors to build.
pub struct BuildContext<'a> {
    pub base: &'a BaseModel,
    /// The sites of the base under the task's pooling.
    pub sites: &'a [SiteInfo],
    pub tensor_set: TensorSet,
}
