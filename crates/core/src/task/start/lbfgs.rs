//! L-BFGS (Liu & Nocedal 1989) for a convex function, with a backtracking line search.
//!
//! Vectors are `f32`, sums over them `f64` and in order. Knows nothing of what is minimised.

use crate::error::Result;
use std::collections::VecDeque;

/// Pairs of steps and gradient differences that shape the next direction.
const MEMORY: usize = 6;
/// A step must bring this share of what the slope promises (Armijo 1966).
const SUFFICIENT: f64 = 1e-4;
const MAX_HALVINGS: usize = 12;
/// A gradient below this says that there is nothing left to win.
const FLAT: f64 = 1e-6;

struct Pair {
    step: Vec<f32>,
    change: Vec<f32>,
    /// One over their product.
    inverse: f64,
}

/// `function` answers its value and its gradient. Ends early where no step brings anything.
pub fn minimise<F>(start: Vec<f32>, iterations: usize, mut function: F) -> Result<Vec<f32>>
where
    F: FnMut(&[f32]) -> Result<(f64, Vec<f32>)>,
{
    let mut at = start;
    let (mut value, mut gradient) = function(&at)?;
    let mut pairs: VecDeque<Pair> = VecDeque::new();
    for _ in 0..iterations {
        if dot(&gradient, &gradient).sqrt() < FLAT {
            break;
        }
        let direction = direction(&gradient, &pairs);
        let slope = dot(&direction, &gradient);
        let mut length = if pairs.is_empty() { 1.0 / dot(&gradient, &gradient).sqrt().max(1.0) } else { 1.0 };
        let mut found = None;
        for _ in 0..MAX_HALVINGS {
            let there: Vec<f32> = at.iter().zip(&direction).map(|(at, by)| at + length as f32 * by).collect();
            let (then, slopes) = function(&there)?;
            if then <= value + SUFFICIENT * length * slope {
                found = Some((there, then, slopes));
                break;
            }
            length /= 2.0;
        }
        let Some((there, then, slopes)) = found else { break };
        let step: Vec<f32> = there.iter().zip(&at).map(|(there, at)| there - at).collect();
        let change: Vec<f32> = slopes.iter().zip(&gradient).map(|(after, before)| after - before).collect();
        let product = dot(&step, &change);
        if product > 0.0 {
            if pairs.len() == MEMORY {
                pairs.pop_front();
            }
            pairs.push_back(Pair { step, change, inverse: 1.0 / product });
        }
        (at, value, gradient) = (there, then, slopes);
    }
    Ok(at)
}

/// Down the gradient, bent by what the pairs say of the curvature: the two loops.
fn direction(gradient: &[f32], pairs: &VecDeque<Pair>) -> Vec<f32> {
    let mut direction: Vec<f32> = gradient.iter().map(|value| -value).collect();
    let mut weights = Vec::new();
    for pair in pairs.iter().rev() {
        let weight = pair.inverse * dot(&pair.step, &direction);
        add(&mut direction, -weight, &pair.change);
        weights.push(weight);
    }
    if let Some(newest) = pairs.back() {
        let scale = (1.0 / (newest.inverse * dot(&newest.change, &newest.change))) as f32;
        direction.iter_mut().for_each(|value| *value *= scale);
    }
    for (pair, weight) in pairs.iter().zip(weights.into_iter().rev()) {
        let back = pair.inverse * dot(&pair.change, &direction);
        add(&mut direction, weight - back, &pair.step);
    }
    direction
}

fn dot(left: &[f32], right: &[f32]) -> f64 {
    left.iter().zip(right).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum()
}

fn add(to: &mut [f32], factor: f64, values: &[f32]) {
    to.iter_mut().zip(values).for_each(|(to, value)| *to += factor as f32 * value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ill_conditioned_bowl_is_descended_to_its_bottom() {
        let bowl = |at: &[f32]| {
            let scales = [1.0f32, 100.0, 10_000.0];
            let value = at.iter().zip(scales).map(|(x, scale)| f64::from(scale * (x - 1.0) * (x - 1.0))).sum();
            Ok((value, at.iter().zip(scales).map(|(x, scale)| 2.0 * scale * (x - 1.0)).collect()))
        };
        let found = minimise(vec![5.0, -3.0, 2.0], 60, bowl).unwrap();
        assert!(found.iter().all(|x| (x - 1.0).abs() < 1e-3), "{found:?}");
    }

    #[test]
    fn at_the_bottom_nothing_moves() {
        let found = minimise(vec![0.5], 10, |at: &[f32]| Ok((1.0, vec![0.0 * at[0]]))).unwrap();
        assert_eq!(found, [0.5]);
    }
}
