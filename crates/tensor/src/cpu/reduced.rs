//! Frozen weights in fewer bits than `f32`, and their products with rows of `f32`.
//!
//! A weight is one number, whatever reads it: a product's, a gradient's and a lookup's are the same to the last bit. It is
//! widened on the way, in registers for few rows and in a first-level cache for many, and multiplied as an `f32`. So every
//! element of a product is one chain of multiply-adds along the depth, as it is in [`super::product`], and a row has the
//! same bits alone, in a batch, and however columns are shared among threads. That holds for rows that are rounded to bytes, too
//! ([`bytes`]), whose blocks are summed as whole numbers.

mod backward;
mod blocks;
mod bytes;
mod coded;
mod few;
mod forms;
mod many;
mod output;
mod reading;
mod rounded;
mod shared;
mod weights;
mod whole;
mod widen;

#[cfg(test)]
mod tests;

pub use forms::Form;
pub use output::Output;
pub use rounded::Rounded;
pub use weights::Reduced;

use super::lanes::Level;
use super::product::Start;
use coded::{Bf16, F16, Q4_0, Q4_1, Q8_0, Wide4, Wide8};
use std::marker::PhantomData;

/// Up to so many rows, widening the weights for every tile of them costs less than a buffer does. Both have the same bits.
const FEW: usize = 36;

/// The body, with a form's type for its name.
macro_rules! with_form {
    ($form:expr, $type:ident, $body:expr) => {
        match $form {
            Form::F16 => {
                type $type = F16;
                $body
            }
            Form::Bf16 => {
                type $type = Bf16;
                $body
            }
            Form::Q8_0 => {
                type $type = Q8_0;
                $body
            }
            Form::Q4_0 => {
                type $type = Q4_0;
                $body
            }
            Form::Q4_1 => {
                type $type = Q4_1;
                $body
            }
            Form::Wide4 => {
                type $type = Wide4;
                $body
            }
            Form::Wide8 => {
                type $type = Wide8;
                $body
            }
        }
    };
}

impl Reduced {
    /// `out = start + x·Wᵀ` for the output's columns, which begin at a multiple of 32 (between two strips). `x` is
    /// `(rows, input)`; a bias has a number for every column.
    pub fn multiply(&self, level: Level, x: &[f32], start: Start, output: &mut Output) {
        if output.rows() <= FEW {
            with_form!(self.form(), F, {
                level.run(few::Few::<F> { weights: self, left: x, start, output, form: PhantomData });
            });
        } else {
            with_form!(self.form(), F, many::multiply::<F>(level, self, x, start, output));
        }
    }

    /// The same of rows that are rounded to bytes.
    ///
    /// # Panics
    /// For the others: [`Form::is_whole`].
    pub fn multiply_rounded(&self, level: Level, x: &Rounded, start: Start, output: &mut Output) {
        macro_rules! run {
            ($form:ty) => {
                level.run_bytes(bytes::Bytes::<$form> { weights: self, left: x, start, output, form: PhantomData })
            };
        }
        match self.form() {
            Form::Q8_0 => run!(Q8_0),
            Form::Q4_0 => run!(Q4_0),
            Form::Q4_1 => run!(Q4_1),
            Form::Wide4 => run!(Wide4),
            Form::F16 | Form::Bf16 | Form::Wide8 => unreachable!("these forms do not multiply as whole numbers"),
        }
    }

    /// `out = start + dY·W`: `gradient` is `(rows, output)`, `out` `(rows, input)`. There is no bias.
    pub fn backward(&self, level: Level, gradient: &[f32], start: Start, out: &mut [f32]) {
        with_form!(self.form(), F, backward::backward::<F>(level, self, gradient, start, out));
    }
}
