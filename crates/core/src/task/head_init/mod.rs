//! The head's start: a linear probe of the frozen features, fitted before the first step.
//!
//! Logistic regression (of values: least squares) with an L2 penalty on features that are whitened first: there the penalty means the
//! same in every direction, and some tens of L-BFGS iterations are enough. The penalty and a temperature are chosen on a
//! held-out half of the same features, so training starts from a calibrated probe. One thread, fixed order: a function of
//! its input and the kernel set. Knows nothing of texts or of the base.

pub mod dense_init;
mod lbfgs;
mod whitening;

use super::calibration;
use super::targets::Targets;
use crate::error::Result;
use espalier_tensor::{Backend, Buffer, Tensor};
use whitening::Whitening;

/// Pooled rows with what they teach.
pub struct Features<'a> {
    /// `(examples, width)`, row-major
    pub values: &'a [f32],
    pub width: usize,
    pub targets: &'a Targets,
    /// The group of each example, within which the spread is measured: its class, where it has one.
    strata: Vec<u32>,
    stratum_count: usize,
}

/// A head: `weight` is `(classes, width)`, `bias` `(classes)`.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearProbe {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// Half the penalty on a squared weight, beside the mean loss.
const PENALTIES: [f64; 4] = [1e-3, 3e-3, 1e-2, 3e-2];
/// Where there is nothing to hold out, nothing speaks against a strong one.
const DEFAULT_PENALTY: f64 = 1e-2;
/// Then the start must leave training something to say: a head that is certain has no gradient.
const LABEL_SMOOTHING: f64 = 0.05;
/// Iterations of a fit, and of one that only chooses.
const FINAL_ITERATIONS: usize = 40;
const TRIAL_ITERATIONS: usize = 20;
/// Beyond so many classes there are fewer iterations: a start may not cost more than the features did.
const FULL_ITERATION_CLASSES: usize = 1000;
/// Rows that are worked on at once.
const BLOCK_ROWS: usize = 512;

/// Fits a head; every class must have an example.
///
/// # Errors
/// What the device reports.
pub fn fit_probe(features: &Features, kernels: &dyn Backend) -> Result<LinearProbe> {
    let (fit_indices, held_out) = split_halves(features);
    let all_indices: Vec<usize> = (0..features.targets.len()).collect();
    let full_problem = ProbeProblem::new(features, &all_indices, kernels)?;
    if held_out.is_empty() {
        let fit = full_problem.fit(DEFAULT_PENALTY, FINAL_ITERATIONS)?;
        let temperature = fit.calibrate(features, &all_indices, LABEL_SMOOTHING).0;
        return Ok(fit.divided_by_temperature(temperature));
    }
    let half_problem = ProbeProblem::new(features, &fit_indices, kernels)?;
    let mut best = (f64::INFINITY, DEFAULT_PENALTY, 1.0);
    for penalty in PENALTIES {
        let (temperature, loss) = half_problem.fit(penalty, TRIAL_ITERATIONS)?.calibrate(features, &held_out, 0.0);
        if loss < best.0 {
            best = (loss, penalty, temperature);
        }
    }
    let (_, penalty, temperature) = best;
    tracing::debug!(penalty, temperature, "the head's start is chosen");
    Ok(full_problem.fit(penalty, FINAL_ITERATIONS)?.divided_by_temperature(temperature))
}

/// Every second example of each class, or of all where there are none, is held out; a class with one example is not.
fn split_halves(features: &Features) -> (Vec<usize>, Vec<usize>) {
    let mut seen_per_stratum = vec![0usize; features.stratum_count];
    let all_indices = 0..features.strata.len();
    all_indices.partition(|index| {
        let stratum = features.strata[*index] as usize;
        seen_per_stratum[stratum] += 1;
        seen_per_stratum[stratum] % 2 == 1
    })
}

impl<'a> Features<'a> {
    pub fn new(values: &'a [f32], width: usize, targets: &'a Targets) -> Self {
        let (strata, groups) = targets.strata();
        Self { values, width, targets, strata, stratum_count: groups }
    }

    fn example_row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }
}

impl LinearProbe {
    fn logits(&self, row: &[f32]) -> Vec<f32> {
        let weights = self.weight.chunks_exact(row.len());
        let dot = |weight: &[f32]| weight.iter().zip(row).map(|(weight, value)| weight * value).sum::<f32>();
        weights.zip(&self.bias).map(|(weight, bias)| dot(weight) + bias).collect()
    }

