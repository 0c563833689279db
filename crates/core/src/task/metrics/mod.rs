//! What a split says of an adapter, by task: as scikit-learn, seqeval and SciPy define the figures.

pub mod classification;
pub mod embedding;
mod figures;
pub mod language;
pub mod multi_label;
pub mod preference;
pub mod regression;
pub mod token_classification;

pub use classification::{Classification, Confusion, PerClass, argmax};
pub use figures::{Figures, is_error};
