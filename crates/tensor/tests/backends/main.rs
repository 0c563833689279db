//! Tests of the backends: agreement with each other, and gradients against finite differences.

mod agreement;
mod gradients;
