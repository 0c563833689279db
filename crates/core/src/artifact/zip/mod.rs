//! An adapter's folder as a zip, out and in.
//!
//! Knows which files matter, not what is in them.

mod export;
mod unpack;

pub use export::{export, export_to_hub};
pub use unpack::unpack;

#[cfg(test)]
mod tests;
