//! The forms of a weight in memory, and how a block of each is read in registers.
//!
//! Thirty-two columns of a product, a strip, lie together, and in it 32 steps of the depth, a block: first the scales, then
//! the codes, both panels of sixteen lanes side by side. So a product reads memory from one end to the other. Blocks are
//! whole cache lines.

use crate::compute::cpu::lanes::{LANES, Lanes};

/// Weights along the depth that share a scale.
pub const BLOCK: usize = 32;
/// Columns that lie together.
pub const STRIP: usize = 2 * LANES;

/// How a weight is stored. The names are GGUF's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// IEEE halves: 2 bytes a weight.
    F16,
    /// The upper half of an `f32`: 2 bytes a weight.
    Bf16,
    /// s·q, q from −128 to 127: 34 bytes for 32 weights.
    Q8_0,
    /// s·(q − 8), q from 0 to 15: 18 bytes for 32 weights.
    Q4_0,
    /// s·q + m, q from 0 to 15: 20 bytes for 32 weights.
    Q4_1,
}

impl Form {
    pub const ALL: [Self; 5] = [Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0, Self::Q4_1];

    /// Whether its codes multiply as whole numbers.
    pub const fn is_whole(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0 | Self::Q4_1)
    }

    /// Bytes of 32 weights of a row, in memory as in a file.
    pub const fn file_bytes(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2 * BLOCK,
            Self::Q8_0 => 2 + BLOCK,
            Self::Q4_0 => 2 + BLOCK / 2,
            Self::Q4_1 => 4 + BLOCK / 2,
        }
    }

    /// Bytes of a strip's block.
    pub const fn block_bytes(self) -> usize {
        self.file_bytes() * STRIP
    }

    /// Where a strip's block holds the scale, and the minimum, of a column, in bytes.
    pub fn heads(self, column: usize) -> [Option<usize>; 2] {
        match self {
            Self::F16 | Self::Bf16 => [None, None],
            Self::Q8_0 | Self::Q4_0 => [Some(2 * column), None],
            Self::Q4_1 => [Some(2 * column), Some(2 * (STRIP + column))],
        }
    }

    /// Where a strip's block holds a code, in bits.
    pub fn place(self, column: usize, depth: usize) -> usize {
        let word = |per_word: usize, head: usize| 8 * head + 32 * (depth / per_word * STRIP + column);
        match self {
            Self::F16 => 16 * (depth * STRIP + column),
            Self::Bf16 => word(2, 0) + 16 * (depth % 2),
            Self::Q8_0 => word(4, 2 * STRIP) + 8 * (depth % 4),
            Self::Q4_0 => word(8, 2 * STRIP) + 4 * nibble(depth % 8),
            Self::Q4_1 => word(8, 4 * STRIP) + 4 * nibble(depth % 8),
        }
    }

    pub fn code_bits(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 16,
            Self::Q8_0 => 8,
            Self::Q4_0 | Self::Q4_1 => 4,
        }
    }
}

/// Where in its word the nibble of a step lies: four neighbouring steps are the lower nibbles of four neighbouring bytes, as
/// integer products would read them.
const fn nibble(step: usize) -> usize {
    2 * (step % 4) + step / 4
}

/// A [`Form`] as a type, for kernels that are compiled for it.
///
/// # Safety
/// As [`Lanes`]; `block` points to a whole block of a strip.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Coded: Copy {
    const FORM: Form;
    /// Steps of the depth in what is loaded at once.
    const STEPS: usize;
    /// Cache lines of scales and minima at the beginning of a block.
    const HEADS: usize;
    /// What a panel's block has in common.
    type Head<L: Lanes>: Copy;
    /// What is loaded at once.
    type Words<L: Lanes>: Copy;

    unsafe fn head<L: Lanes>(block: *const u8, panel: usize) -> Self::Head<L>;
    unsafe fn words<L: Lanes>(block: *const u8, panel: usize, group: usize) -> Self::Words<L>;
    /// The panel's weights at one step of the words.
    unsafe fn weights<L: Lanes, const STEP: u32>(words: Self::Words<L>, head: Self::Head<L>) -> L;
}

#[derive(Clone, Copy)]
pub struct F16;
#[derive(Clone, Copy)]
pub struct Bf16;
#[derive(Clone, Copy)]
pub struct Q8_0;
#[derive(Clone, Copy)]
pub struct Q4_0;
#[derive(Clone, Copy)]
pub struct Q4_1;

/// Bytes of a panel's sixteen halves and words, and of a strip's.
const HALVES: usize = 2 * LANES;
const WORDS: usize = 4 * LANES;

impl Coded for F16 {
    const FORM: Form = Form::F16;
    const HEADS: usize = 0;
    const STEPS: usize = 1;
    type Head<L: Lanes> = ();
    type Words<L: Lanes> = L;

    #[inline(always)]
    unsafe fn head<L: Lanes>(_: *const u8, _: usize) {}

    #[inline(always)]
    unsafe fn words<L: Lanes>(block: *const u8, panel: usize, group: usize) -> L {
        // SAFETY: the caller's.
        unsafe { L::halves(block.wrapping_add(group.wrapping_mul(2).wrapping_add(panel).wrapping_mul(HALVES))) }
    }

