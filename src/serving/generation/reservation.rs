//! Memory that is reserved for running sequences.

use std::iter::Sum;
use std::ops::{Add, Sub};

/// Memory that is reserved for a running sequence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reservation {
    /// KV blocks of the longest possible sequence, without those that belong to the prefix cache.
    pub kv_blocks: usize,
    /// Bytes of its constraint.
    pub constraint_bytes: u64,
}

impl Add for Reservation {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            kv_blocks: self.kv_blocks + other.kv_blocks,
            constraint_bytes: self.constraint_bytes + other.constraint_bytes,
        }
    }
}

impl Sub for Reservation {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            kv_blocks: self.kv_blocks - other.kv_blocks,
            constraint_bytes: self.constraint_bytes - other.constraint_bytes,
        }
    }
}

impl Sum for Reservation {
    fn sum<I: Iterator<Item = Self>>(reservations: I) -> Self {
        reservations.fold(Self::default(), Add::add)
    }
}
