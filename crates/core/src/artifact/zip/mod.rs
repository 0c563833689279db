//! An adapter's folder as a zip, out and in.
//!
//! Knows which files matter, not what is in them.

mod unpack;
mod writer;

pub use unpack::unpack;
pub use writer::{write_adapterhub_zip, write_peft_zip};

#[cfg(test)]
mod tests;
