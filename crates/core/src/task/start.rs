//! The head's start: a linear probe of the frozen features, fitted before the first step.
//!
//! Logistic regression (of values: least squares) with an L2 penalty on features that are whitened first: there the penalty means the
//! same in every direction, and some tens of L-BFGS iterations are enough. The penalty and a temperature are chosen on a
//! held-out half of the same features, so training starts from a calibrated probe. One thread, fixed order: a function of
//! its input and the kernel set. Knows nothing of texts or of the base.

pub mod dense;
mod lbfgs;
mod whitening;

use super::calibration;
use super::targets::Targets;
use crate::error::Result;
use espalier_tensor::{Buffer, Kernels, Tensor};
use whitening::Whitening;

/// Pooled rows with what they teach.
pub struct Features<'a> {
    /// `(examples, width)`, row-major
    pub values: &'a [f32],
    pub width: usize,
    pub targets: &'a Targets,
    /// The group of each example, within which the spread is measured: its class, where it has one.
    strata: Vec<u32>,
    groups: usize,
}

/// A head: `weight` is `(classes, width)`, `bias` `(classes)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

/// Half the penalty on a squared weight, beside the mean loss.
const PENALTIES: [f64; 4] = [1e-3, 3e-3, 1e-2, 3e-2];
/// Where there is nothing to hold out, nothing speaks against a strong one.
const CAUTIOUS: f64 = 1e-2;
/// Then the start must leave training something to say: a head that is certain has no gradient.
const DOUBT: f64 = 0.05;
/// Iterations of a fit, and of one that only chooses.
const ITERATIONS: usize = 40;
const TRIAL_ITERATIONS: usize = 20;
/// Beyond so many classes there are fewer iterations: a start may not cost more than the features did.
const MANY_CLASSES: usize = 1000;
/// Rows that are worked on at once.
const BLOCK: usize = 512;

/// Fits a head; every class must have an example.
///
/// # Errors
/// What the device reports.
pub fn fit(features: &Features, kernels: &dyn Kernels) -> Result<Fit> {
    let (first, second) = halves(features);
    let all: Vec<usize> = (0..features.targets.len()).collect();
    let whole = Probe::new(features, &all, kernels)?;
    if second.is_empty() {
        let fit = whole.fit(CAUTIOUS, ITERATIONS)?;
        let temperature = fit.temperature(features, &all, DOUBT).0;
        return Ok(fit.cooled(temperature));
    }
    let half = Probe::new(features, &first, kernels)?;
    let mut best = (f64::INFINITY, CAUTIOUS, 1.0);
    for penalty in PENALTIES {
        let (temperature, loss) = half.fit(penalty, TRIAL_ITERATIONS)?.temperature(features, &second, 0.0);
        if loss < best.0 {
            best = (loss, penalty, temperature);
        }
    }
    let (_, penalty, temperature) = best;
    tracing::debug!(penalty, temperature, "the head's start is chosen");
    Ok(whole.fit(penalty, ITERATIONS)?.cooled(temperature))
}

/// Every second example of each class, or of all where there are none, is held out; a class with one example is not.
fn halves(features: &Features) -> (Vec<usize>, Vec<usize>) {
    let mut seen = vec![0usize; features.groups];
    let all = 0..features.strata.len();
    all.partition(|index| {
        let class = features.strata[*index] as usize;
        seen[class] += 1;
        seen[class] % 2 == 1
    })
}

impl<'a> Features<'a> {
    pub fn new(values: &'a [f32], width: usize, targets: &'a Targets) -> Self {
        let (strata, groups) = targets.strata();
        Self { values, width, targets, strata, groups }
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }
}

impl Fit {
    fn logits(&self, row: &[f32]) -> Vec<f32> {
        let weights = self.weight.chunks_exact(row.len());
        let dot = |weight: &[f32]| weight.iter().zip(row).map(|(weight, value)| weight * value).sum::<f32>();
        weights.zip(&self.bias).map(|(weight, bias)| dot(weight) + bias).collect()
    }

