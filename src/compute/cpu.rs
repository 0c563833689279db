//! [`Kernels`] by hand, for CPUs: frozen weights packed once, registers of sixteen, blocks of memory used again.
//!
//! Everything runs on the thread that asks: one micro-batch per thread needs no others, and no thread waits for one.

#![allow(unsafe_code, reason = "registers and unchecked reads inside products, each with the reason why it is sound")]

mod attention;
mod elementwise;
mod kernels;
mod lanes;
mod loss;
mod memory;
mod norm;
mod panels;
mod product;
mod tile;

pub use kernels::Cpu;
pub use lanes::Level;
pub use memory::Matrix;
