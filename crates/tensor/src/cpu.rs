//! [`Kernels`] by hand, for CPUs: frozen weights packed once, registers of sixteen, blocks of memory used again.
//!
//! Everything runs on the thread that asks: one micro-batch per thread needs no others, and no thread waits for one.

#![allow(unsafe_code, reason = "registers and unchecked reads inside products, each with the reason why it is sound")]

mod activation;
mod attention;
mod columns;
mod elementwise;
mod held;
mod kernels;
mod lanes;
mod lasting;
mod loss;
mod low_rank;
mod machine;
mod memory;
mod norm;
mod octets;
mod panels;
mod parameters;
mod pooling;
mod product;
mod recall;
mod reduced;
mod rotary;
mod shade;
mod single;
mod softmax;
mod team;
mod tile;
mod together;

pub use lanes::{LANES, Lanes, Level, Work};
pub use machine::{Cpu, Held};
pub use memory::{Draft, Matrix};
pub use octets::Octets;
pub use reduced::{Form, Reduced};
pub use together::together;
