//! The smallest set of the largest weights that has a given share of all weight (top-p, Holtzman et al. 2019), without
//! sorting them: the weight at its edge is found by halving, over all weights until few lie between, then over those.
//!
//! Knows nothing of tokens and temperature.

use super::exp_sum::BLOCK_SIZE;
use super::top_k::{LANES, any_lane};

/// Weights from `floor` on, but for the last `surplus` of those that equal it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopPThreshold {
    pub min_probability: f32,
    pub excluded_ties: usize,
}

/// As many weights are taken aside rather than passing over all of them again.
const COLLECT_BELOW: usize = 4096;
/// From one level of the search for the lower end to the next: six powers of two, in the bits of a number.
const LEVEL_STEP: u32 = 6 << 23;

/// Weights at or above a level.
#[derive(Debug, Clone, Copy)]
struct TailMass {
    /// The bits of the level: those of numbers that are not negative are in the same order as the numbers.
    level: u32,
    mass: f64,
    count: usize,
}

/// Two levels: at the upper one the goal is not reached, at the lower it is.
#[derive(Debug, Clone, Copy)]
struct SearchInterval {
    upper: TailMass,
    lower: TailMass,
}

/// `weights` are from 0 to 1, and have the sum `total`; 0 < `share` < 1. `room` is written over.
pub fn top_p_threshold(probabilities: &[f32], total: f64, top_p: f32, scratch: &mut Vec<f32>) -> TopPThreshold {
    let target_mass = f64::from(top_p) * total;
    let interval = initial_interval(probabilities, target_mass).bisect(probabilities, target_mass, COLLECT_BELOW);
    interval.collect_between(probabilities, scratch);
    let remaining_mass = target_mass - interval.upper.mass;
    let SearchInterval { upper, lower } = interval.relative_to_upper().bisect(scratch, remaining_mass, 0);
    // All that lies between equals the lower level now; as many as lead to the goal.
    let floor = f32::from_bits(lower.level);
    let included_ties = ((remaining_mass - upper.mass) / f64::from(floor)).ceil().max(1.0) as usize;
    TopPThreshold { min_probability: floor, excluded_ties: (lower.count - upper.count).saturating_sub(included_ties) }
}

/// Goes down from 1 in steps.
fn initial_interval(probabilities: &[f32], target_mass: f64) -> SearchInterval {
    let one = 1.0f32.to_bits();
    let mut upper = TailMass { level: one + 1, mass: 0.0, count: 0 };
    let mut lower = tail_mass(probabilities, one - LEVEL_STEP);
    // Weights are at least e⁻⁸⁷, or 0.
    while lower.mass < target_mass && lower.level > LEVEL_STEP {
        upper = lower;
        lower = tail_mass(probabilities, upper.level - LEVEL_STEP);
    }
    SearchInterval { upper, lower }
}

impl SearchInterval {
    /// Halves it until at most `few` of the weights lie between, or only equals.
    fn bisect(self, probabilities: &[f32], target_mass: f64, max_between: usize) -> Self {
        let Self { mut upper, mut lower } = self;
        while lower.count - upper.count > max_between && lower.level + 1 < upper.level {
            let middle = tail_mass(probabilities, lower.level.midpoint(upper.level));
            if middle.mass < target_mass {
                upper = middle;
            } else {
                lower = middle;
            }
        }
        Self { upper, lower }
    }

    /// The weights that lie between.
    fn collect_between(&self, probabilities: &[f32], scratch: &mut Vec<f32>) {
        let (floor, end) = (f32::from_bits(self.lower.level), f32::from_bits(self.upper.level));
        let is_between = |weight: f32| (weight >= floor) & (weight < end);
        let count = self.lower.count - self.upper.count;
        scratch.clear();
        scratch.resize(count + 1, 0.0);
        let mut found = 0;
        for lanes in probabilities.chunks(LANES).filter(|chunk| any_lane(chunk, is_between)) {
            for weight in lanes {
                // Written in any case and kept where it lies between: a branch here would be guessed wrong too often.
                scratch[found] = *weight;
                found += usize::from(is_between(*weight));
            }
        }
        scratch.truncate(count);
    }

    /// As it is for the weights that lie between by themselves.
    fn relative_to_upper(self) -> Self {
        let (mass, count) = (self.lower.mass - self.upper.mass, self.lower.count - self.upper.count);
        let upper = TailMass { mass: 0.0, count: 0, ..self.upper };
        Self { upper, lower: TailMass { mass, count, ..self.lower } }
    }
}

fn tail_mass(probabilities: &[f32], level: u32) -> TailMass {
    let floor = f32::from_bits(level);
    let mut tail = TailMass { level, mass: 0.0, count: 0 };
    for block in probabilities.chunks(BLOCK_SIZE) {
        let (mut masses, mut counts) = ([0.0; LANES], [0; LANES]);
        let (chunks, remainder) = block.as_chunks::<LANES>();
        for chunk in chunks {
            accumulate_lanes(chunk, floor, &mut masses, &mut counts);
        }
        let mut padded = [0.0; LANES];
        padded[..remainder.len()].copy_from_slice(remainder);
        accumulate_lanes(&padded, floor, &mut masses, &mut counts);
        tail.mass += masses.into_iter().map(f64::from).sum::<f64>();
        tail.count += counts.into_iter().sum::<u32>() as usize;
    }
    tail
}

#[inline(always)]
fn accumulate_lanes(chunk: &[f32; LANES], floor: f32, masses: &mut [f32; LANES], counts: &mut [u32; LANES]) {
    for ((mass, count), weight) in masses.iter_mut().zip(counts).zip(chunk) {
        *mass += if *weight >= floor { *weight } else { 0.0 };
        *count += u32::from(*weight >= floor);
    }
}
