//! The largest of many numbers, in one pass and without a sort. What is not a number, or −∞, is never among them.
//!
//! Knows nothing of what the numbers are.

/// Numbers that are compared at once, in registers.
pub const LANES: usize = 16;
/// Numbers of which it is first asked whether any is of interest.
const BLOCK_SIZE: usize = 1024;

/// The largest number and its place, of equals the first; None where there is none that is finite.
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

/// The `count`-th largest number, equals counted one by one; −∞ where there are not so many. `room` is written over.
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

/// The `count` largest numbers and their places, the largest first, of equals the first ones.
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
            // Of those that equal the floor no more than `count` can be needed, and they may be the whole vocabulary.
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

/// Leaves the `count` largest of `room` in it, and says which is the least of them.
fn truncate_to_top(scratch: &mut Vec<f32>, k: usize) -> f32 {
    let (_, kth, _) = scratch.select_nth_unstable_by(k - 1, |one, other| other.total_cmp(one));
    let kth = *kth;
    scratch.truncate(k);
    kth
}

/// Whether any number of a chunk of at most [`LANES`] is of interest. All are asked: no branch is faster than some.
#[inline(always)]
pub fn any_lane(chunk: &[f32], predicate: impl Fn(f32) -> bool) -> bool {
    let or_predicate = |any, value: &f32| any | predicate(*value);
    match <&[f32; LANES]>::try_from(chunk) {
        Ok(lanes) => lanes.iter().fold(false, or_predicate),
        Err(_) => chunk.iter().fold(false, or_predicate),
    }
}

/// −∞ of no numbers.
#[inline]
fn max(values: &[f32]) -> f32 {
    // The comparison that the processor's maximum makes, which passes over what is not a number.
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

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_tensor::seeded_rng::SeededRng;

    const NEG_INFINITY: f32 = f32::NEG_INFINITY;

    /// Of few different numbers, so that there are equals.
    fn values_with_ties(count: usize, distinct: usize) -> Vec<f32> {
        let mut random = SeededRng::new(count as u64, &["largest"]);
        (0..count).map(|_| random.uniform_below(distinct) as f32 - 7.0).collect()
    }

    fn sorted(values: &[f32]) -> Vec<(u32, f32)> {
        let mut all: Vec<(u32, f32)> = (0..).zip(values.iter().copied()).collect();
        all.sort_by(|one, other| other.1.total_cmp(&one.1));
        all
    }

    #[test]
    fn all_functions_agree_with_a_sort() {
        for (count, distinct) in [(1, 5), (15, 5), (16, 9), (33, 1), (1025, 50), (5000, 4), (20_000, 1_000_000)] {
            let values = values_with_ties(count, distinct);
            let sorted = sorted(&values);
            assert_eq!(argmax(&values), Some(sorted[0]), "{count} {distinct}");
            for n in [1, 2, 7, 20, 300, 4999].into_iter().filter(|n| *n < count) {
                assert_eq!(kth_largest(&values, n, &mut vec![9e9; 3]), sorted[n - 1].1, "{count} {distinct} {n}");
                assert_eq!(top_k(&values, n, &mut Vec::new()), sorted[..n], "{count} {distinct} {n}");
            }
            assert_eq!(top_k(&values, count + 3, &mut Vec::new()), sorted);
        }
    }

    #[test]
    fn nan_and_infinities_are_skipped() {
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[NEG_INFINITY; 40]), None);
        assert_eq!(argmax(&[f32::NAN; 40]), None);
        assert_eq!(argmax(&[1.0, f32::INFINITY]), None);
        let mut values = vec![f32::NAN; 40];
        (values[17], values[20], values[39]) = (-3.0, NEG_INFINITY, -2.0);
        assert_eq!(argmax(&values), Some((39, -2.0)));
        assert_eq!(kth_largest(&values, 2, &mut Vec::new()), -3.0);
        assert_eq!(kth_largest(&values, 3, &mut Vec::new()), NEG_INFINITY);
        assert_eq!(top_k(&values, 9, &mut Vec::new()), [(39, -2.0), (17, -3.0)]);
        assert_eq!(
            (kth_largest(&values, 0, &mut Vec::new()), top_k(&values, 0, &mut Vec::new())),
            (NEG_INFINITY, vec![])
        );
    }
}
