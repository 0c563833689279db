//! Forms that multiply as whole numbers. Knows nothing of what they are multiplied with.

use super::coded::{Coded, Q4_0, Q4_1, Q8_0, Wide4};
use crate::cpu::lanes::Lanes;

/// A form whose codes are bytes or halves of them, and multiply as whole numbers.
///
/// # Safety
/// As [`Coded`], but inside `Level::run_bytes`.
#[allow(clippy::missing_safety_doc, reason = "said once, above")]
pub trait Whole: Coded {
    /// To each lane of `sums` the products of its codes with the numbers on the left, one for each step of the words.
    unsafe fn dots<L: Lanes>(sums: L::Words, words: Self::Words<L>, left: *const i8) -> L::Words;
    /// What a code is multiplied by, and what is added to it then.
    unsafe fn scales<L: Lanes>(head: Self::Head<L>) -> (L, L);
}

impl Whole for Q8_0 {
    #[inline(always)]
    unsafe fn dots<L: Lanes>(sums: L::Words, words: L::Words, left: *const i8) -> L::Words {
        // SAFETY: the caller's.
        unsafe { L::dots::<8>(sums, words, left) }
    }

    #[inline(always)]
    unsafe fn scales<L: Lanes>(head: (L, L)) -> (L, L) {
        head
    }
}

macro_rules! whole_nibbles {
    ($($form:ty)+) => {$(
        impl Whole for $form {
            #[inline(always)]
            unsafe fn dots<L: Lanes>(sums: L::Words, words: (L::Words, L::Words), left: *const i8) -> L::Words {
                // SAFETY: the caller's.
                unsafe { L::dots::<4>(L::dots::<4>(sums, words.0, left), words.1, left.wrapping_add(4)) }
            }

            #[inline(always)]
            unsafe fn scales<L: Lanes>(head: (L, L)) -> (L, L) {
                head
            }
        }
    )+};
}

whole_nibbles!(Q4_0 Q4_1 Wide4);
