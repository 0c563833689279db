//! The head's closed-form start: linear discriminant analysis on frozen features.
//!
//! With a shared within-class covariance Σ, shrunk towards a multiple of the identity (Friedman 1989), the log odds of
//! the classes are linear: w_k = Σ⁻¹μ_k/T, b_k = (log π_k − μ_kᵀΣ⁻¹μ_k/2)/T. Shrinkage and temperature T are chosen on
//! a held-out half of the same features, so the first step starts from a calibrated linear probe. In `f64`, one
//! thread, fixed order: a function of its input alone. Knows nothing of texts or of the base.

use super::calibration;

/// Pooled rows with their classes.
pub struct Features<'a> {
    /// `(examples, width)`, row-major
    pub values: &'a [f32],
    pub width: usize,
    pub classes: &'a [u32],
    pub count: usize,
}

/// A head: `weight` is `(classes, width)`, `bias` `(classes)`.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    pub weight: Vec<f32>,
    pub bias: Vec<f32>,
}

const SHRINKAGES: [f64; 4] = [0.03, 0.1, 0.3, 0.6];
/// The start must leave training something to say: a head that is certain has no gradient.
const DOUBT: f64 = 0.05;

/// Fits a head; every class must have an example.
pub fn fit(features: &Features) -> Fit {
    let (first, second) = halves(features);
    let all: Vec<usize> = (0..features.classes.len()).collect();
    let (halved, whole) = (Moments::of(features, &first), Moments::of(features, &all));
    // With one example of each class there is no spread within classes to be seen: then the nearest mean decides.
    let (halved, whole) = match halved.covariance.iter().all(|value| *value == 0.0) {
        true => (halved.isotropic(), whole.isotropic()),
        false => (halved, whole),
    };
    // Where there is nothing to hold out, what was fitted must do: `DOUBT` keeps it from being certain of itself.
    let judged = if second.is_empty() { &first } else { &second };
    let (shrinkage, temperature) = choose(features, &halved, judged);
    whole.solve(shrinkage, temperature)
}

/// Every second example of each class is held out; a class with one example is not.
fn halves(features: &Features) -> (Vec<usize>, Vec<usize>) {
    let mut seen = vec![0usize; features.count];
    let all = 0..features.classes.len();
    all.partition(|index| {
        let class = features.classes[*index] as usize;
        seen[class] += 1;
        seen[class] % 2 == 1
    })
}

/// The shrinkage and the temperature with which `moments` judges these examples best.
fn choose(features: &Features, moments: &Moments, held_out: &[usize]) -> (f64, f64) {
    let classes: Vec<u32> = held_out.iter().map(|index| features.classes[*index]).collect();
    let mut best = (f64::INFINITY, (SHRINKAGES[0], 1.0));
    for shrinkage in SHRINKAGES {
        let fit = moments.solve(shrinkage, 1.0);
        let logits: Vec<f32> = held_out.iter().flat_map(|index| fit.logits(features.row(*index))).collect();
        let temperature = calibration::fit_temperature(&logits, features.count, &classes, DOUBT);
        let loss = calibration::smoothed_loss(&logits, features.count, &classes, temperature, DOUBT);
        if loss < best.0 {
            best = (loss, (shrinkage, f64::from(temperature)));
        }
    }
    best.1
}

impl Features<'_> {
    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.width..(index + 1) * self.width]
    }
}

impl Fit {
    fn logits(&self, row: &[f32]) -> Vec<f32> {
        let weights = self.weight.chunks_exact(row.len());
        weights.zip(&self.bias).map(|(weight, bias)| dot(weight, row) + bias).collect()
    }
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

/// Class means, the pooled within-class covariance and the class shares.
struct Moments {
    width: usize,
    /// `(classes, width)`
    means: Vec<f64>,
    /// `(width, width)`
    covariance: Vec<f64>,
    shares: Vec<f64>,
}

impl Moments {
    fn of(features: &Features, indices: &[usize]) -> Self {
        let width = features.width;
        let mut counts = vec![0usize; features.count];
        let mut means = vec![0.0; features.count * width];
        for index in indices {
            let class = features.classes[*index] as usize;
            counts[class] += 1;
            let mean = &mut means[class * width..(class + 1) * width];
            mean.iter_mut().zip(features.row(*index)).for_each(|(mean, value)| *mean += f64::from(*value));
        }
        for (mean, count) in means.chunks_exact_mut(width).zip(&counts) {
            mean.iter_mut().for_each(|value| *value /= (*count).max(1) as f64);
        }
        let mut covariance = vec![0.0; width * width];
        for index in indices {
            let mean = &means[features.classes[*index] as usize * width..];
            let centred: Vec<f64> =
                features.row(*index).iter().zip(mean).map(|(value, mean)| f64::from(*value) - mean).collect();
            for (row, left) in covariance.chunks_exact_mut(width).zip(&centred) {
                row.iter_mut().zip(&centred).for_each(|(sum, right)| *sum += left * right);
            }
        }
        covariance.iter_mut().for_each(|value| *value /= indices.len() as f64);
        // One more than seen, so that no class is impossible.
        let total = (indices.len() + features.count) as f64;
        let shares = counts.iter().map(|count| (*count + 1) as f64 / total).collect();
        Self { width, means, covariance, shares }
    }

