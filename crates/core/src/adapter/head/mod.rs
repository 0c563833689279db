//! `head`: trains the task's head on the frozen features of the base (a linear probe); the method has no tensors itself.

use super::method::{Method, TrainingDefaults};
use super::parameter_builder::{BuildContext, ParameterBuilder, TensorMap};
use super::peft::{ModuleNaming, PeftMapping};
use super::tensor_spec::TensorSpec;
use super::validator::MethodValidator;
use crate::error::Result;
use crate::model::{BaseModelInfo, Hooks, SiteInfo};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Settings of `head`. The layers of the head itself are settings of the task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = HeadOnly)]
pub struct Config {
    /// Dropout rate of the head's input during training.
    pub dropout: f64,
}

impl Method for Config {
    fn resolve(&self, _: &BaseModelInfo, sites: &[SiteInfo]) -> Result<Self> {
        let mut validator = MethodValidator::new(sites);
        validator.check_dropout(self.dropout);
        validator.finish(|| true)?;
        Ok(self.clone())
    }

    fn build(&self, _: &BuildContext, _: &mut ParameterBuilder) -> Result<Box<dyn Hooks>> {
        Ok(Box::new(()))
    }

    fn num_virtual_tokens(&self) -> usize {
        0
    }

    fn head_dropout(&self) -> f64 {
        self.dropout
    }

    fn training_defaults(&self) -> TrainingDefaults {
        // A step of the head alone is cheap once the features are cached.
        TrainingDefaults { learning_rate: 1e-3, min_steps: 600 }
    }

    fn learning_rate_ratio(&self, _: &str) -> f64 {
        1.0
    }

    fn is_identity_at_init(&self) -> bool {
        true
    }

    fn inference_weights(&self, _: &BuildContext, weights: TensorMap) -> Result<TensorMap> {
        Ok(weights)
    }

    fn tensor_specs(&self, _: &[SiteInfo], _: ModuleNaming) -> Vec<TensorSpec> {
        Vec::new()
    }

    fn peft(&self) -> Option<&dyn PeftMapping> {
        None
    }
}
