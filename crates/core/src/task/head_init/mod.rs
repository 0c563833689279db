//! Initialisation of a trained head: a linear probe of the frozen features, fitted before the first step.
//!
//! Logistic regression (least squares for values) with an L2 penalty on whitened features. Whitening makes the penalty equal in
//! all directions, and a few dozen L-BFGS iterations suffice. The penalty and a temperature are chosen on a held-out half of the
//! features, so training starts from a calibrated probe. The result depends on the input and the kernel set alone: one thread
//! computes it in a fixed order.

pub mod dense_init;
mod lbfgs;
mod whitening;

use super::calibration;
use super::row_targets::{self, RowTargets};
use crate::error::Result;
use espalier_tensor::{Backend, Buffer, Tensor};
use whitening::Whitening;

/// Rows with their targets.
pub struct Features<'a> {
    /// `(rows, width)`, row-major.
    pub values: &'a [f32],
    pub width: usize,
    pub targets: &'a RowTargets,
    /// Stratum of each row, within which the covariance is measured: its class, where it has one.
    strata: Vec<u32>,
    stratum_count: usize,
}

/// Linear head: `weight` is `(outputs, width)`, `bias` is `(outputs)`.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearProbe {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// Candidates for the L2 penalty: the objective is the mean loss plus half the penalty times the squared weights.
const PENALTIES: [f64; 4] = [1e-3, 3e-3, 1e-2, 3e-2];
/// Penalty where there are too few rows to hold any out.
const DEFAULT_PENALTY: f64 = 1e-2;
/// Label smoothing of the temperature in that case: a fully confident head has no gradient.
const LABEL_SMOOTHING: f64 = 0.05;
/// L-BFGS iterations of the final fit, and of the fits that choose the penalty.
const FINAL_ITERATIONS: usize = 40;
const TRIAL_ITERATIONS: usize = 20;
/// With more classes there are fewer iterations, so that the fit costs less than the features.
const FULL_ITERATION_CLASSES: usize = 1000;
/// Rows per block of a computation.
const BLOCK_ROWS: usize = 512;

/// Fits a linear probe. Every class must have a row.
///
/// # Errors
/// `Internal` where the device fails.
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
    tracing::debug!(penalty, temperature, "head initialisation chosen");
    Ok(full_problem.fit(penalty, FINAL_ITERATIONS)?.divided_by_temperature(temperature))
}

/// Holds out every second row of each stratum; the only row of a stratum is never held out.
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
    pub fn new(values: &'a [f32], width: usize, targets: &'a RowTargets) -> Self {
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

    /// Temperature with the smallest loss on these rows, and that loss. Only classes have a temperature other than 1.
    fn calibrate(&self, features: &Features, indices: &[usize], label_smoothing: f64) -> (f32, f64) {
        let outputs: Vec<f32> = indices.iter().flat_map(|index| self.logits(features.example_row(*index))).collect();
        let rows = indices.len() as f64;
        match features.targets.select(indices) {
            RowTargets::Classes { classes, class_count: count, .. } => {
                let temperature = calibration::fit_temperature(&outputs, count, &classes, label_smoothing);
                (
                    temperature,
                    calibration::smoothed_cross_entropy(&outputs, count, &classes, temperature, label_smoothing),
                )
            }
            RowTargets::LabelSets { sets, label_count, weights } => {
                (1.0, row_targets::label_set_loss(&outputs, &sets, label_count, &weights).0 / rows)
            }
            RowTargets::Values { values, scale } => {
                (1.0, row_targets::squared_error(&outputs, &values, scale).0 / rows)
            }
        }
    }

    fn divided_by_temperature(mut self, temperature: f32) -> Self {
        self.weight.iter_mut().chain(&mut self.bias).for_each(|value| *value /= temperature);
        self
    }
}

/// Fit of a probe to some rows, which are whitened.
struct ProbeProblem<'a> {
    kernels: &'a dyn Backend,
    whitening: Whitening,
    blocks: Vec<(Buffer, RowTargets)>,
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
        if self.blocks.first().is_some_and(|(_, targets)| targets.is_shift_invariant()) {
            center_classes(&mut fit.weight, self.width);
            center_classes(&mut fit.bias, 1);
        }
        Ok(fit)
    }

    /// Mean loss with the penalty, and its gradient with respect to the weight, then to the bias.
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
            let (block_loss, output_gradient) = targets.loss(self.kernels, &outputs)?;
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

/// Subtracts the mean over the classes, which does not change the probabilities, for better `f32` precision.
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
    use crate::task::label_weights::LabelWeights;
    use espalier_tensor::backend::cpu::CpuBackend;
    use espalier_tensor::seeded_rng::SeededRng;

    /// Three Gaussian classes; the second half of the columns is noise with a scale of its own.
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
        let targets =
            RowTargets::Classes { classes: classes[..120].to_vec(), class_count: 3, weights: LabelWeights::default() };
        let features = Features::new(seen, 8, &targets);
        let fit = fit_probe(&features, &CpuBackend::detect()).unwrap();
        assert!(correct_count(&fit, seen, &classes[..120]) >= 114, "at least 95 % of the training rows");
        assert!(correct_count(&fit, unseen, &classes[120..]) >= 110, "hardly fewer of the other rows");
    }

    #[test]
    fn one_or_two_examples_per_class_suffice_without_full_confidence() {
        for per_class in [1, 2] {
            let (values, classes) = gaussian_clusters(per_class, 1.0);
            let targets =
                RowTargets::Classes { classes: classes.clone(), class_count: 3, weights: LabelWeights::default() };
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
        let label_sets = RowTargets::LabelSets { sets, label_count: 2, weights: LabelWeights::default() };
        let fitted = fit_probe(&Features::new(&values, 8, &label_sets), &CpuBackend::detect()).unwrap();
        let right = values.chunks_exact(8).zip(&classes).filter(|(row, class)| {
            let logits = fitted.logits(row);
            (logits[0] > 0.0, logits[1] > 0.0) == (**class != 1, **class != 0)
        });
        assert!(right.count() >= 220, "of 240");
        let expected: Vec<f32> = classes.iter().map(|class| *class as f32 * 10.0).collect();
        let scale = crate::task::Scale::standardize(expected.iter().copied());
        let value_targets = RowTargets::Values { values: expected.clone(), scale };
        let fitted = fit_probe(&Features::new(&values, 8, &value_targets), &CpuBackend::detect()).unwrap();
        let predicted: Vec<f32> = values.chunks_exact(8).map(|row| scale.denormalize(fitted.logits(row)[0])).collect();
        let metrics = crate::task::regression::RegressionMetrics::new(&predicted, &expected);
        assert!(metrics.r2 > 0.8, "{metrics:?}");
    }
}