    /// In place of the covariance, the spread of the classes' means, alike in all directions: distances between means
    /// are then of order 1.
    fn isotropic(mut self) -> Self {
        let classes = self.shares.len() as f64;
        let mut spread = 0.0;
        for place in 0..self.width {
            let column = || self.means.iter().skip(place).step_by(self.width);
            let mean = column().sum::<f64>() / classes;
            spread += column().map(|value| (value - mean).powi(2)).sum::<f64>() / classes;
        }
        self.covariance.fill(0.0);
        (0..self.width).for_each(|place| self.covariance[place * self.width + place] = spread);
        self
    }

    fn solve(&self, shrinkage: f64, temperature: f64) -> Fit {
        let width = self.width;
        let trace: f64 = (0..width).map(|index| self.covariance[index * width + index]).sum();
        let ridge = (shrinkage * trace / width as f64).max(1e-9);
        let mut matrix: Vec<f64> = self.covariance.iter().map(|value| value * (1.0 - shrinkage)).collect();
        (0..width).for_each(|index| matrix[index * width + index] += ridge);
        cholesky(&mut matrix, width);
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for (mean, share) in self.means.chunks_exact(width).zip(&self.shares) {
            let solved = solve_cholesky(&matrix, mean);
            let half: f64 = solved.iter().zip(mean).map(|(solved, mean)| solved * mean).sum::<f64>() / 2.0;
            weight.extend(solved.iter().map(|value| (value / temperature) as f32));
            bias.push(((share.ln() - half) / temperature) as f32);
        }
        centre(&mut weight, width);
        centre(&mut bias, 1);
        Fit { weight, bias }
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

/// A = L·Lᵀ in place, the lower triangle; A must be positive definite, which the ridge sees to.
fn cholesky(matrix: &mut [f64], width: usize) {
    for row in 0..width {
        for column in 0..=row {
            let (left, right) = (row * width, column * width);
            let sum: f64 = (0..column).map(|index| matrix[left + index] * matrix[right + index]).sum();
            let rest = matrix[left + column] - sum;
            matrix[left + column] = match row == column {
                true => rest.max(f64::MIN_POSITIVE).sqrt(),
                false => rest / matrix[right + column],
            };
        }
    }
}

/// x with L·Lᵀ·x = b
fn solve_cholesky(lower: &[f64], right: &[f64]) -> Vec<f64> {
    let width = right.len();
    let mut x = right.to_vec();
    for row in 0..width {
        let sum: f64 = (0..row).map(|index| lower[row * width + index] * x[index]).sum();
        x[row] = (x[row] - sum) / lower[row * width + row];
    }
    for row in (0..width).rev() {
        let sum: f64 = (row + 1..width).map(|index| lower[index * width + row] * x[index]).sum();
        x[row] = (x[row] - sum) / lower[row * width + row];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::random::Random;

    fn clouds(per_class: usize) -> (Vec<f32>, Vec<u32>) {
        let mut random = Random::new(1, &["clouds"]);
        let (mut values, mut classes) = (Vec::new(), Vec::new());
        for index in 0..per_class * 3 {
            let class = index % 3;
            classes.push(class as u32);
            values.extend((0..8).map(|place| random.normal() + if place == class { 4.0 } else { 0.0 }));
        }
        (values, classes)
    }

    #[test]
    fn separable_classes_are_told_apart() {
        let (values, classes) = clouds(40);
        let features = Features { values: &values, width: 8, classes: &classes, count: 3 };
        let fit = fit(&features);
        let right = (0..classes.len()).filter(|index| {
            let logits = fit.logits(features.row(*index));
            let best = (0..3).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
            best as u32 == classes[*index]
        });
        assert!(right.count() >= 114, "at least 95 % of the training clouds");
    }

    #[test]
    fn one_or_two_examples_of_each_class_are_enough_and_leave_doubt() {
        for per_class in [1, 2] {
            let (values, classes) = clouds(per_class);
            let features = Features { values: &values, width: 8, classes: &classes, count: 3 };
            let fit = fit(&features);
            for (index, class) in classes.iter().enumerate() {
                let probabilities = calibration::softmax(&fit.logits(features.row(index)), 1.0);
                let right = probabilities[*class as usize];
                assert!((0.5..0.999).contains(&right), "{per_class} of each: {right} for the right class");
            }
        }
    }

    #[test]
    fn a_solution_satisfies_its_equations() {
        let mut matrix = vec![4.0, 1.0, 0.5, 1.0, 3.0, 0.2, 0.5, 0.2, 2.0];
        let whole = matrix.clone();
        cholesky(&mut matrix, 3);
        let x = solve_cholesky(&matrix, &[1.0, 2.0, 3.0]);
        for (row, right) in whole.chunks_exact(3).zip([1.0, 2.0, 3.0]) {
            let left: f64 = row.iter().zip(&x).map(|(a, x)| a * x).sum();
            assert!((left - right).abs() < 1e-12);
        }
    }
}
