//! Frozen operations out of a checkpoint, by the names of their tensors. Knows no architecture.

use super::adapted::Norm;
use super::weights::Weights;
use crate::error::Result;
use espalier_tensor::kernels::{FrozenLinear, FrozenNorm, FrozenTable, NormForm};
use espalier_tensor::{Kernels, Tensor};
use serde::Deserialize;
use std::sync::Arc;

pub struct Loader<'a> {
    pub weights: &'a mut Weights,
    pub kernels: &'a dyn Kernels,
    form: NormForm,
    epsilon: f64,
    order: Order,
    /// All norms are equally wide.
    bare: Option<Arc<FrozenNorm>>,
}

/// How a checkpoint keeps the weights of linear maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    OutputInput,
    /// As transformers' Conv1D does.
    InputOutput,
}

/// Whether an operation has something to add in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    Own,
    Nothing,
}

impl Bias {
    /// As a config says.
    pub fn of(is_there: bool) -> Self {
        if is_there { Self::Own } else { Self::Nothing }
    }
}

impl<'a> Loader<'a> {
    /// `epsilon` is that of the norms.
    pub fn new(weights: &'a mut Weights, kernels: &'a dyn Kernels, epsilon: f64) -> Self {
        let order = Order::OutputInput;
        Self { weights, kernels, form: NormForm::Layer, epsilon, order, bare: None }
    }

    /// Where norms are by the root of the mean square.
    pub fn root_mean_square(weights: &'a mut Weights, kernels: &'a dyn Kernels, epsilon: f64) -> Self {
        Self { form: NormForm::RootMeanSquare, ..Self::new(weights, kernels, epsilon) }
    }

    /// Where linear maps are kept so.
    pub fn keeping(self, order: Order) -> Self {
        Self { order, ..self }
    }

    pub fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<FrozenTable> {
        let table = self.weights.take_raw(&format!("{name}.weight"), [rows, width])?;
        Ok(self.kernels.hold_table(table)?)
    }

    /// With a bias.
    pub fn linear(&mut self, name: &str, input: usize, output: usize) -> Result<Arc<FrozenLinear>> {
        self.linear_with(name, input, output, Bias::Own)
    }

    pub fn linear_with(&mut self, name: &str, input: usize, output: usize, bias: Bias) -> Result<Arc<FrozenLinear>> {
        let weight = format!("{name}.weight");
        let weight = match self.order {
            Order::OutputInput => self.weights.take_raw(&weight, [output, input])?,
            Order::InputOutput => self.weights.take_raw(&weight, [input, output])?.turned(),
        };
        let bias = match bias {
            Bias::Own => Some(self.weights.take(&format!("{name}.bias"), &[output])?),
            Bias::Nothing => None,
        };
        Ok(self.kernels.hold_linear(weight, bias).map(Arc::new)?)
    }

    /// With a shift.
    pub fn norm(&mut self, name: &str, width: usize) -> Result<Norm> {
        self.norm_with(name, width, Bias::Own)
    }

    pub fn norm_with(&mut self, name: &str, width: usize, bias: Bias) -> Result<Norm> {
        let whole = self.plain_norm(name, width, bias)?;
        let bare = match &self.bare {
            Some(bare) => Arc::clone(bare),
            None => {
                let ones = Tensor::new([width], vec![1.0; width]);
                Arc::new(self.kernels.freeze_norm(self.form, ones, Tensor::zeros([width]), self.epsilon)?)
            }
        };
        self.bare = Some(Arc::clone(&bare));
        Ok(Norm { whole, bare, has_shift: bias == Bias::Own, width })
    }

    /// One that no adapter touches.
    pub fn plain_norm(&mut self, name: &str, width: usize, bias: Bias) -> Result<Arc<FrozenNorm>> {
        let gain = self.weights.take(&format!("{name}.weight"), &[width])?;
        let shift = match bias {
            Bias::Own => self.weights.take(&format!("{name}.bias"), &[width])?,
            Bias::Nothing => Tensor::zeros([width]),
        };
        Ok(self.kernels.freeze_norm(self.form, gain, shift, self.epsilon).map(Arc::new)?)
    }

    /// The pooler, where the checkpoint has one.
    pub fn pooler(&mut self, hidden: usize) -> Result<Option<Arc<FrozenLinear>>> {
        match self.weights.has("pooler.dense.weight") {
            true => Ok(Some(self.linear("pooler.dense", hidden, hidden)?)),
            false => Ok(None),
        }
    }
}

/// The part of a checkpoint's name behind a headed model's prefix, where it begins as one of `starts` does; `None` for
/// heads and buffers.
pub fn behind(name: &str, prefix: &str, starts: &[&str]) -> Option<String> {
    let name = name.strip_prefix(prefix).unwrap_or(name);
    // Checkpoints converted from TensorFlow, and ESM's, call a norm's gain gamma and its shift beta.
    let name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
    let ours = starts.iter().any(|start| name.starts_with(start));
    (ours && !name.ends_with("position_ids")).then_some(name)
}
