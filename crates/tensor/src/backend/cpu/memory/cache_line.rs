//! One cache line of `f32` values, the unit of allocation.

use crate::backend::cpu::simd::LANES;

/// One cache line of values.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct CacheLine(pub [f32; LANES]);

impl CacheLine {
    pub const ZERO: Self = Self([0.0; LANES]);
}
