//! AdamW (Loshchilov & Hutter 2017) with gradient clipping and learning rate schedules, as in PyTorch. Computed on the host in a fixed
//! order, so that a resumed run is bit-identical.

use super::divergence;
use super::hyperparameters::{ResolvedHyperparameters, Schedule};
use crate::error::Result;
use espalier_tensor::Tensor;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// First and second moments of every parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    pub exp_avg: Vec<Tensor>,
    pub exp_avg_sq: Vec<Tensor>,
}

impl Moments {
    pub fn zeros(parameters: &[Tensor]) -> Self {
        let zeros = || parameters.iter().map(|tensor| Tensor::zeros(tensor.shape.clone())).collect();
        Self { exp_avg: zeros(), exp_avg_sq: zeros() }
    }
}

/// Update settings of a parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParamGroup {
    /// Vectors (biases and scales) have no weight decay.
    pub has_weight_decay: bool,
    /// Factor of the run's learning rate.
    pub lr_scale: f64,
}

impl ParamGroup {
    pub fn new(parameter: &Tensor, lr_scale: f64) -> Self {
        Self { has_weight_decay: parameter.shape.len() > 1, lr_scale }
    }
}

/// One optimizer step, counted from 1.
pub struct AdamWStep {
    pub step: u64,
    pub learning_rate: f64,
    pub weight_decay: f64,
}

impl AdamWStep {
    pub fn apply(
        &self,
        parameters: &mut [Tensor],
        param_groups: &[ParamGroup],
        gradients: &[Vec<f32>],
        moments: &mut Moments,
    ) {
        for (index, gradient) in gradients.iter().enumerate() {
            let (first, second) = (&mut moments.exp_avg[index], &mut moments.exp_avg_sq[index]);
            let moments = (first.values.as_mut_slice(), second.values.as_mut_slice());
            self.update_parameter(&mut parameters[index].values, gradient, param_groups[index], moments);
        }
    }

    fn update_parameter(
        &self,
        parameter: &mut [f32],
        gradient: &[f32],
        param_group: ParamGroup,
        (first, second): (&mut [f32], &mut [f32]),
    ) {
        let learning_rate = self.learning_rate * param_group.lr_scale;
        let decay = if param_group.has_weight_decay { self.weight_decay } else { 0.0 };
        let exponent = i32::try_from(self.step).unwrap_or(i32::MAX);
        let step_size = (learning_rate / (1.0 - BETA1.powi(exponent))) as f32;
        let bias_correction2_sqrt = (1.0 - BETA2.powi(exponent)).sqrt() as f32;
        let decay_factor = (1.0 - learning_rate * decay) as f32;
        let (beta1, beta2, epsilon) = (BETA1 as f32, BETA2 as f32, EPSILON as f32);
        let (one_minus_beta1, one_minus_beta2) = ((1.0 - BETA1) as f32, (1.0 - BETA2) as f32);
        let moments = first.iter_mut().zip(second);
        for ((value, gradient), (first, second)) in parameter.iter_mut().zip(gradient).zip(moments) {
            *first = *first * beta1 + gradient * one_minus_beta1;
            *second = *second * beta2 + gradient * gradient * one_minus_beta2;
            *value = *value * decay_factor - step_size * *first / (second.sqrt() / bias_correction2_sqrt + epsilon);
        }
    }
}

/// Scales the gradients down where their total norm exceeds `max_norm`, as in PyTorch. Returns the norm before scaling.
///
/// # Errors
/// `Invalid` (`training_diverged`) where a gradient is not finite: scaled, it would be NaN, and so would every parameter after it.
pub fn clip_grad_norm(gradients: &mut [Vec<f32>], max_norm: f64) -> Result<f64> {
    let squares = gradients.iter().flatten().map(|value| f64::from(*value) * f64::from(*value));
    let norm = divergence::check_finite_gradient_norm(squares.sum::<f64>().sqrt())?;
    let factor = max_norm / (norm + 1e-6);
    if factor < 1.0 {
        gradients.iter_mut().flatten().for_each(|value| *value *= factor as f32);
    }
    Ok(norm)
}

