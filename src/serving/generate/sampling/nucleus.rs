//! The smallest set of the largest weights that has a given share of all weight (top-p, Holtzman et al. 2019), without
//! sorting them: the weight at its edge is found by halving, over all weights until few lie between, then over those.
//!
//! Knows nothing of tokens and temperature.

use super::exponential::BLOCK;
use super::largest::{LANES, any};

/// Weights from `floor` on, but for the last `surplus` of those that equal it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nucleus {
    pub floor: f32,
    pub surplus: usize,
}

/// As many weights are taken aside rather than passing over all of them again.
const FEW: usize = 4096;
/// From one level of the search for the lower end to the next: six powers of two, in the bits of a number.
const STEP: u32 = 6 << 23;

/// Weights at or above a level.
#[derive(Debug, Clone, Copy)]
struct Above {
    /// The bits of the level: those of numbers that are not negative are in the same order as the numbers.
    level: u32,
    mass: f64,
    count: usize,
}

/// Two levels: at the upper one the goal is not reached, at the lower it is.
#[derive(Debug, Clone, Copy)]
struct Bracket {
    upper: Above,
    lower: Above,
}

/// `weights` are from 0 to 1, and have the sum `total`; 0 < `share` < 1. `room` is written over.
pub fn find(weights: &[f32], total: f64, share: f32, room: &mut Vec<f32>) -> Nucleus {
    let goal = f64::from(share) * total;
    let around = bracket(weights, goal).narrow(weights, goal, FEW);
    around.collect(weights, room);
    let goal = goal - around.upper.mass;
    let Bracket { upper, lower } = around.alone().narrow(room, goal, 0);
    // All that lies between equals the lower level now; as many as lead to the goal.
    let floor = f32::from_bits(lower.level);
    let equals = ((goal - upper.mass) / f64::from(floor)).ceil().max(1.0) as usize;
    Nucleus { floor, surplus: (lower.count - upper.count).saturating_sub(equals) }
}

/// Goes down from 1 in steps.
fn bracket(weights: &[f32], goal: f64) -> Bracket {
    let one = 1.0f32.to_bits();
    let mut upper = Above { level: one + 1, mass: 0.0, count: 0 };
    let mut lower = above(weights, one - STEP);
    // Weights are at least e⁻⁸⁷, or 0.
    while lower.mass < goal && lower.level > STEP {
        upper = lower;
        lower = above(weights, upper.level - STEP);
    }
    Bracket { upper, lower }
}

impl Bracket {
    /// Halves it until at most `few` of the weights lie between, or only equals.
    fn narrow(self, weights: &[f32], goal: f64, few: usize) -> Self {
        let Self { mut upper, mut lower } = self;
        while lower.count - upper.count > few && lower.level + 1 < upper.level {
            let middle = above(weights, lower.level.midpoint(upper.level));
            if middle.mass < goal {
                upper = middle;
            } else {
                lower = middle;
            }
        }
        Self { upper, lower }
    }

    /// The weights that lie between.
    fn collect(&self, weights: &[f32], room: &mut Vec<f32>) {
        let (floor, end) = (f32::from_bits(self.lower.level), f32::from_bits(self.upper.level));
        let is_between = |weight: f32| (weight >= floor) & (weight < end);
        let count = self.lower.count - self.upper.count;
        room.clear();
        room.resize(count + 1, 0.0);
        let mut found = 0;
        for chunk in weights.chunks(LANES).filter(|chunk| any(chunk, is_between)) {
            for weight in chunk {
                // Written in any case and kept where it lies between: a branch here would be guessed wrong too often.
                room[found] = *weight;
                found += usize::from(is_between(*weight));
            }
        }
        room.truncate(count);
    }

    /// As it is for the weights that lie between by themselves.
    fn alone(self) -> Self {
        let (mass, count) = (self.lower.mass - self.upper.mass, self.lower.count - self.upper.count);
        let upper = Above { mass: 0.0, count: 0, ..self.upper };
        Self { upper, lower: Above { mass, count, ..self.lower } }
    }
}

fn above(weights: &[f32], level: u32) -> Above {
    let floor = f32::from_bits(level);
    let mut all = Above { level, mass: 0.0, count: 0 };
    for block in weights.chunks(BLOCK) {
        let (mut masses, mut counts) = ([0.0; LANES], [0; LANES]);
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            add(chunk, floor, &mut masses, &mut counts);
        }
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        add(&last, floor, &mut masses, &mut counts);
        all.mass += masses.into_iter().map(f64::from).sum::<f64>();
        all.count += counts.into_iter().sum::<u32>() as usize;
    }
    all
}

#[inline(always)]
fn add(chunk: &[f32; LANES], floor: f32, masses: &mut [f32; LANES], counts: &mut [u32; LANES]) {
    for ((mass, count), weight) in masses.iter_mut().zip(counts).zip(chunk) {
        *mass += if *weight >= floor { *weight } else { 0.0 };
        *count += u32::from(*weight >= floor);
    }
}
