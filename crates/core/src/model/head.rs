//! The classification head that an architecture's checkpoints have in transformers.
//!
//! Knows its layers and what they are called, and builds nothing: a task does.

use super::architecture;
use espalier_tensor::kernels::Activation;

/// Inside the classification model: what stands between the encoder and the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadForm {
    /// Where the first token as it leaves the last layer goes through a dense layer that is trained with the head;
    /// `None` where it goes through the frozen pooler.
    pub dense: Option<DenseForm>,
    /// The path of the outputs' linear map.
    pub output: &'static str,
    /// Whether that map has a bias.
    pub has_bias: bool,
}

/// A dense layer as wide as the base, and its activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenseForm {
    pub path: &'static str,
    pub activation: Activation,
}

impl HeadForm {
    /// That of a `model_type`.
    pub fn of(model_type: &str) -> Self {
        architecture::by_type(model_type).map_or(Self::POOLED, |family| family.head)
    }

    /// BERT's: one linear map of what the pooler gives.
    pub const POOLED: Self = Self { dense: None, output: "classifier", has_bias: true };

    /// A decoder's: one linear map of the last token's row, without a bias.
    pub const SCORE: Self = Self { dense: None, output: "score", has_bias: false };

    /// RoBERTa's, which most have taken over.
    pub const TANH: Self = Self {
        dense: Some(DenseForm { path: "classifier.dense", activation: Activation::Tanh }),
        output: "classifier.out_proj",
        has_bias: true,
    };

    /// DistilBERT's.
    pub const RELU: Self = Self {
        dense: Some(DenseForm { path: "pre_classifier", activation: Activation::Relu }),
        output: "classifier",
        has_bias: true,
    };

    pub fn activation(&self) -> Option<Activation> {
        self.dense.map(|dense| dense.activation)
    }
}
