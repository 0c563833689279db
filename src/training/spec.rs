//! Everything that can change the bytes of a result, fixed when the job is submitted and stored with it.

use super::Hyperparameters;
use crate::error::Result;
use crate::model::Base;
use crate::{adapter, task};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A job's request with every default written out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Spec {
    pub task: task::Config,
    pub method: adapter::Config,
    pub hyperparameters: Hyperparameters,
    pub validation: Validation,
    /// In the order of the head's rows.
    pub labels: Vec<String>,
    /// Tokens per micro-batch: the cut decides the order in which gradients are summed.
    pub micro_batch_tokens: usize,
    /// The kernel set, for example `candle-cpu`.
    pub kernels: String,
    /// The base's fingerprint.
    pub base: String,
}

/// Where the validation examples come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Validation {
    /// A stratified, seeded share of the dataset, 0 for none.
    Fraction(f64),
    /// Another dataset of the same shape.
    DatasetId(uuid::Uuid),
}

/// What a user asked for; every field may be left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    pub task: Option<task::Config>,
    pub method: Option<adapter::Config>,
    pub hyperparameters: Hyperparameters,
    pub validation: Option<Validation>,
}

impl Spec {
    /// Checks the request against the base and writes every default out. `labels` are the dataset's, any order.
    ///
    /// # Errors
    /// `Invalid` with a pointer for every value that is out of range or unknown to this base.
    pub fn resolve(request: &Request, labels: &[String], examples: usize, base: &Base) -> Result<Self> {
        let _ = (request, labels, examples, base);
        todo!("written by the training room")
    }
}
