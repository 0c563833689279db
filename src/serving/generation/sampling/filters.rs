//! The filters of sampling: token mask, argmax, top-k and top-p, without sorting the vocabulary.
//!
//! NaN and −∞ are never selected.

#[cfg(test)]
mod tests;

/// Values that are compared at once, in SIMD registers.
pub const LANES: usize = 16;
/// Values whose sums are added in `f32`; the sums of blocks are added in `f64`.
pub const BLOCK_SIZE: usize = 1024;
/// Bits of a word of a [`TokenMask`].
const BITS: usize = u64::BITS as usize;

/// The set of allowed token ids, for constrained decoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenMask {
    /// Bit `id % 64` of word `id / 64`; ids beyond the last word are not allowed.
    bits: Vec<u64>,
}

impl TokenMask {
    /// Allows no token.
    pub fn new(vocabulary_size: usize) -> Self {
        Self { bits: vec![0; vocabulary_size.div_ceil(BITS)] }
    }

    pub fn from_fn(vocabulary_size: usize, allowed: impl Fn(u32) -> bool) -> Self {
        let mut mask = Self::new(vocabulary_size);
        (0..vocabulary_size as u32).filter(|id| allowed(*id)).for_each(|id| mask.set(id));
        mask
    }

    /// Reads bit `id % 32` of word `id / 32`; bits beyond the vocabulary are ignored.
    pub fn from_u32_words(vocabulary_size: usize, words: &[u32]) -> Self {
        let mut mask = Self::new(vocabulary_size);
        for (index, word) in words.iter().enumerate().take(vocabulary_size.div_ceil(u32::BITS as usize)) {
            mask.bits[index / 2] |= u64::from(*word) << (u32::BITS as usize * (index % 2));
        }
        if let (Some(last), used_bits @ 1..) = (mask.bits.last_mut(), vocabulary_size % BITS) {
            *last &= u64::MAX >> (BITS - used_bits);
        }
        mask
    }

    /// Allows a token.
    ///
    /// # Panics
    /// If the id is beyond the vocabulary.
    pub fn set(&mut self, id: u32) {
        self.bits[id as usize / BITS] |= 1 << (id as usize % BITS);
    }

    pub fn is_allowed(&self, id: u32) -> bool {
        self.bits.get(id as usize / BITS).is_some_and(|word| word >> (id as usize % BITS) & 1 == 1)
    }

    /// Allows no token any more; keeps the allocation.
    pub fn clear(&mut self) {
        self.bits.fill(0);
    }

    /// Sets the logits of tokens that are not allowed to −∞.
    pub fn apply(&self, logits: &mut [f32]) {
        let words = self.bits.iter().copied().chain(std::iter::repeat(0));
        for (logits, word) in logits.chunks_mut(BITS).zip(words) {
            match word {
                u64::MAX => {}
                0 => logits.fill(f32::NEG_INFINITY),
                _ => {
                    let disallowed = logits.iter_mut().enumerate().filter(|(bit, _)| word >> bit & 1 == 0);
                    disallowed.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
                }
            }
        }
    }
}

/// Returns the index and value of the maximum, the first of ties; `None` if no value is finite.
pub fn argmax(values: &[f32]) -> Option<(u32, f32)> {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, block) in values.chunks(BLOCK_SIZE).enumerate() {
        let block_max = max(block);
        if block_max > best.1 {
            best = (index, block_max);
        }
    }
    let (index, max) = best;
    let start = index * BLOCK_SIZE;
    let offset = values[start..].iter().position(|value| *value == max)?;
    max.is_finite().then_some(((start + offset) as u32, max))
}

/// Returns the `k`-th largest value, ties counted one by one; −∞ if there are fewer values. Overwrites `scratch`.
pub fn kth_largest(values: &[f32], k: usize, scratch: &mut Vec<f32>) -> f32 {
    if k == 0 || k >= values.len() {
        return f32::NEG_INFINITY;
    }
    scratch.clear();
    let (mut floor, capacity) = (f32::NEG_INFINITY, 2 * k + 256);
    for chunk in values.chunks(LANES) {
        if any_lane(chunk, |value| value > floor) {
            scratch.extend(chunk.iter().filter(|value| **value > floor));
            if scratch.len() >= capacity {
                floor = truncate_to_top(scratch, k);
            }
        }
    }
    if scratch.len() < k { f32::NEG_INFINITY } else { truncate_to_top(scratch, k) }
}

/// Returns index and value of the `k` largest values in descending order, ties by index.
pub fn top_k(values: &[f32], k: usize, scratch: &mut Vec<f32>) -> Vec<(u32, f32)> {
    let k = k.min(values.len());
    if k == 0 {
        return Vec::new();
    }
    let threshold = kth_largest(values, k, scratch).max(f32::MIN);
    let (mut found, mut ties) = (Vec::with_capacity(2 * k), 0);
    let chunks = values.chunks(LANES).enumerate();
    for (index, chunk) in chunks.filter(|(_, chunk)| any_lane(chunk, |value| value >= threshold)) {
        for (offset, value) in chunk.iter().enumerate().filter(|(_, value)| **value >= threshold) {
            // At most `k` ties of the threshold are needed; they may be the whole vocabulary.
            ties += usize::from(*value == threshold);
            if *value > threshold || ties <= k {
                found.push(((index * LANES + offset) as u32, *value));
            }
        }
    }
    found.sort_unstable_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
    found.truncate(k);
    found
}

