//! What the examples of a job teach, as numbers: one class, a set of classes, or a value each.
//!
//! Knows the losses of these and their gradients, and nothing of how outputs come about.

use super::metrics::multi_label::binary;
use super::{Config, Example, Target, head};
use crate::compute::{Buffer, Kernels, Rows, Tape, Tensor};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// By example.
#[derive(Debug, Clone, PartialEq)]
pub enum Targets {
    Classes {
        classes: Vec<u32>,
        count: usize,
    },
    /// Sorted.
    Sets {
        sets: Vec<Vec<u32>>,
        count: usize,
    },
    Values {
        values: Vec<f32>,
        scale: Scale,
    },
}

/// The head learns values with mean 0 and deviation 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    pub mean: f32,
    pub deviation: f32,
}

impl Scale {
    /// That of some values.
    pub fn of(values: impl Iterator<Item = f32> + Clone) -> Self {
        let count = values.clone().count().max(1) as f64;
        let mean = values.clone().map(f64::from).sum::<f64>() / count;
        let variance = values.map(|value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        let deviation = if variance > 0.0 { variance.sqrt() as f32 } else { 1.0 };
        Self { mean: mean as f32, deviation }
    }

    pub fn undo(self, output: f32) -> f32 {
        output * self.deviation + self.mean
    }
}

impl Targets {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example whose label the job does not have.
    pub fn new(task: &Config, labels: &[String], examples: &[&Example]) -> Result<Self> {
        let known: BTreeMap<&str, u32> = labels.iter().map(String::as_str).zip(0..).collect();
        let class = |label: &str, line: u64| {
            known.get(label).copied().ok_or_else(|| {
                let detail = format!("the label \"{label}\" in line {line} is not among the job's labels");
                Error::invalid("unknown_label", detail)
            })
        };
        let other = |example: &Example| {
            let detail = format!("the example in line {} is not one of the task {}", example.line, task.name());
            Error::invalid("unknown_label", detail)
        };
        let count = labels.len();
        Ok(match task {
            Config::SequenceClassification(config) if config.multi_label => {
                let set = |example: &&Example| match &example.target {
                    Target::Labels(labels) => {
                        let mut set: Vec<u32> =
                            labels.iter().map(|label| class(label, example.line)).collect::<Result<_>>()?;
                        set.sort_unstable();
                        set.dedup();
                        Ok(set)
                    }
                    _ => Err(other(example)),
                };
                Self::Sets { sets: examples.iter().map(set).collect::<Result<_>>()?, count }
            }
            Config::SequenceClassification(_) => {
                let one = |example: &&Example| match &example.target {
                    Target::Label(label) => class(label, example.line),
                    _ => Err(other(example)),
                };
                Self::Classes { classes: examples.iter().map(one).collect::<Result<_>>()?, count }
            }
            Config::Regression(_) => {
                let value = |example: &&Example| match example.target {
                    Target::Value(value) => Ok(value as f32),
                    _ => Err(other(example)),
                };
                let values: Vec<f32> = examples.iter().map(value).collect::<Result<_>>()?;
                Self::Values { values, scale: Scale { mean: 0.0, deviation: 1.0 } }
            }
        })
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Classes { classes, .. } => classes.len(),
            Self::Sets { sets, .. } => sets.len(),
            Self::Values { values, .. } => values.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Numbers that the head gives for an example.
    pub fn outputs(&self) -> usize {
        match self {
            Self::Classes { count, .. } | Self::Sets { count, .. } => *count,
            Self::Values { .. } => 1,
        }
    }

    /// Groups that a split keeps in proportion, and their number.
    pub fn strata(&self) -> (Vec<u32>, usize) {
        match self {
            Self::Classes { classes, count } => (classes.clone(), *count),
            Self::Sets { .. } | Self::Values { .. } => (vec![0; self.len()], 1),
        }
    }

    /// Some examples', in this order.
    pub fn pick(&self, indices: &[usize]) -> Self {
        match self {
            Self::Classes { classes, count } => {
                Self::Classes { classes: indices.iter().map(|index| classes[*index]).collect(), count: *count }
            }
            Self::Sets { sets, count } => {
                Self::Sets { sets: indices.iter().map(|index| sets[*index].clone()).collect(), count: *count }
            }
            Self::Values { values, scale } => {
                Self::Values { values: indices.iter().map(|index| values[*index]).collect(), scale: *scale }
            }
        }
    }

    /// Values are measured by the spread of these examples; others are what they are.
    pub fn scaled_by(self, indices: &[usize]) -> Self {
        match self {
            Self::Values { values, .. } => {
                let scale = Scale::of(indices.iter().map(|index| values[*index]));
                Self::Values { values, scale }
            }
            other => other,
        }
    }

    /// The head's tensors, so that they answer in the values' own unit.
    pub fn in_units(&self, mut weights: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let Self::Values { scale, .. } = self else { return weights };
        for (name, shift) in [(head::WEIGHT, 0.0), (head::BIAS, scale.mean)] {
            if let Some(tensor) = weights.get_mut(name) {
                tensor.values.iter_mut().for_each(|value| *value = *value * scale.deviation + shift);
            }
        }
        weights
    }

    /// What [`Self::in_units`] undoes: a published head's tensors, so that they answer as the head learns.
    pub fn in_learned_units(&self, mut weights: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
        let Self::Values { scale, .. } = self else { return weights };
        for (name, shift) in [(head::WEIGHT, 0.0), (head::BIAS, scale.mean)] {
            if let Some(tensor) = weights.get_mut(name) {
                tensor.values.iter_mut().for_each(|value| *value = (*value - shift) / scale.deviation);
            }
        }
        weights
    }

    /// The sum of the examples' losses, and its gradient by the outputs divided by `denominator`: −log softmax, the mean
    /// binary cross entropy over the labels, or half the squared error of the scaled value.
    pub fn loss(&self, tape: &Tape, kernels: &dyn Kernels, outputs: Rows, denominator: f64) -> Result<(f64, Buffer)> {
        let (loss, gradient) = self.loss_on(kernels, &tape.rows(outputs)?)?;
        Ok((loss, kernels.scale(&gradient, 1.0 / denominator)?))
    }

    /// The same of outputs `(examples, outputs)` on a device, without a denominator.
    pub fn loss_on(&self, kernels: &dyn Kernels, outputs: &Buffer) -> Result<(f64, Buffer)> {
        if let Self::Classes { classes, .. } = self {
            let found = kernels.cross_entropy(outputs, classes)?;
            return Ok((found.loss, found.gradient));
        }
        let outputs = kernels.download(outputs)?;
        let (loss, gradient) = self.loss_of(&outputs.values);
        let gradient = gradient.into_iter().map(|value| value as f32).collect();
        Ok((loss, kernels.upload(&Tensor::new(outputs.shape, gradient))?))
    }

    /// The sum of the losses and its gradient, on the host; of classes only what is left of others is asked.
    pub fn loss_of(&self, outputs: &[f32]) -> (f64, Vec<f64>) {
        let outputs = outputs.iter().map(|output| f64::from(*output));
        match self {
            Self::Classes { .. } => unreachable!("the device computes the loss of classes"),
            Self::Sets { sets, count } => {
                let meant =
                    sets.iter().flat_map(|set| (0..*count).map(|label| set.binary_search(&(label as u32)).is_ok()));
                let (mut loss, mut gradient) = (0.0, Vec::with_capacity(sets.len() * count));
                for (logit, meant) in outputs.zip(meant) {
                    loss += binary(logit, meant) / *count as f64;
                    let probability = 1.0 / (1.0 + (-logit).exp());
                    gradient.push((probability - f64::from(u8::from(meant))) / *count as f64);
                }
                (loss, gradient)
            }
            Self::Values { values, scale } => {
                let (mut loss, mut gradient) = (0.0, Vec::with_capacity(values.len()));
                for (output, value) in outputs.zip(values) {
                    let difference = output - f64::from((value - scale.mean) / scale.deviation);
                    loss += difference * difference / 2.0;
                    gradient.push(difference);
                }
                (loss, gradient)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_agree_with_differences() {
        let scale = Scale { mean: 2.0, deviation: 4.0 };
        let all = [
            Targets::Sets { sets: vec![vec![0, 2], vec![], vec![1]], count: 3 },
            Targets::Values { values: vec![3.0, -1.0, 2.0, 0.0, 5.0, 1.0, 2.5, 7.0, 2.0], scale },
        ];
        let outputs = [0.5f32, -2.0, 1.5, 0.0, 3.0, -0.5, 2.0, 0.25, -1.0];
        for targets in all {
            let (_, gradient) = targets.loss_of(&outputs);
            for (index, found) in gradient.iter().enumerate() {
                let moved = |by: f32| {
                    let mut outputs = outputs;
                    outputs[index] += by;
                    targets.loss_of(&outputs).0
                };
                let expected = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((found - expected).abs() < 1e-4, "{targets:?}, {index}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn a_head_answers_in_the_values_own_unit() {
        let values = vec![10.0, 20.0, 60.0];
        let targets = Targets::Values { values, scale: Scale { mean: 0.0, deviation: 1.0 } }.scaled_by(&[0, 1]);
        let Targets::Values { scale, .. } = &targets else { panic!("values stay values") };
        assert_eq!((scale.mean, scale.deviation), (15.0, 5.0));
        let head = [(head::WEIGHT, vec![2.0]), (head::BIAS, vec![0.5])];
        let weights = head.map(|(name, values)| (name.to_string(), Tensor::new([values.len()], values)));
        let weights = targets.in_units(weights.into());
        assert_eq!((weights[head::WEIGHT].values[0], weights[head::BIAS].values[0]), (10.0, 17.5));
        let back = targets.in_learned_units(weights);
        assert_eq!((back[head::WEIGHT].values[0], back[head::BIAS].values[0]), (2.0, 0.5));
        assert_eq!(scale.undo(2.0 * 3.0 + 0.5), 10.0 * 3.0 + 17.5);
    }
}