    /// The temperature with which it judges these examples best, and the loss that is left; only classes have one.
    fn calibrate(&self, features: &Features, indices: &[usize], label_smoothing: f64) -> (f32, f64) {
        let outputs: Vec<f32> = indices.iter().flat_map(|index| self.logits(features.example_row(*index))).collect();
        match features.targets.select(indices) {
            Targets::Classes { classes, class_count: count } => {
                let temperature = calibration::fit_temperature(&outputs, count, &classes, label_smoothing);
                (
                    temperature,
                    calibration::smoothed_cross_entropy(&outputs, count, &classes, temperature, label_smoothing),
                )
            }
            others => (1.0, others.loss_on_host(&outputs).0 / indices.len() as f64),
        }
    }

    fn divided_by_temperature(mut self, temperature: f32) -> Self {
        self.weight.iter_mut().chain(&mut self.bias).for_each(|value| *value /= temperature);
        self
    }
}

/// Some examples, whitened.
struct ProbeProblem<'a> {
    kernels: &'a dyn Backend,
    whitening: Whitening,
    blocks: Vec<(Buffer, Targets)>,
    examples: usize,
    output_width: usize,
    width: usize,
}

impl<'a> ProbeProblem<'a> {
    fn new(features: &Features, indices: &[usize], kernels: &'a dyn Backend) -> Result<Self> {
        let whitening = Whitening::fit(features, indices, kernels)?;
        let rows = whitening.transform(features, indices, kernels)?;
        let blocks =
            rows.into_iter().zip(indices.chunks(BLOCK_ROWS).map(|some| features.targets.select(some))).collect();
        let (examples, outputs, width) = (indices.len(), features.targets.output_width(), features.width);
        Ok(Self { kernels, blocks, examples, output_width: outputs, width, whitening })
    }

    fn fit(&self, penalty: f64, iterations: usize) -> Result<LinearProbe> {
        let iterations = (iterations * FULL_ITERATION_CLASSES / self.output_width.max(FULL_ITERATION_CLASSES)).max(5);
        let initial = vec![0.0; self.output_width * (self.width + 1)];
        let head = lbfgs::minimize(initial, iterations, |head| self.loss(head, penalty))?;
        let (weight, bias) = head.split_at(self.output_width * self.width);
        let mut fit = self.whitening.unwhiten(weight, bias);
        if let Some((_, Targets::Classes { .. })) = self.blocks.first() {
            center_classes(&mut fit.weight, self.width);
            center_classes(&mut fit.bias, 1);
        }
        Ok(fit)
    }

    /// The mean loss with the penalty, and its gradient: by the weight, then by the bias.
    fn loss(&self, head: &[f32], penalty: f64) -> Result<(f64, Vec<f32>)> {
        let (weight, bias) = head.split_at(self.output_width * self.width);
        let tensors = [
            Tensor::new([self.output_width, self.width], weight.to_vec()),
            Tensor::new([self.output_width], bias.to_vec()),
        ];
        let parameters = self.kernels.upload_parameters(&tensors)?;
        let (mut loss, mut gradient) = (0.0, vec![0.0f64; head.len()]);
        for (rows, targets) in &self.blocks {
            let outputs = self.kernels.dense(rows, &parameters[0], &parameters[1])?;
            let (block_loss, output_gradient) = targets.loss_on_device(self.kernels, &outputs)?;
            let parameter_gradient = self.kernels.dense_backward_parameters(&output_gradient, rows)?;
            loss += block_loss;
            let (weight, bias) = (
                self.kernels.download(&parameter_gradient.weight)?.values,
                self.kernels.download(&parameter_gradient.bias)?.values,
            );
            let block_gradient = weight.iter().chain(&bias);
            gradient.iter_mut().zip(block_gradient).for_each(|(sum, part)| *sum += f64::from(*part));
        }
        let squared_norm: f64 = weight.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
        let examples = self.examples as f64;
        let penalties = weight.iter().map(|value| penalty * f64::from(*value)).chain(std::iter::repeat(0.0));
        let gradient = gradient.iter().zip(penalties).map(|(sum, penalty)| (sum / examples + penalty) as f32);
        Ok((loss / examples + penalty / 2.0 * squared_norm, gradient.collect()))
    }
}

