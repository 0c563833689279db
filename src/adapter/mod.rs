//! What is trained: one file per method, each knowing the base only by its sites.
//!
//! Knows nothing of tasks, files or training. A method is a variant of [`Config`]; that one derive parses a request,
//! validates it, stores it and documents it.

pub mod head;
pub mod lora;
pub mod parameters;

use crate::error::Result;
use crate::model::{Hooks, SiteInfo};
pub use parameters::{Init, Parameters};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The method of an adaptation job, tagged by `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = Method)]
pub enum Config {
    Lora(lora::Config),
    Head(head::Config),
}

impl Default for Config {
    fn default() -> Self {
        Self::Lora(lora::Config::default())
    }
}

impl Config {
    /// The word in `type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lora(_) => "lora",
            Self::Head(_) => "head",
        }
    }

    /// Checks the settings against the base's sites and writes out every default, so that what is stored with a job
    /// says all that matters.
    ///
    /// # Errors
    /// `Invalid` naming the setting and what would be right.
    pub fn resolve(&self, sites: &[SiteInfo]) -> Result<Self> {
        match self {
            Self::Lora(config) => Ok(Self::Lora(config.resolve(sites)?)),
            Self::Head(config) => Ok(Self::Head(config.clone())),
        }
    }

    /// Builds the method on the sites it touches; its tensors are drawn or restored by `parameters`.
    pub fn build(&self, sites: &[SiteInfo], parameters: &mut Parameters) -> Result<Box<dyn Hooks>> {
        match self {
            Self::Lora(config) => Ok(Box::new(lora::Lora::build(config, sites, parameters)?)),
            Self::Head(_) => Ok(Box::new(())),
        }
    }
}