/// Truncates `scratch` to its `k` largest values and returns the smallest of them.
fn truncate_to_top(scratch: &mut Vec<f32>, k: usize) -> f32 {
    let (_, kth, _) = scratch.select_nth_unstable_by(k - 1, |one, other| other.total_cmp(one));
    let kth = *kth;
    scratch.truncate(k);
    kth
}

/// Whether the predicate holds for any value of a chunk of at most [`LANES`]. Without early exit, which is faster.
#[inline(always)]
pub fn any_lane(chunk: &[f32], predicate: impl Fn(f32) -> bool) -> bool {
    let or_predicate = |any, value: &f32| any | predicate(*value);
    match <&[f32; LANES]>::try_from(chunk) {
        Ok(lanes) => lanes.iter().fold(false, or_predicate),
        Err(_) => chunk.iter().fold(false, or_predicate),
    }
}

/// Maximum, NaN skipped; −∞ of an empty slice.
#[inline]
fn max(values: &[f32]) -> f32 {
    // This comparison compiles to the maximum instruction, which skips NaN.
    let max_of = |one: f32, other: f32| if one > other { one } else { other };
    let (chunks, remainder) = values.as_chunks::<LANES>();
    let remainder_max = remainder.iter().fold(f32::NEG_INFINITY, |most, value| max_of(*value, most));
    let mut lane_max = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (lane, value) in lane_max.iter_mut().zip(chunk) {
            *lane = max_of(*value, *lane);
        }
    }
    lane_max.into_iter().fold(remainder_max, |most, value| max_of(value, most))
}

/// The probabilities from `min_probability` on, without the last `excluded_ties` of those equal to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TopPThreshold {
    pub min_probability: f32,
    pub excluded_ties: usize,
}

/// When at most this many probabilities are left, they are copied and searched by themselves.
const COLLECT_BELOW: usize = 4096;
/// Step of the search for the lower bound: six powers of two, in the bits of an `f32`.
const LEVEL_STEP: u32 = 6 << 23;

/// Sum and number of the probabilities at or above a level.
#[derive(Debug, Clone, Copy)]
struct TailMass {
    /// Bits of the level; the bits of non-negative floats have the order of the floats.
    level: u32,
    mass: f64,
    count: usize,
}

/// Two levels: the mass above `upper` is less than the target, the mass above `lower` is not.
#[derive(Debug, Clone, Copy)]
struct SearchInterval {
    upper: TailMass,
    lower: TailMass,
}

/// Finds the smallest set of the largest probabilities with the mass `top_p` (Holtzman et al. 2019) without sorting: the
/// probability at its edge is found by bisection, over all values until few lie between, then over those.
///
/// `probabilities` are from 0 to 1 and have the sum `total`; 0 < `top_p` < 1. Overwrites `scratch`.
pub fn top_p_threshold(probabilities: &[f32], total: f64, top_p: f32, scratch: &mut Vec<f32>) -> TopPThreshold {
    let target_mass = f64::from(top_p) * total;
    let interval = initial_interval(probabilities, target_mass).bisect(probabilities, target_mass, COLLECT_BELOW);
    interval.collect_between(probabilities, scratch);
    let remaining_mass = target_mass - interval.upper.mass;
    let SearchInterval { upper, lower } = interval.relative_to_upper().bisect(scratch, remaining_mass, 0);
    // All values between equal the lower level now; take as many as the target needs.
    let floor = f32::from_bits(lower.level);
    let included_ties = ((remaining_mass - upper.mass) / f64::from(floor)).ceil().max(1.0) as usize;
    TopPThreshold { min_probability: floor, excluded_ties: (lower.count - upper.count).saturating_sub(included_ties) }
}

/// Searches downwards from 1 in steps.
fn initial_interval(probabilities: &[f32], target_mass: f64) -> SearchInterval {
    let one = 1.0f32.to_bits();
    let mut upper = TailMass { level: one + 1, mass: 0.0, count: 0 };
    let mut lower = tail_mass(probabilities, one - LEVEL_STEP);
    // Probabilities are 0 or at least e⁻⁸⁷.
    while lower.mass < target_mass && lower.level > LEVEL_STEP {
        upper = lower;
        lower = tail_mass(probabilities, upper.level - LEVEL_STEP);
    }
    SearchInterval { upper, lower }
}

impl SearchInterval {
    /// Bisects until at most `max_between` probabilities lie between, or only equal ones.
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

    /// Copies the probabilities between the levels to `scratch`.
    fn collect_between(&self, probabilities: &[f32], scratch: &mut Vec<f32>) {
        let (floor, end) = (f32::from_bits(self.lower.level), f32::from_bits(self.upper.level));
        let is_between = |value: f32| (value >= floor) & (value < end);
        let count = self.lower.count - self.upper.count;
        scratch.clear();
        scratch.resize(count + 1, 0.0);
        let mut found = 0;
        for lanes in probabilities.chunks(LANES).filter(|chunk| any_lane(chunk, is_between)) {
            for value in lanes {
                // Branchless: a branch here would be mispredicted too often.
                scratch[found] = *value;
                found += usize::from(is_between(*value));
            }
        }
        scratch.truncate(count);
    }

    /// The same interval for the probabilities between the levels alone.
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
    for ((mass, count), value) in masses.iter_mut().zip(counts).zip(chunk) {
        *mass += if *value >= floor { *value } else { 0.0 };
        *count += u32::from(*value >= floor);
    }
}
