//! `head`: nothing but the task's head on the base's frozen features (a linear probe).

use super::targets::MethodValidator;
use crate::error::Result;
use crate::model::SiteInfo;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The head itself belongs to the task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = HeadOnly)]
pub struct Config {
    /// Of the rows that the head reads, in training alone.
    pub dropout: f64,
}

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to the wrong value.
    pub fn resolve(&self, sites: &[SiteInfo]) -> Result<Self> {
        let mut validator = MethodValidator::new(sites);
        validator.check_dropout(self.dropout);
        validator.finish(|| true)?;
        Ok(self.clone())
    }
}
