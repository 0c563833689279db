//! Pooling: from the rows of a sequence to one row, and BERT's pooler.

use super::hooks::{self, Hooks};
use super::site::{Site, SiteInfo};
use crate::error::Result;
use espalier_tensor::backend::{Activation, FrozenLinear, PoolingKind};
use espalier_tensor::{Tape, Var};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// How the rows of a sequence become one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean over the sequence's tokens (Reimers & Gurevych 2019).
    Mean,
    /// As `AutoModelForSequenceClassification` does: the first token through BERT's pooler. In architectures whose heads have a
    /// trained dense layer in its place (RoBERTa, DistilBERT), the first token of the last layer; the head has the dense layer.
    Cls,
    /// The first token of the last layer, as `pooling_mode_cls_token` of sentence-transformers.
    First,
    /// The last token of the last layer. In a decoder it is the only one that attends to all others.
    Last,
}

/// Rows of the last layer that are read. The other rows are not computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequiredRows {
    All,
    /// The first row of each sequence.
    First,
    /// The last row of each sequence.
    Last,
}

impl RequiredRows {
    /// Selects the required rows: `(rows, width)` or `(sequences, width)`.
    pub fn select(self, tape: &mut Tape, rows: Var) -> Result<Var> {
        match self {
            Self::All => Ok(rows),
            Self::First => Ok(tape.pool(rows, PoolingKind::First)?),
            Self::Last => Ok(tape.pool(rows, PoolingKind::Last)?),
        }
    }
}

impl Pooling {
    /// Rows of the last layer that this pooling reads.
    pub fn required_rows(self) -> RequiredRows {
        match self {
            Self::Mean => RequiredRows::All,
            Self::Cls | Self::First => RequiredRows::First,
            Self::Last => RequiredRows::Last,
        }
    }
}

/// BERT's pooler: the first token through a dense layer and tanh.
pub struct Pooler {
    pub dense: Arc<FrozenLinear>,
    /// Path of the dense layer in the model with a head.
    pub module_path: String,
}

impl Pooler {
    /// Pools the first token of each sequence: `(rows, hidden)` → `(sequences, hidden)`.
    pub fn forward(&self, tape: &mut Tape, hidden: Var, hooks: &dyn Hooks) -> Result<Var> {
        let first_token = tape.pool(hidden, PoolingKind::First)?;
        let dense = hooks::linear(tape, hooks, Site::POOLER, &self.dense, first_token)?;
        Ok(tape.activate(Activation::Tanh, dense)?)
    }

    pub fn site(&self) -> SiteInfo {
        hooks::linear_site_info(&self.dense, Site::POOLER, self.module_path.clone())
    }
}
