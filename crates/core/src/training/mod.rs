//! Training loop: batching, schedule, optimizer, checkpoints. Blocking functions; no async, no SQL, no HTTP.

pub mod batching;
pub mod checkpoint;
mod checkpoint_schedule;
pub mod compatibility;
mod defaults;
mod divergence;
mod feature_cache;
mod feature_store;
mod gradient_accumulation;
mod head_init;
pub mod hyperparameters;
pub mod job;
mod job_context;
pub mod network;
pub mod optimizer;
mod parallel_forward;
pub mod plan;
pub mod progress;
pub mod samples;
pub mod source_weights;
pub mod spec;
pub mod successive_halving;
pub mod time_estimate;
mod tokenized_dataset;
mod trainer;
mod validation_split;
pub mod warm_start;

pub use hyperparameters::{EarlyStopping, Hyperparameters, Schedule};
pub use job::{Dirs, HalvingResult, Outcome, Settings, TrainingData, TrainingResult};
pub use plan::{Plan, train};
pub use progress::{MetricsRow, Progress, StopReason};
pub use samples::Samples;
pub use source_weights::SourceWeights;
pub use spec::{Spec, Validation};
pub use successive_halving::{Method, SuccessiveHalvingSpec};
pub use warm_start::FromAdapter;
