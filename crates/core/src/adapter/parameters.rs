//! Named trainable tensors: drawn from a seed, or read back strictly.
//!
//! The same `build` asks for every tensor by name, shape and initialisation, whether the adapter is fresh or restored;
//! [`Parameters::finish`] then fails naming every unknown, missing and misshapen tensor at once.

use crate::error::{Error, Result};
use espalier_tensor::random::Random;
use espalier_tensor::{Param, Tensor};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

/// How a fresh tensor is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    Zeros,
    Ones,
    /// Everywhere the same.
    Constant(f32),
    /// Uniform in `±1/√(columns)`: `kaiming_uniform_(a=√5)`, as PEFT draws LoRA's A and PyTorch a linear layer.
    KaimingUniform,
    /// Uniform in `±√(6/columns)`.
    Uniform,
    /// Normal with this standard deviation, as transformers draws a classification head.
    Normal(f32),
}

enum Source {
    Seed(u64),
    Weights(BTreeMap<String, Tensor>),
}

/// Collects the tensors of one adapter and its head while they are built.
pub struct Parameters {
    source: Source,
    names: Vec<String>,
    tensors: Vec<Tensor>,
    frozen: BTreeMap<String, Tensor>,
    faults: Vec<String>,
}

impl Parameters {
    /// Draws every tensor: a function of the seed and the tensor's name alone.
    pub fn fresh(seed: u64) -> Self {
        Self::from_source(Source::Seed(seed))
    }

    /// Takes every tensor from `weights`; nothing may be missing, misshapen or left over.
    pub fn restore(weights: BTreeMap<String, Tensor>) -> Self {
        Self::from_source(Source::Weights(weights))
    }

    fn from_source(source: Source) -> Self {
        Self { source, names: Vec::new(), tensors: Vec::new(), frozen: BTreeMap::new(), faults: Vec::new() }
    }

    /// One tensor. The returned handle is its place in [`Built::tensors`].
    pub fn tensor(&mut self, name: String, shape: &[usize], init: Init) -> Param {
        let drawn = |seed: u64, name: &str| Ok::<_, Infallible>(draw(seed, name, shape, init));
        match self.tensor_from(name, shape, drawn) {
            Ok(param) => param,
            Err(never) => match never {},
        }
    }

    /// One tensor that starts from something of the base's: `start` makes it for a fresh adapter, from seed and name.
    pub fn tensor_from<E>(
        &mut self,
        name: String,
        shape: &[usize],
        start: impl FnOnce(u64, &str) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Param, E> {
        let tensor = match self.source {
            Source::Seed(seed) => start(seed, &name)?,
            Source::Weights(_) => self.take(&name, shape),
        };
        assert_eq!(tensor.shape, shape, "{name} starts in its shape");
        let param = Param::new(self.tensors.len());
        self.names.push(name);
        self.tensors.push(tensor);
        Ok(param)
    }

    /// A tensor that travels with the adapter but is not trained: a function of `seed`, uniform as PEFT draws VeRA's
    /// projections.
    pub fn frozen(&mut self, name: &str, shape: &[usize; 2], seed: u64) -> Tensor {
        let tensor = match self.source {
            Source::Seed(_) => draw(seed, name, shape, Init::Uniform),
            Source::Weights(_) => self.take(name, shape),
        };
        self.frozen.insert(name.to_string(), tensor.clone());
        tensor
    }

    /// A tensor that is read back; zeros, and a fault, where it is missing or misshapen.
    fn take(&mut self, name: &str, shape: &[usize]) -> Tensor {
        let Source::Weights(weights) = &mut self.source else { return Tensor::zeros(shape) };
        match weights.remove(name) {
            Some(tensor) if tensor.shape == shape => return tensor,
            Some(tensor) => self.faults.push(format!("{name} has the shape {:?}, expected {shape:?}", tensor.shape)),
            None => self.faults.push(format!("{name} {shape:?} is missing")),
        }
        Tensor::zeros(shape)
    }

    /// Weight `(output, input)` and bias `(output)` of a trainable dense layer, `{name}.weight` and `{name}.bias`.
    pub fn dense(&mut self, name: &str, output: usize, input: usize) -> (Param, Param) {
        let weight = self.tensor(format!("{name}.weight"), &[output, input], Init::Normal(0.02));
        (weight, self.tensor(format!("{name}.bias"), &[output], Init::Zeros))
    }

    /// The names and tensors in the order in which they were asked for.
    ///
    /// # Errors
    /// `Invalid` (`adapter_tensors`) that names every unknown, missing and misshapen tensor.
    pub fn finish(mut self) -> Result<Built> {
        if let Source::Weights(left) = &self.source {
            self.faults.extend(left.keys().map(|name| format!("{name} is not a tensor of this adapter")));
        }
        let unique: BTreeSet<&String> = self.names.iter().collect();
        assert_eq!(unique.len(), self.names.len(), "every tensor is asked for once");
        match self.faults.is_empty() {
            true => Ok(Built { names: self.names, tensors: self.tensors, frozen: self.frozen }),
            false => Err(Error::invalid(
                "adapter_tensors",
                format!("the adapter's tensors do not fit: {}", self.faults.join("; ")),
            )),
        }
    }
}

/// The tensors of one adapter and its head, by their [`Param`].
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    pub names: Vec<String>,
    pub tensors: Vec<Tensor>,
    /// What is not trained.
    pub frozen: BTreeMap<String, Tensor>,
}

impl Built {
    pub fn into_weights(self) -> BTreeMap<String, Tensor> {
        self.names.into_iter().zip(self.tensors).chain(self.frozen).collect()
    }
}

fn draw(seed: u64, name: &str, shape: &[usize], init: Init) -> Tensor {
    let mut random = Random::new(seed, &["init", name]);
    let count: usize = shape.iter().product();
    let values = match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Constant(value) => vec![value; count],
        Init::KaimingUniform | Init::Uniform => {
            let spread: f32 = if init == Init::Uniform { 6.0 } else { 1.0 };
            let bound = (spread / shape[shape.len() - 1] as f32).sqrt();
            (0..count).map(|_| (random.uniform() * 2.0 - 1.0) * bound).collect()
        }
        Init::Normal(deviation) => (0..count).map(|_| random.normal() * deviation).collect(),
    };
    Tensor::new(shape, values)
}
