//! The classification head that an architecture's checkpoints have in transformers.
//!
//! Knows its layers and what they are called, and builds nothing: a task does.

use super::architecture;
use espalier_tensor::backend::Activation;

/// Inside the classification model: what stands between the encoder and the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassificationHeadSpec {
    /// Where the first token as it leaves the last layer goes through a dense layer that is trained with the head;
    /// `None` where it goes through the frozen pooler.
    pub dense: Option<DenseLayerSpec>,
    /// The path of the outputs' linear map.
    pub output_path: &'static str,
    /// Whether that map has a bias.
    pub output_has_bias: bool,
}

/// A dense layer as wide as the base, and its activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenseLayerSpec {
    pub path: &'static str,
    pub activation: Activation,
}

impl ClassificationHeadSpec {
    /// That of a `model_type`.
    pub fn for_model_type(model_type: &str) -> Self {
        architecture::find_entry(model_type).map_or(Self::BERT, |family| family.classification_head)
    }

    /// BERT's: one linear map of what the pooler gives.
    pub const BERT: Self = Self { dense: None, output_path: "classifier", output_has_bias: true };

    /// A decoder's: one linear map of the last token's row, without a bias.
    pub const DECODER: Self = Self { dense: None, output_path: "score", output_has_bias: false };

    /// RoBERTa's, which most have taken over.
    pub const ROBERTA: Self = Self {
        dense: Some(DenseLayerSpec { path: "classifier.dense", activation: Activation::Tanh }),
        output_path: "classifier.out_proj",
        output_has_bias: true,
    };

    /// DistilBERT's.
    pub const DISTILBERT: Self = Self {
        dense: Some(DenseLayerSpec { path: "pre_classifier", activation: Activation::Relu }),
        output_path: "classifier",
        output_has_bias: true,
    };

    pub fn dense_activation(&self) -> Option<Activation> {
        self.dense.map(|dense| dense.activation)
    }
}