/// Learning rate of a step, counted from 1: linear warm-up from zero, then constant, linear or cosine decay. Equals
/// `get_{constant,linear,cosine}_schedule_with_warmup` of transformers, whose first warm-up step has a rate of zero. A run of a single
/// step has no warm-up, because it would change nothing.
pub fn learning_rate(step: u64, total_steps: u64, hyperparameters: &ResolvedHyperparameters) -> f64 {
    let warmup_steps = if total_steps > 1 { (hyperparameters.warmup_ratio * total_steps as f64).ceil() } else { 0.0 };
    let completed_steps = (step - 1) as f64;
    if completed_steps < warmup_steps {
        return hyperparameters.learning_rate * completed_steps / warmup_steps;
    }
    let remaining_fraction = (total_steps as f64 - completed_steps) / (total_steps as f64 - warmup_steps).max(1.0);
    hyperparameters.learning_rate
        * match hyperparameters.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => remaining_fraction,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * (1.0 - remaining_fraction)).cos()),
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::hyperparameters::{Precision, PublishedEpoch};

    #[test]
    fn two_updates_agree_with_pytorch() {
        // torch.optim.AdamW([p], lr=0.1, weight_decay=0.5) with p = [1, −2] and the gradients [0.5, −1], then [1, 0.25].
        let mut parameters = [Tensor::new([2], vec![1.0, -2.0])];
        let mut moments = Moments::zeros(&parameters);
        for (step, gradient) in [[0.5, -1.0], [1.0, 0.25]].into_iter().enumerate() {
            let update = AdamWStep { step: step as u64 + 1, learning_rate: 0.1, weight_decay: 0.5 };
            let rule = ParamGroup { has_weight_decay: true, lr_scale: 1.0 };
            update.apply(&mut parameters, &[rule], &[gradient.to_vec()], &mut moments);
        }
        let expected = [0.710_981_8, -1.663_053_2];
        for (value, expected) in parameters[0].values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
        }
    }

    #[test]
    fn gradient_clipping_keeps_the_direction() {
        let mut gradients = [vec![3.0], vec![4.0]];
        assert_eq!(clip_grad_norm(&mut gradients, 1.0).unwrap(), 5.0);
        assert!((gradients[0][0] - 0.6).abs() < 1e-6 && (gradients[1][0] - 0.8).abs() < 1e-6);
    }

    #[test]
    fn a_gradient_that_is_not_finite_is_an_error_and_is_not_scaled() {
        for value in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let mut gradients = [vec![3.0, 1.0], vec![4.0, value]];
            let error = clip_grad_norm(&mut gradients, 1.0).unwrap_err();
            assert_eq!(error.code(), "training_diverged");
            assert_eq!((gradients[0][0], gradients[1][0]), (3.0, 4.0), "a gradient of {value} has scaled the others");
        }
        let mut largest = [vec![f32::MAX; 3]];
        assert!(clip_grad_norm(&mut largest, 1.0).unwrap().is_finite(), "the norm of finite gradients is finite");
    }

    fn rates(schedule: Schedule, warmup_ratio: f64, total_steps: u64) -> Vec<f64> {
        let hyperparameters = ResolvedHyperparameters {
            epochs: 1,
            batch_size: 1,
            learning_rate: 1.0,
            max_length: 8,
            seed: 0,
            weight_decay: 0.0,
            warmup_ratio,
            schedule,
            max_grad_norm: 1.0,
            gradient_accumulation: 1,
            max_steps: None,
            early_stopping: None,
            published_epoch: PublishedEpoch::default(),
            precision: Precision::default(),
        };
        (1..=total_steps).map(|step| learning_rate(step, total_steps, &hyperparameters)).collect()
    }

    #[test]
    fn learning_rates_agree_with_transformers() {
        // get_{constant,linear,cosine}_schedule_with_warmup(optimizer, num_warmup_steps=3, num_training_steps=10) at the steps 0 to 9,
        // with a learning rate of 1. transformers' Trainer rounds warm-up steps up: ceil(0.25 * 10) = 3.
        let warmup = [0.0, 1.0 / 3.0, 2.0 / 3.0];
        let linear = [1.0, 6.0 / 7.0, 5.0 / 7.0, 4.0 / 7.0, 3.0 / 7.0, 2.0 / 7.0, 1.0 / 7.0];
        let cosine = [1.0, 0.950484, 0.811745, 0.611260, 0.388740, 0.188255, 0.049516];
        for (schedule, decay) in
            [(Schedule::Constant, [1.0; 7]), (Schedule::Linear, linear), (Schedule::Cosine, cosine)]
        {
            let found = rates(schedule, 0.25, 10);
            for (found, expected) in found.iter().zip(warmup.iter().chain(&decay)) {
                assert!((found - expected).abs() < 1e-6, "{schedule:?}: {found} is not {expected}");
            }
        }
        assert_eq!(rates(Schedule::Linear, 0.0, 4), [1.0, 0.75, 0.5, 0.25]);
        assert_eq!(rates(Schedule::Linear, 1.0, 4), [0.0, 0.25, 0.5, 0.75]);
    }

    #[test]
    fn a_run_of_one_step_has_no_warmup() {
        assert_eq!(rates(Schedule::Linear, 0.06, 1), [1.0]);
    }
}
