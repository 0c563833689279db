//! L-BFGS (Liu & Nocedal 1989) for a convex function, with a backtracking line search.
//!
//! Vectors are `f32`; sums over them are `f64` and in order.

use crate::error::Result;
use std::collections::VecDeque;

/// Pairs of steps and gradient differences in the inverse Hessian approximation.
const HISTORY_SIZE: usize = 6;
/// A step must reduce the value by this share of the decrease that the slope predicts (Armijo 1966).
const ARMIJO_CONSTANT: f64 = 1e-4;
const MAX_HALVINGS: usize = 12;
/// The search ends at a gradient norm below this.
const GRADIENT_TOLERANCE: f64 = 1e-6;

struct CurvaturePair {
    step: Vec<f32>,
    gradient_difference: Vec<f32>,
    /// 1 / (step · gradient difference)
    rho: f64,
}

/// Minimizes `objective`, which returns its value and gradient. Ends early where no step reduces the value.
pub fn minimize<F>(initial: Vec<f32>, iterations: usize, mut objective: F) -> Result<Vec<f32>>
where
    F: FnMut(&[f32]) -> Result<(f64, Vec<f32>)>,
{
    let mut point = initial;
    let (mut value, mut gradient) = objective(&point)?;
    let mut pairs: VecDeque<CurvaturePair> = VecDeque::new();
    for _ in 0..iterations {
        if dot(&gradient, &gradient).sqrt() < GRADIENT_TOLERANCE {
            break;
        }
        let direction = two_loop_direction(&gradient, &pairs);
        let directional_derivative = dot(&direction, &gradient);
        let mut step_size = if pairs.is_empty() { 1.0 / dot(&gradient, &gradient).sqrt().max(1.0) } else { 1.0 };
        let mut accepted = None;
        for _ in 0..MAX_HALVINGS {
            let candidate: Vec<f32> = point.iter().zip(&direction).map(|(at, by)| at + step_size as f32 * by).collect();
            let (candidate_value, candidate_gradient) = objective(&candidate)?;
            if candidate_value <= value + ARMIJO_CONSTANT * step_size * directional_derivative {
                accepted = Some((candidate, candidate_value, candidate_gradient));
                break;
            }
            step_size /= 2.0;
        }
        let Some((next_point, next_value, next_gradient)) = accepted else { break };
        let step: Vec<f32> = next_point.iter().zip(&point).map(|(there, at)| there - at).collect();
        let change: Vec<f32> = next_gradient.iter().zip(&gradient).map(|(after, before)| after - before).collect();
        let product = dot(&step, &change);
        if product > 0.0 {
            if pairs.len() == HISTORY_SIZE {
                pairs.pop_front();
            }
            pairs.push_back(CurvaturePair { step, gradient_difference: change, rho: 1.0 / product });
        }
        (point, value, gradient) = (next_point, next_value, next_gradient);
    }
    Ok(point)
}

/// Descent direction: minus the gradient times the approximate inverse Hessian, by the two-loop recursion.
fn two_loop_direction(gradient: &[f32], pairs: &VecDeque<CurvaturePair>) -> Vec<f32> {
    let mut direction: Vec<f32> = gradient.iter().map(|value| -value).collect();
    let mut alphas = Vec::new();
    for pair in pairs.iter().rev() {
        let alpha = pair.rho * dot(&pair.step, &direction);
        add_scaled(&mut direction, -alpha, &pair.gradient_difference);
        alphas.push(alpha);
    }
    if let Some(newest) = pairs.back() {
        let scale = (1.0 / (newest.rho * dot(&newest.gradient_difference, &newest.gradient_difference))) as f32;
        direction.iter_mut().for_each(|value| *value *= scale);
    }
    for (pair, weight) in pairs.iter().zip(alphas.into_iter().rev()) {
        let beta = pair.rho * dot(&pair.gradient_difference, &direction);
        add_scaled(&mut direction, weight - beta, &pair.step);
    }
    direction
}

fn dot(left: &[f32], right: &[f32]) -> f64 {
    left.iter().zip(right).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum()
}

fn add_scaled(target: &mut [f32], factor: f64, values: &[f32]) {
    target.iter_mut().zip(values).for_each(|(to, value)| *to += factor as f32 * value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ill_conditioned_quadratic_is_minimized() {
        let bowl = |at: &[f32]| {
            let scales = [1.0f32, 100.0, 10_000.0];
            let value = at.iter().zip(scales).map(|(x, scale)| f64::from(scale * (x - 1.0) * (x - 1.0))).sum();
            Ok((value, at.iter().zip(scales).map(|(x, scale)| 2.0 * scale * (x - 1.0)).collect()))
        };
        let found = minimize(vec![5.0, -3.0, 2.0], 60, bowl).unwrap();
        assert!(found.iter().all(|x| (x - 1.0).abs() < 1e-3), "{found:?}");
    }

    #[test]
    fn a_stationary_point_is_kept() {
        let found = minimize(vec![0.5], 10, |at: &[f32]| Ok((1.0, vec![0.0 * at[0]]))).unwrap();
        assert_eq!(found, [0.5]);
    }
}