    /// The temperature with which it judges these examples best, and the loss that is left; only classes have one.
    fn temperature(&self, features: &Features, indices: &[usize], doubt: f64) -> (f32, f64) {
        let outputs: Vec<f32> = indices.iter().flat_map(|index| self.logits(features.row(*index))).collect();
        match features.targets.pick(indices) {
            Targets::Classes { classes, count } => {
                let temperature = calibration::fit_temperature(&outputs, count, &classes, doubt);
                (temperature, calibration::smoothed_loss(&outputs, count, &classes, temperature, doubt))
            }
            others => (1.0, others.loss_of(&outputs).0 / indices.len() as f64),
        }
    }

    fn cooled(mut self, temperature: f32) -> Self {
        self.weight.iter_mut().chain(&mut self.bias).for_each(|value| *value /= temperature);
        self
    }
}

/// Some examples, whitened.
struct Probe<'a> {
    kernels: &'a dyn Kernels,
    whitening: Whitening,
    blocks: Vec<(Buffer, Targets)>,
    examples: usize,
    outputs: usize,
    width: usize,
}

impl<'a> Probe<'a> {
    fn new(features: &Features, indices: &[usize], kernels: &'a dyn Kernels) -> Result<Self> {
        let whitening = Whitening::of(features, indices, kernels)?;
        let rows = whitening.apply(features, indices, kernels)?;
        let blocks = rows.into_iter().zip(indices.chunks(BLOCK).map(|some| features.targets.pick(some))).collect();
        let (examples, outputs, width) = (indices.len(), features.targets.outputs(), features.width);
        Ok(Self { kernels, blocks, examples, outputs, width, whitening })
    }

    fn fit(&self, penalty: f64, iterations: usize) -> Result<Fit> {
        let iterations = (iterations * MANY_CLASSES / self.outputs.max(MANY_CLASSES)).max(5);
        let start = vec![0.0; self.outputs * (self.width + 1)];
        let head = lbfgs::minimise(start, iterations, |head| self.loss(head, penalty))?;
        let (weight, bias) = head.split_at(self.outputs * self.width);
        let mut fit = self.whitening.undo(weight, bias);
        if let Some((_, Targets::Classes { .. })) = self.blocks.first() {
            centre(&mut fit.weight, self.width);
            centre(&mut fit.bias, 1);
        }
        Ok(fit)
    }

    /// The mean loss with the penalty, and its gradient: by the weight, then by the bias.
    fn loss(&self, head: &[f32], penalty: f64) -> Result<(f64, Vec<f32>)> {
        let (weight, bias) = head.split_at(self.outputs * self.width);
        let tensors =
            [Tensor::new([self.outputs, self.width], weight.to_vec()), Tensor::new([self.outputs], bias.to_vec())];
        let parameters = self.kernels.parameters(&tensors)?;
        let (mut loss, mut gradient) = (0.0, vec![0.0f64; head.len()]);
        for (rows, targets) in &self.blocks {
            let outputs = self.kernels.dense(rows, &parameters[0], &parameters[1])?;
            let (own, by_outputs) = targets.loss_on(self.kernels, &outputs)?;
            let by = self.kernels.dense_backward_parameters(&by_outputs, rows)?;
            loss += own;
            let (weight, bias) = (self.kernels.download(&by.weight)?.values, self.kernels.download(&by.bias)?.values);
            let parts = weight.iter().chain(&bias);
            gradient.iter_mut().zip(parts).for_each(|(sum, part)| *sum += f64::from(*part));
        }
        let squares: f64 = weight.iter().map(|value| f64::from(*value) * f64::from(*value)).sum();
        let examples = self.examples as f64;
        let penalties = weight.iter().map(|value| penalty * f64::from(*value)).chain(std::iter::repeat(0.0));
        let gradient = gradient.iter().zip(penalties).map(|(sum, penalty)| (sum / examples + penalty) as f32);
        Ok((loss / examples + penalty / 2.0 * squares, gradient.collect()))
    }
}