    #[inline(always)]
    unsafe fn weights<L: Lanes, const STEP: u32>(words: L, (): ()) -> L {
        words
    }
}

/// Where a panel's words lie, behind so many heads of the strip.
#[inline(always)]
fn word<const HEADS: usize>(panel: usize, group: usize) -> usize {
    group.wrapping_mul(2).wrapping_add(panel).wrapping_mul(WORDS).wrapping_add(HEADS * 2 * HALVES)
}

impl Coded for Bf16 {
    const FORM: Form = Form::Bf16;
    const HEADS: usize = 0;
    const STEPS: usize = 2;
    type Head<L: Lanes> = ();
    type Words<L: Lanes> = L::Words;

    #[inline(always)]
    unsafe fn words<L: Lanes>(block: *const u8, panel: usize, group: usize) -> L::Words {
        // SAFETY: the caller's.
        unsafe { L::words(block.wrapping_add(word::<0>(panel, group))) }
    }

    #[inline(always)]
    unsafe fn head<L: Lanes>(_: *const u8, _: usize) {}

    #[inline(always)]
    unsafe fn weights<L: Lanes, const STEP: u32>(words: L::Words, (): ()) -> L {
        // SAFETY: the caller's.
        unsafe { L::brain::<STEP>(words) }
    }
}

impl Coded for Q8_0 {
    const FORM: Form = Form::Q8_0;
    const HEADS: usize = 1;
    const STEPS: usize = 4;
    /// s and −128·s: the weight is s·(q + 128) − 128·s, of so few bits that it is exact.
    type Head<L: Lanes> = (L, L);
    type Words<L: Lanes> = L::Words;

    #[inline(always)]
    unsafe fn words<L: Lanes>(block: *const u8, panel: usize, group: usize) -> L::Words {
        // SAFETY: the caller's.
        unsafe { L::words(block.wrapping_add(word::<1>(panel, group))) }
    }

    #[inline(always)]
    unsafe fn head<L: Lanes>(block: *const u8, panel: usize) -> (L, L) {
        // SAFETY: the caller's.
        unsafe {
            let scale = L::halves(block.wrapping_add(panel.wrapping_mul(HALVES)));
            (scale, scale.times(L::splat(-128.0)))
        }
    }

    #[inline(always)]
    unsafe fn weights<L: Lanes, const STEP: u32>(words: L::Words, (scale, least): (L, L)) -> L {
        // SAFETY: the caller's.
        unsafe { L::byte::<STEP>(words).fused(scale, least) }
    }
}

/// The words and weights of the forms of four bits, at the places that [`nibble`] tells.
macro_rules! nibbles {
    ($heads:expr) => {
        #[inline(always)]
        unsafe fn words<L: Lanes>(block: *const u8, panel: usize, group: usize) -> (L::Words, L::Words) {
            // SAFETY: the caller's.
            unsafe {
                let words = L::words(block.wrapping_add(word::<$heads>(panel, group)));
                (L::nibbles::<0>(words), L::nibbles::<1>(words))
            }
        }

        #[inline(always)]
        unsafe fn weights<L: Lanes, const STEP: u32>(words: (L::Words, L::Words), (scale, least): (L, L)) -> L {
            // SAFETY: the caller's.
            let number = unsafe {
                match STEP {
                    0 => L::byte::<0>(words.0),
                    1 => L::byte::<1>(words.0),
                    2 => L::byte::<2>(words.0),
                    3 => L::byte::<3>(words.0),
                    4 => L::byte::<0>(words.1),
                    5 => L::byte::<1>(words.1),
                    6 => L::byte::<2>(words.1),
                    _ => L::byte::<3>(words.1),
                }
            };
            // SAFETY: as above.
            unsafe { number.fused(scale, least) }
        }
    };
}

impl Coded for Q4_0 {
    const FORM: Form = Form::Q4_0;
    const HEADS: usize = 1;
    const STEPS: usize = 8;
    /// s and −8·s.
    type Head<L: Lanes> = (L, L);
    type Words<L: Lanes> = (L::Words, L::Words);

    nibbles!(1);

    #[inline(always)]
    unsafe fn head<L: Lanes>(block: *const u8, panel: usize) -> (L, L) {
        // SAFETY: the caller's.
        unsafe {
            let scale = L::halves(block.wrapping_add(panel.wrapping_mul(HALVES)));
            (scale, scale.times(L::splat(-8.0)))
        }
    }
}

impl Coded for Q4_1 {
    const FORM: Form = Form::Q4_1;
    const HEADS: usize = 2;
    const STEPS: usize = 8;
    /// s and m.
    type Head<L: Lanes> = (L, L);
    type Words<L: Lanes> = (L::Words, L::Words);

    nibbles!(2);

    #[inline(always)]
    unsafe fn head<L: Lanes>(block: *const u8, panel: usize) -> (L, L) {
        let at = block.wrapping_add(panel.wrapping_mul(HALVES));
        // SAFETY: the caller's.
        unsafe { (L::halves(at), L::halves(at.wrapping_add(2 * HALVES))) }
    }
}
