//! AdamW (Loshchilov & Hutter 2017) with gradient clipping and a schedule, as PyTorch computes them.
//!
//! On the host, in a fixed order, so that a resumed run repeats exactly. Knows nothing of what the numbers mean.

use super::hyperparameters::{Resolved, Schedule};
use espalier_tensor::Tensor;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The two moments of every parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    pub first: Vec<Tensor>,
    pub second: Vec<Tensor>,
}

impl Moments {
    pub fn zeros(parameters: &[Tensor]) -> Self {
        let zeros = || parameters.iter().map(|tensor| Tensor::zeros(tensor.shape.clone())).collect();
        Self { first: zeros(), second: zeros() }
    }
}

/// How a parameter is updated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rule {
    /// Vectors are not decayed: biases, and scales, which are at rest at one.
    pub decays: bool,
    /// Its learning rate as a multiple of the run's.
    pub rate: f64,
}

impl Rule {
    pub fn of(parameter: &Tensor, rate: f64) -> Self {
        Self { decays: parameter.shape.len() > 1, rate }
    }
}

/// One update, `step` counted from 1.
pub struct Update {
    pub step: u64,
    pub learning_rate: f64,
    pub weight_decay: f64,
}

impl Update {
    pub fn apply(&self, parameters: &mut [Tensor], rules: &[Rule], gradients: &[Vec<f32>], moments: &mut Moments) {
        for (index, gradient) in gradients.iter().enumerate() {
            let (first, second) = (&mut moments.first[index], &mut moments.second[index]);
            let moments = (first.values.as_mut_slice(), second.values.as_mut_slice());
            self.one(&mut parameters[index].values, gradient, rules[index], moments);
        }
    }

    fn one(&self, parameter: &mut [f32], gradient: &[f32], rule: Rule, (first, second): (&mut [f32], &mut [f32])) {
        let learning_rate = self.learning_rate * rule.rate;
        let decay = if rule.decays { self.weight_decay } else { 0.0 };
        let exponent = i32::try_from(self.step).unwrap_or(i32::MAX);
        let rate = (learning_rate / (1.0 - BETA1.powi(exponent))) as f32;
        let root = (1.0 - BETA2.powi(exponent)).sqrt() as f32;
        let keep = (1.0 - learning_rate * decay) as f32;
        let (beta1, beta2, epsilon) = (BETA1 as f32, BETA2 as f32, EPSILON as f32);
        let (rest1, rest2) = ((1.0 - BETA1) as f32, (1.0 - BETA2) as f32);
        let moments = first.iter_mut().zip(second);
        for ((value, gradient), (first, second)) in parameter.iter_mut().zip(gradient).zip(moments) {
            *first = *first * beta1 + gradient * rest1;
            *second = *second * beta2 + gradient * gradient * rest2;
            *value = *value * keep - rate * *first / (second.sqrt() / root + epsilon);
        }
    }
}

/// Scales the gradients down to `limit` where their joint norm exceeds it, as PyTorch does. Answers the norm before.
pub fn clip(gradients: &mut [Vec<f32>], limit: f64) -> f64 {
    let squares = gradients.iter().flatten().map(|value| f64::from(*value) * f64::from(*value));
    let norm = squares.sum::<f64>().sqrt();
    let factor = limit / (norm + 1e-6);
    if factor < 1.0 {
        gradients.iter_mut().flatten().for_each(|value| *value *= factor as f32);
    }
    norm
}

/// The learning rate of a step counted from 1: a linear warm-up, then constant, linear or cosine to zero.
pub fn learning_rate(step: u64, total: u64, settings: &Resolved) -> f64 {
    let warmup = (settings.warmup_ratio * total as f64).ceil();
    // As in transformers: the first update runs at 1/warmup of the rate, the last one above zero.
    let done = (step - 1) as f64;
    if done < warmup {
        return settings.learning_rate * (done + 1.0) / (warmup + 1.0);
    }
    let left = (total as f64 - done) / (total as f64 - warmup).max(1.0);
    settings.learning_rate
        * match settings.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => left,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * (1.0 - left)).cos()),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_updates_agree_with_pytorch() {
        // torch.optim.AdamW([p], lr=0.1, weight_decay=0.5) with p = [1, −2] and the gradients [0.5, −1], then [1, 0.25].
        let mut parameters = [Tensor::new([2], vec![1.0, -2.0])];
        let mut moments = Moments::zeros(&parameters);
        for (step, gradient) in [[0.5, -1.0], [1.0, 0.25]].into_iter().enumerate() {
            let update = Update { step: step as u64 + 1, learning_rate: 0.1, weight_decay: 0.5 };
            let rule = Rule { decays: true, rate: 1.0 };
            update.apply(&mut parameters, &[rule], &[gradient.to_vec()], &mut moments);
        }
        let expected = [0.710_981_8, -1.663_053_2];
        for (value, expected) in parameters[0].values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
        }
    }

    #[test]
    fn clipping_keeps_the_direction() {
        let mut gradients = [vec![3.0], vec![4.0]];
        assert_eq!(clip(&mut gradients, 1.0), 5.0);
        assert!((gradients[0][0] - 0.6).abs() < 1e-6 && (gradients[1][0] - 0.8).abs() < 1e-6);
    }
}