/// Takes the classes' mean away: what all logits share changes no probability, and costs `f32` its digits.
fn centre(rows: &mut [f32], width: usize) {
    let classes = (rows.len() / width) as f64;
    for column in 0..width {
        let total: f64 = rows.iter().skip(column).step_by(width).map(|value| f64::from(*value)).sum();
        rows.iter_mut().skip(column).step_by(width).for_each(|value| *value -= (total / classes) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_tensor::cpu::Cpu;
    use espalier_tensor::random::Random;

    /// Three classes around three corners; the second half of the width may be louder, and says nothing.
    fn clouds(per_class: usize, noise: f32) -> (Vec<f32>, Vec<u32>) {
        let mut random = Random::new(1, &["clouds"]);
        let (mut values, mut classes) = (Vec::new(), Vec::new());
        for index in 0..per_class * 3 {
            let class = index % 3;
            classes.push(class as u32);
            values.extend((0..8).map(|place| match place {
                4.. => random.normal() * noise,
                _ => random.normal() + if place == class { 4.0 } else { 0.0 },
            }));
        }
        (values, classes)
    }

    fn right(fit: &Fit, values: &[f32], classes: &[u32]) -> usize {
        let best = |row: &[f32]| {
            let logits = fit.logits(row);
            (0..3).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32
        };
        values.chunks_exact(8).zip(classes).filter(|(row, class)| best(row) == **class).count()
    }

    #[test]
    fn separable_classes_are_told_apart_on_rows_that_were_not_seen() {
        let (values, classes) = clouds(80, 20.0);
        let (seen, unseen) = values.split_at(120 * 8);
        let targets = Targets::Classes { classes: classes[..120].to_vec(), count: 3 };
        let features = Features::new(seen, 8, &targets);
        let fit = fit(&features, &Cpu::best()).unwrap();
        assert!(right(&fit, seen, &classes[..120]) >= 114, "at least 95 % of what was seen");
        assert!(right(&fit, unseen, &classes[120..]) >= 110, "and hardly less of what was not");
    }

    #[test]
    fn one_or_two_examples_of_each_class_are_enough_and_leave_doubt() {
        for per_class in [1, 2] {
            let (values, classes) = clouds(per_class, 1.0);
            let targets = Targets::Classes { classes: classes.clone(), count: 3 };
            let features = Features::new(&values, 8, &targets);
            let fit = fit(&features, &Cpu::best()).unwrap();
            for (index, class) in classes.iter().enumerate() {
                let probabilities = calibration::softmax(&fit.logits(features.row(index)), 1.0);
                let right = probabilities[*class as usize];
                assert!((0.5..0.999).contains(&right), "{per_class} of each: {right} for the right class");
            }
        }
    }

    #[test]
    fn sets_and_values_are_told_from_the_same_rows() {
        let (values, classes) = clouds(80, 20.0);
        let sets = classes.iter().map(|class| if *class == 2 { vec![0, 1] } else { vec![*class] }).collect();
        let sets = Targets::Sets { sets, count: 2 };
        let fitted = fit(&Features::new(&values, 8, &sets), &Cpu::best()).unwrap();
        let right = values.chunks_exact(8).zip(&classes).filter(|(row, class)| {
            let logits = fitted.logits(row);
            (logits[0] > 0.0, logits[1] > 0.0) == (**class != 1, **class != 0)
        });
        assert!(right.count() >= 220, "of 240");
        let meant: Vec<f32> = classes.iter().map(|class| *class as f32 * 10.0).collect();
        let all: Vec<usize> = (0..meant.len()).collect();
        let scale = crate::task::targets::Scale::PLAIN;
        let numbers = Targets::Values { values: meant.clone(), scale }.scaled_by(&all);
        let Targets::Values { scale, .. } = numbers else { unreachable!() };
        let fitted = fit(&Features::new(&values, 8, &numbers), &Cpu::best()).unwrap();
        let predicted: Vec<f32> = values.chunks_exact(8).map(|row| scale.undo(fitted.logits(row)[0])).collect();
        let figures = crate::task::metrics::regression::figures(&predicted, &meant);
        assert!(figures.r2 > 0.8, "{figures:?}");
    }
}
