//! Named trainable tensors: drawn from a seed, or read back strictly.
//!
//! The same `build` asks for every tensor by name, shape and initialisation, whether the adapter is fresh or restored;
//! [`Parameters::finish`] then fails naming every unknown, missing and misshapen tensor at once.

use crate::error::{Error, Result};
use espalier_tensor::seeded_rng::SeededRng;
use espalier_tensor::{ParamId, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

/// How a fresh tensor is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum TensorInit {
    Zeros,
    Ones,
    /// Everywhere the same.
    Constant(f32),
    /// Uniform in `±1/√(columns)`: `kaiming_uniform_(a=√5)`, as PEFT draws LoRA's A and PyTorch a linear layer.
    LinearDefault,
    /// Uniform in `±√(6/columns)`.
    HeUniform,
    /// Normal with this standard deviation, as transformers draws a classification head.
    Normal(f32),
}

enum TensorSource {
    Seed(u64),
    Weights(BTreeMap<String, Tensor>),
}

/// Collects the tensors of one adapter and its head while they are built.
pub struct ParameterBuilder {
    source: TensorSource,
    names: Vec<String>,
    tensors: Vec<Tensor>,
    frozen: BTreeMap<String, Tensor>,
    errors: Vec<String>,
}

impl ParameterBuilder {
    /// Draws every tensor: a function of the seed and the tensor's name alone.
    pub fn from_seed(seed: u64) -> Self {
        Self::from_source(TensorSource::Seed(seed))
    }

    /// Takes every tensor from `weights`; nothing may be missing, misshapen or left over.
    pub fn from_weights(weights: BTreeMap<String, Tensor>) -> Self {
        Self::from_source(TensorSource::Weights(weights))
    }

    fn from_source(source: TensorSource) -> Self {
        Self { source, names: Vec::new(), tensors: Vec::new(), frozen: BTreeMap::new(), errors: Vec::new() }
    }

    /// One tensor. The returned handle is its place in [`Built::tensors`].
    pub fn add(&mut self, name: String, shape: &[usize], init: TensorInit) -> ParamId {
        let initialize = |seed: u64, name: &str| Ok::<_, Infallible>(initialize(seed, name, shape, init));
        match self.add_with(name, shape, initialize) {
            Ok(param) => param,
            Err(never) => match never {},
        }
    }

    /// One tensor that starts from something of the base's: `start` makes it for a fresh adapter, from seed and name.
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
        assert_eq!(tensor.shape, shape, "{name} starts in its shape");
        let param = ParamId::new(self.tensors.len());
        self.names.push(name);
        self.tensors.push(tensor);
        Ok(param)
    }

    /// A tensor that travels with the adapter but is not trained: a function of `seed`, uniform as PEFT draws VeRA's
    /// projections.
    pub fn add_frozen(&mut self, name: &str, shape: &[usize; 2], seed: u64) -> Tensor {
        let tensor = match self.source {
            TensorSource::Seed(_) => initialize(seed, name, shape, TensorInit::HeUniform),
            TensorSource::Weights(_) => self.take_weight(name, shape),
        };
        self.frozen.insert(name.to_string(), tensor.clone());
        tensor
    }

    /// A tensor that is read back; zeros, and a fault, where it is missing or misshapen.
    fn take_weight(&mut self, name: &str, shape: &[usize]) -> Tensor {
        let TensorSource::Weights(weights) = &mut self.source else { return Tensor::zeros(shape) };
        match weights.remove(name) {
            Some(tensor) if tensor.shape == shape => return tensor,
            Some(tensor) => self.errors.push(format!("{name} has the shape {:?}, expected {shape:?}", tensor.shape)),
            None => self.errors.push(format!("{name} {shape:?} is missing")),
        }
        Tensor::zeros(shape)
    }

    /// Weight `(output, input)` and bias `(output)` of a trainable dense layer, `{name}.weight` and `{name}.bias`.
    pub fn add_dense(&mut self, name: &str, out_features: usize, in_features: usize) -> (ParamId, ParamId) {
        let weight = self.add(format!("{name}.weight"), &[out_features, in_features], TensorInit::Normal(0.02));
        (weight, self.add(format!("{name}.bias"), &[out_features], TensorInit::Zeros))
    }

    /// The names and tensors in the order in which they were asked for.
    ///
    /// # Errors
    /// `Invalid` (`adapter_tensors`) that names every unknown, missing and misshapen tensor.
    pub fn build(mut self) -> Result<ParameterSet> {
        if let TensorSource::Weights(unused) = &self.source {
            self.errors.extend(unused.keys().map(|name| format!("{name} is not a tensor of this adapter")));
        }
        let unique: BTreeSet<&String> = self.names.iter().collect();
        assert_eq!(unique.len(), self.names.len(), "every tensor is asked for once");
        match self.errors.is_empty() {
            true => Ok(ParameterSet { names: self.names, tensors: self.tensors, frozen_tensors: self.frozen }),
            false => Err(Error::invalid(
                "adapter_tensors",
                format!("the adapter's tensors do not fit: {}", self.errors.join("; ")),
            )),
        }
    }
}

/// The tensors of one adapter and its head, by their [`Param`].
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSet {
    pub names: Vec<String>,
    pub tensors: Vec<Tensor>,
    /// What is not trained.
    pub frozen_tensors: BTreeMap<String, Tensor>,
}

impl ParameterSet {
    pub fn into_weights(self) -> BTreeMap<String, Tensor> {
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
