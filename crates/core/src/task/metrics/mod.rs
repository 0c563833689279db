//! What a split says of an adapter, by task: as scikit-learn, seqeval and SciPy define the figures.

pub mod classification;
pub mod embedding;
pub mod language_model;
pub mod multi_label;
pub mod preference;
pub mod regression;
mod task_metrics;
pub mod token_classification;

pub use classification::{Classification, Confusion, PerClass, argmax};
pub use task_metrics::{TaskMetrics, is_lower_better};
