//! Rows of `f32` rounded to bytes, for products in whole numbers: 32 numbers along the depth share a scale (llama.cpp's Q8_1).
//!
//! Knows nothing of weights.

use super::forms::BLOCK;
use crate::cpu::lanes::{LANES, Lanes, Level, Work};

/// `(rows, depth)`, the depth filled up with zeros to whole blocks.
pub struct Rounded {
    codes: Vec<i8>,
    /// Of each block its scale, and the sum of what it has become.
    heads: Vec<[f32; 2]>,
    blocks: usize,
}

impl Rounded {
    /// Each number to the nearest multiple of the largest one's 127th part.
    pub fn new(level: Level, rows: &[f32], depth: usize) -> Self {
        let (count, blocks) = (rows.len() / depth.max(1), depth.div_ceil(BLOCK));
        let mut rounded =
            Self { codes: vec![0; count * blocks * BLOCK], heads: vec![[0.0; 2]; count * blocks], blocks };
        level.run(Round { rows, depth, rounded: &mut rounded });
        rounded
    }

    pub fn rows(&self) -> usize {
        self.heads.len() / self.blocks.max(1)
    }

    /// Of a row.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// A row's codes; from one to the next it is [`Rounded::blocks`] times 32.
    pub fn codes(&self, row: usize) -> *const i8 {
        self.codes[row * self.blocks * BLOCK..].as_ptr()
    }

    /// A row's scales and sums, a pair for each block.
    pub fn heads(&self, row: usize) -> *const [f32; 2] {
        self.heads[row * self.blocks..].as_ptr()
    }
}

struct Round<'a> {
    rows: &'a [f32],
    depth: usize,
    rounded: &'a mut Rounded,
}

impl Work for Round<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<L: Lanes>(self) {
        let Self { rows, depth, rounded } = self;
        let (count, blocks) = (rounded.rows(), rounded.blocks);
        assert!(count * depth <= rows.len(), "every row is there");
        let mut place = 0;
        while place < count * blocks {
            let first = place % blocks * BLOCK;
            let left = depth - first;
            // SAFETY: a block's numbers lie within its row, its codes within all; the caller is inside `Level::run`.
            unsafe {
                let from = rows.as_ptr().add(place / blocks * depth + first);
                let (low, high) = (L::load_some(from, left), some::<L>(from.wrapping_add(LANES), left));
                let zero = L::splat(0.0);
                let most = low.max(zero.minus(low)).max(high.max(zero.minus(high))).largest();
                // Numbers so small that they have no scale are 0.
                let inverse = 127.0 / most;
                let inverse = L::splat(if inverse.is_finite() { inverse } else { 0.0 });
                let (low, high) = (low.times(inverse).rounded(), high.times(inverse).rounded());
                let to = rounded.codes.as_mut_ptr().add(place * BLOCK);
                low.store_bytes(to);
                high.store_bytes(to.add(LANES));
                let scale = most / 127.0;
                *rounded.heads.as_mut_ptr().add(place) = [scale, scale * low.plus(high).sum()];
            }
            place += 1;
        }
    }
}

/// The second half of a block of which `left` numbers are left.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn some<L: Lanes>(from: *const f32, left: usize) -> L {
    // SAFETY: the caller's; nothing is read where nothing is left.
    unsafe { if left > LANES { L::load_some(from, left - LANES) } else { L::splat(0.0) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_block_by_block() {
        let rows: Vec<f32> = (0..2 * 40).map(|place| (place as f32 * 0.7).sin() * (1 + place / 40) as f32).collect();
        for level in Level::all() {
            let rounded = Rounded::new(level, &rows, 40);
            assert_eq!((rounded.rows(), rounded.blocks()), (2, 2));
            for (place, [scale, sum]) in rounded.heads.iter().enumerate() {
                let codes = &rounded.codes[place * BLOCK..][..BLOCK];
                let own = &rows[place / 2 * 40..][..40][place % 2 * BLOCK..];
                let own = &own[..own.len().min(BLOCK)];
                let near = |(code, number): (&i8, &f32)| (f32::from(*code) * scale - number).abs() <= 0.5001 * scale;
                assert!(codes.iter().zip(own).all(near), "{level:?}: {codes:?}");
                assert!(codes[own.len()..].iter().all(|code| *code == 0), "{codes:?}");
                assert_eq!(codes.iter().map(|code| code.unsigned_abs()).max(), Some(127));
                let total: i32 = codes.iter().map(|code| i32::from(*code)).sum();
                assert!((total as f32 * scale - sum).abs() < 1e-5);
            }
        }
        let mut rows = [0.0; 96];
        rows[40] = 1e-38;
        let rounded = Rounded::new(Level::best(), &rows, 96);
        assert!(rounded.codes.iter().all(|code| *code == 0));
        assert!(rounded.heads.iter().all(|[scale, sum]| *scale < 1e-37 && *sum == 0.0));
    }
}
