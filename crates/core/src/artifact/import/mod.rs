//! Import of an adapter from a zip, with the reason if it is rejected.
//!
//! An export of this software is restored as it was. A folder of PEFT or AdapterHub states neither labels nor the base's fingerprint:
//! the base's name and all shapes are checked, and a probe is recorded.

mod adapterhub;
mod peft;
mod request;
mod upload;

pub use request::ImportRequest;
pub use upload::import;
