//! What a split says of an adapter, by task: as scikit-learn and SciPy define the figures.

pub mod classification;
mod figures;
pub mod multi_label;
pub mod regression;

pub use classification::{Classification, Confusion, PerClass, argmax};
pub use figures::Figures;