/// Takes the classes' mean away: what all logits share changes no probability, and costs `f32` its digits.
fn center_classes(rows: &mut [f32], width: usize) {
    let classes = (rows.len() / width) as f64;
    for column in 0..width {
        let total: f64 = rows.iter().skip(column).step_by(width).map(|value| f64::from(*value)).sum();
        rows.iter_mut().skip(column).step_by(width).for_each(|value| *value -= (total / classes) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_tensor::backend::cpu::CpuBackend;
    use espalier_tensor::seeded_rng::SeededRng;

    /// Three classes around three corners; the second half of the width may be louder, and says nothing.
    fn gaussian_clusters(per_class: usize, noise: f32) -> (Vec<f32>, Vec<u32>) {
        let mut random = SeededRng::new(1, &["clouds"]);
        let (mut values, mut classes) = (Vec::new(), Vec::new());
        for index in 0..per_class * 3 {
            let class = index % 3;
            classes.push(class as u32);
            values.extend((0..8).map(|place| match place {
                4.. => random.standard_normal() * noise,
                _ => random.standard_normal() + if place == class { 4.0 } else { 0.0 },
            }));
        }
        (values, classes)
    }

    fn correct_count(fit: &LinearProbe, values: &[f32], classes: &[u32]) -> usize {
        let best = |row: &[f32]| {
            let logits = fit.logits(row);
            (0..3).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32
        };
        values.chunks_exact(8).zip(classes).filter(|(row, class)| best(row) == **class).count()
    }

    #[test]
    fn separable_classes_are_classified_on_unseen_rows() {
        let (values, classes) = gaussian_clusters(80, 20.0);
        let (seen, unseen) = values.split_at(120 * 8);
        let targets = Targets::Classes { classes: classes[..120].to_vec(), class_count: 3 };
        let features = Features::new(seen, 8, &targets);
        let fit = fit_probe(&features, &CpuBackend::detect()).unwrap();
        assert!(correct_count(&fit, seen, &classes[..120]) >= 114, "at least 95 % of what was seen");
        assert!(correct_count(&fit, unseen, &classes[120..]) >= 110, "and hardly less of what was not");
    }

    #[test]
    fn one_or_two_examples_per_class_suffice_without_full_confidence() {
        for per_class in [1, 2] {
            let (values, classes) = gaussian_clusters(per_class, 1.0);
            let targets = Targets::Classes { classes: classes.clone(), class_count: 3 };
            let features = Features::new(&values, 8, &targets);
            let fit = fit_probe(&features, &CpuBackend::detect()).unwrap();
            for (index, class) in classes.iter().enumerate() {
                let probabilities = calibration::softmax(&fit.logits(features.example_row(index)), 1.0);
                let right = probabilities[*class as usize];
                assert!((0.5..0.999).contains(&right), "{per_class} of each: {right} for the right class");
            }
        }
    }

    #[test]
    fn label_sets_and_values_are_fitted_from_the_same_rows() {
        let (values, classes) = gaussian_clusters(80, 20.0);
        let sets = classes.iter().map(|class| if *class == 2 { vec![0, 1] } else { vec![*class] }).collect();
        let label_sets = Targets::LabelSets { sets, label_count: 2 };
        let fitted = fit_probe(&Features::new(&values, 8, &label_sets), &CpuBackend::detect()).unwrap();
        let right = values.chunks_exact(8).zip(&classes).filter(|(row, class)| {
            let logits = fitted.logits(row);
            (logits[0] > 0.0, logits[1] > 0.0) == (**class != 1, **class != 0)
        });
        assert!(right.count() >= 220, "of 240");
        let expected: Vec<f32> = classes.iter().map(|class| *class as f32 * 10.0).collect();
        let all_indices: Vec<usize> = (0..expected.len()).collect();
        let scale = crate::task::targets::Scale::IDENTITY;
        let value_targets = Targets::Values { values: expected.clone(), scale }.with_fitted_scale(&all_indices);
        let Targets::Values { scale, .. } = value_targets else { unreachable!() };
        let fitted = fit_probe(&Features::new(&values, 8, &value_targets), &CpuBackend::detect()).unwrap();
        let predicted: Vec<f32> = values.chunks_exact(8).map(|row| scale.denormalize(fitted.logits(row)[0])).collect();
        let metrics = crate::task::metrics::regression::compute(&predicted, &expected);
        assert!(metrics.r2 > 0.8, "{metrics:?}");
    }
}
