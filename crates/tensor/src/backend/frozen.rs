//! Frozen weights of the base model on a device. There is no operation that returns their gradient.

use super::handles::Buffer;
use std::sync::OnceLock;

/// Frozen linear map `y = x·Wᵀ + b`.
#[derive(Debug)]
pub struct FrozenLinear {
    /// `(output, input)`, in the backend's own layout.
    pub(crate) weight: Buffer,
    /// `(output)`
    pub(crate) bias: Option<Buffer>,
    /// The weight in the layout of the backward pass, built on first use.
    pub(super) transposed: OnceLock<Buffer>,
    /// The weight in a format with integer kernels, built on first use; `None` for maps that stay in `f32`.
    pub(super) int8_copy: Option<OnceLock<Buffer>>,
    pub in_features: usize,
    pub out_features: usize,
}

impl FrozenLinear {
    pub(super) fn new(weight: Buffer, bias: Option<Buffer>, [out_features, in_features]: [usize; 2]) -> Self {
        Self { weight, bias, transposed: OnceLock::new(), int8_copy: None, in_features, out_features }
    }

    /// Lets int8 activations multiply a quantized copy of the weight.
    pub(super) fn with_int8_copy(self) -> Self {
        Self { int8_copy: Some(OnceLock::new()), ..self }
    }

    /// Whether the weight takes fewer than 32 bits per value.
    pub fn is_quantized(&self) -> bool {
        self.weight.is_quantized()
    }

    /// `(output)`
    pub fn bias(&self) -> Option<&Buffer> {
        self.bias.as_ref()
    }

    /// Stored buffers, for hashing.
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        [Some(&self.weight), self.bias.as_ref()].into_iter().flatten()
    }
}

/// Normalisation of a row before weight and bias are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// (x − mean)/σ (Ba, Kiros, Hinton 2016).
    LayerNorm,
    /// x/√mean(x²) (Zhang & Sennrich 2019).
    RmsNorm,
}

/// Frozen norm of rows.
#[derive(Debug)]
pub struct FrozenNorm {
    pub(super) kind: NormKind,
    /// `(width)`
    pub(super) weight: Buffer,
    /// `(width)`
    pub(super) bias: Buffer,
    pub(super) epsilon: f64,
}

impl FrozenNorm {
    /// Stored buffers, for hashing.
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        [&self.weight, &self.bias].into_iter()
    }
}

/// Frozen embedding table.
#[derive(Debug)]
pub struct FrozenEmbedding {
    /// `(entries, width)`
    pub(super) weight: Buffer,
    pub width: usize,
}

impl FrozenEmbedding {
    /// Stored buffers, for hashing.
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        std::iter::once(&self.weight)
    }
}
