//! The largest of many numbers, in one pass and without a sort. What is not a number, or −∞, is never among them.
//!
//! Knows nothing of what the numbers are.

/// Numbers that are compared at once, in registers.
pub const LANES: usize = 16;
/// Numbers of which it is first asked whether any is of interest.
const BLOCK: usize = 1024;

/// The largest number and its place, of equals the first; None where there is none that is finite.
pub fn first(values: &[f32]) -> Option<(u32, f32)> {
    let mut best = (0, f32::NEG_INFINITY);
    for (index, block) in values.chunks(BLOCK).enumerate() {
        let largest = largest(block);
        if largest > best.1 {
            best = (index, largest);
        }
    }
    let (index, largest) = best;
    let start = index * BLOCK;
    let place = values[start..].iter().position(|value| *value == largest)?;
    largest.is_finite().then_some(((start + place) as u32, largest))
}

/// The `count`-th largest number, equals counted one by one; −∞ where there are not so many. `room` is written over.
pub fn nth(values: &[f32], count: usize, room: &mut Vec<f32>) -> f32 {
    if count == 0 || count >= values.len() {
        return f32::NEG_INFINITY;
    }
    room.clear();
    let (mut floor, full) = (f32::NEG_INFINITY, 2 * count + 256);
    for chunk in values.chunks(LANES) {
        if any(chunk, |value| value > floor) {
            room.extend(chunk.iter().filter(|value| **value > floor));
            if room.len() >= full {
                floor = last_of(room, count);
            }
        }
    }
    if room.len() < count { f32::NEG_INFINITY } else { last_of(room, count) }
}

/// The `count` largest numbers and their places, the largest first, of equals the first ones.
pub fn several(values: &[f32], count: usize, room: &mut Vec<f32>) -> Vec<(u32, f32)> {
    let count = count.min(values.len());
    if count == 0 {
        return Vec::new();
    }
    let floor = nth(values, count, room).max(f32::MIN);
    let (mut found, mut equal) = (Vec::with_capacity(2 * count), 0);
    let chunks = values.chunks(LANES).enumerate();
    for (index, chunk) in chunks.filter(|(_, chunk)| any(chunk, |value| value >= floor)) {
        for (place, value) in chunk.iter().enumerate().filter(|(_, value)| **value >= floor) {
            // Of those that equal the floor no more than `count` can be needed, and they may be the whole vocabulary.
            equal += usize::from(*value == floor);
            if *value > floor || equal <= count {
                found.push(((index * LANES + place) as u32, *value));
            }
        }
    }
    found.sort_unstable_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
    found.truncate(count);
    found
}

/// Leaves the `count` largest of `room` in it, and says which is the least of them.
fn last_of(room: &mut Vec<f32>, count: usize) -> f32 {
    let (_, last, _) = room.select_nth_unstable_by(count - 1, |one, other| other.total_cmp(one));
    let last = *last;
    room.truncate(count);
    last
}

/// Whether any number of a chunk of at most [`LANES`] is of interest. All are asked: no branch is faster than some.
#[inline(always)]
pub fn any(chunk: &[f32], is_of_interest: impl Fn(f32) -> bool) -> bool {
    let ask = |any, value: &f32| any | is_of_interest(*value);
    match <&[f32; LANES]>::try_from(chunk) {
        Ok(whole) => whole.iter().fold(false, ask),
        Err(_) => chunk.iter().fold(false, ask),
    }
}

/// −∞ of no numbers.
#[inline]
fn largest(values: &[f32]) -> f32 {
    // The comparison that the processor's maximum makes, which passes over what is not a number.
    let larger = |one: f32, other: f32| if one > other { one } else { other };
    let (chunks, rest) = values.as_chunks::<LANES>();
    let rest = rest.iter().fold(f32::NEG_INFINITY, |most, value| larger(*value, most));
    let mut most = [f32::NEG_INFINITY; LANES];
    for chunk in chunks {
        for (most, value) in most.iter_mut().zip(chunk) {
            *most = larger(*value, *most);
        }
    }
    most.into_iter().fold(rest, |most, value| larger(value, most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_tensor::random::Random;

    const NONE: f32 = f32::NEG_INFINITY;

    /// Of few different numbers, so that there are equals.
    fn numbers(count: usize, different: usize) -> Vec<f32> {
        let mut random = Random::new(count as u64, &["largest"]);
        (0..count).map(|_| random.below(different) as f32 - 7.0).collect()
    }

    fn sorted(values: &[f32]) -> Vec<(u32, f32)> {
        let mut all: Vec<(u32, f32)> = (0..).zip(values.iter().copied()).collect();
        all.sort_by(|one, other| other.1.total_cmp(&one.1));
        all
    }

    #[test]
    fn all_agree_with_a_sort() {
        for (count, different) in [(1, 5), (15, 5), (16, 9), (33, 1), (1025, 50), (5000, 4), (20_000, 1_000_000)] {
            let values = numbers(count, different);
            let sorted = sorted(&values);
            assert_eq!(first(&values), Some(sorted[0]), "{count} {different}");
            for n in [1, 2, 7, 20, 300, 4999].into_iter().filter(|n| *n < count) {
                assert_eq!(nth(&values, n, &mut vec![9e9; 3]), sorted[n - 1].1, "{count} {different} {n}");
                assert_eq!(several(&values, n, &mut Vec::new()), sorted[..n], "{count} {different} {n}");
            }
            assert_eq!(several(&values, count + 3, &mut Vec::new()), sorted);
        }
    }

    #[test]
    fn what_is_no_number_is_passed_over() {
        assert_eq!(first(&[]), None);
        assert_eq!(first(&[NONE; 40]), None);
        assert_eq!(first(&[f32::NAN; 40]), None);
        assert_eq!(first(&[1.0, f32::INFINITY]), None);
        let mut values = vec![f32::NAN; 40];
        (values[17], values[20], values[39]) = (-3.0, NONE, -2.0);
        assert_eq!(first(&values), Some((39, -2.0)));
        assert_eq!(nth(&values, 2, &mut Vec::new()), -3.0);
        assert_eq!(nth(&values, 3, &mut Vec::new()), NONE);
        assert_eq!(several(&values, 9, &mut Vec::new()), [(39, -2.0), (17, -3.0)]);
        assert_eq!((nth(&values, 0, &mut Vec::new()), several(&values, 0, &mut Vec::new())), (NONE, vec![]));
    }
}
