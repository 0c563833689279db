//! An adapter as a zip: import and export.

mod unpack;
mod writer;

pub use unpack::{ImportLimits, unpack};
pub use writer::{write_adapterhub_zip, write_peft_zip};

#[cfg(test)]
mod tests;
