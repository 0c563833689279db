//! Classification heads of transformers' checkpoints.

use espalier_tensor::backend::Activation;

/// Modules of a classification model between the encoder and the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassificationHeadSpec {
    /// Trained dense layer that reads the first token of the last layer; `None` if the head reads the frozen pooler.
    pub dense: Option<DenseLayerSpec>,
    /// Path of the output layer.
    pub output_path: &'static str,
    /// Whether the output layer has a bias.
    pub output_has_bias: bool,
}

/// A dense layer `(hidden, hidden)` and its activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenseLayerSpec {
    pub path: &'static str,
    pub activation: Activation,
}

impl ClassificationHeadSpec {
    /// BERT's head: an output layer on the pooler.
    pub const BERT: Self = Self { dense: None, output_path: "classifier", output_has_bias: true };

    /// A decoder's head: an output layer without bias on the last token.
    pub const DECODER: Self = Self { dense: None, output_path: "score", output_has_bias: false };

    /// RoBERTa's head, which most other encoders share: a dense layer with tanh and an output layer.
    pub const ROBERTA: Self = Self {
        dense: Some(DenseLayerSpec { path: "classifier.dense", activation: Activation::Tanh }),
        output_path: "classifier.out_proj",
        output_has_bias: true,
    };

    /// DistilBERT's head: a dense layer with ReLU and an output layer.
    pub const DISTILBERT: Self = Self {
        dense: Some(DenseLayerSpec { path: "pre_classifier", activation: Activation::Relu }),
        output_path: "classifier",
        output_has_bias: true,
    };

    pub fn dense_activation(&self) -> Option<Activation> {
        self.dense.map(|dense| dense.activation)
    }
}
