//! Which rows of the last layer are looked at, and how a sequence becomes one.

use crate::error::Result;
use espalier_tensor::backend::PoolingKind;
use espalier_tensor::{Tape, Var};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a sequence becomes one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean over the sequence's tokens (Reimers & Gurevych 2019).
    Mean,
    /// As `AutoModelForSequenceClassification` does: the first token through BERT's pooler; in architectures whose heads have
    /// a trained dense layer in its place (RoBERTa, DistilBERT), as it leaves the last layer, and the head has that layer.
    Cls,
    /// The first token as it leaves the last layer, as sentence-transformers does with `pooling_mode_cls_token`.
    First,
    /// The last token as it leaves the last layer: in a decoder the only one that has seen all others.
    Last,
}

/// Which rows of the last layer somebody will look at: the others need not be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequiredRows {
    All,
    /// The first of each sequence.
    First,
    /// The last of each sequence.
    Last,
}

impl RequiredRows {
    /// Those of some rows.
    pub fn select(self, tape: &mut Tape, rows: Var) -> Result<Var> {
        match self {
            Self::All => Ok(rows),
            Self::First => Ok(tape.kind(rows, PoolingKind::First)?),
            Self::Last => Ok(tape.kind(rows, PoolingKind::Last)?),
        }
    }
}

impl Pooling {
    /// The rows that it reads.
    pub fn required_rows(self) -> RequiredRows {
        match self {
            Self::Mean => RequiredRows::All,
            Self::Cls | Self::First => RequiredRows::First,
            Self::Last => RequiredRows::Last,
        }
    }
}
