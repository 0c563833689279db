//! The trait that every adapter method implements.

use super::parameter_builder::{BuildContext, ParameterBuilder, TensorMap};
use super::peft::{ModuleNaming, PeftMapping};
use super::tensor_spec::TensorSpec;
use crate::error::Result;
use crate::model::{BaseModelInfo, Hooks, SiteInfo};

/// The configuration of one adapter method. `sites` are those of the base under the task's pooling.
///
/// No function has a default: a new method states each of its properties.
pub trait Method {
    /// Validates the settings against the base and fills in every default, so that a stored job is complete.
    ///
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong setting.
    fn resolve(&self, info: &BaseModelInfo, sites: &[SiteInfo]) -> Result<Self>
    where
        Self: Sized;

    /// Builds the hooks of a resolved configuration; `builder` draws or restores the tensors.
    ///
    /// # Errors
    /// `Invalid` where an initial value cannot be computed; otherwise the error of the device.
    fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Box<dyn Hooks>>;

    /// Positions of the context window that the method's virtual tokens occupy; 0 if it has none.
    fn num_virtual_tokens(&self) -> usize;

    /// Dropout rate of the head's input during training; 0 for methods that drop their own input instead.
    fn head_dropout(&self) -> f64;

    /// Default learning rate, and the least number of steps on a small dataset.
    fn training_defaults(&self) -> TrainingDefaults;

    /// Learning rate of a tensor as a multiple of the job's.
    fn learning_rate_ratio(&self, tensor: &str) -> f64;

    /// Whether a freshly initialised adapter leaves the base's output unchanged, bit for bit.
    fn is_identity_at_init(&self) -> bool;

    /// Converts trained tensors to the published ones. `context` has [`TensorSet::Training`](super::TensorSet::Training).
    fn inference_weights(&self, context: &BuildContext, weights: TensorMap) -> Result<TensorMap>;

    /// The published tensors as they are stored in an adapter folder, without the head's.
    fn tensor_specs(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Vec<TensorSpec>;

    /// The mapping to PEFT's `adapter_config.json`; `None` if PEFT has no such method.
    fn peft(&self) -> Option<&dyn PeftMapping>;
}

/// Training defaults of a method, measured on a quarter of banking77 (`benches/README.md`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrainingDefaults {
    pub learning_rate: f64,
    /// Least number of steps on a small dataset.
    pub min_steps: u64,
}

impl TrainingDefaults {
    /// Least number of steps of a method that changes the base's outputs.
    pub const MIN_STEPS: u64 = 150;

    /// For a method that changes the base's outputs.
    pub const fn with_learning_rate(learning_rate: f64) -> Self {
        Self { learning_rate, min_steps: Self::MIN_STEPS }
    }
}
