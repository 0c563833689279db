//! The base's weights on a device: whatever kernels froze, in the form that they compute best with.

use super::Buffer;
use super::backend::Storage;
use std::sync::OnceLock;

/// A frozen linear map `y = x·Wᵀ + b` on a device, in whatever form it computes best with.
#[derive(Debug)]
pub struct FrozenLinear {
    /// `(output, input)` as it is, or in panels.
    pub(super) weight: Buffer,
    /// `(output)`
    pub(super) bias: Option<Buffer>,
    /// The weight once more as a backward pass reads it, made by the first that does.
    pub(super) transposed: OnceLock<Buffer>,
    pub in_features: usize,
    pub out_features: usize,
}

impl FrozenLinear {
    /// Whether its weight is held in fewer bits than 32.
    pub fn is_quantized(&self) -> bool {
        matches!(self.weight.0, Storage::Quantized(_))
    }
}

/// What a norm makes of a row before its gain and shift.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// (x − mean)/σ (Ba, Kiros, Hinton 2016).
    LayerNorm,
    /// x/√mean(x²) (Zhang & Sennrich 2019).
    RmsNorm,
}

/// A frozen norm of rows.
#[derive(Debug)]
pub struct FrozenNorm {
    pub(super) kind: NormKind,
    /// `(width)`
    pub(super) weight: Buffer,
    /// `(width)`
    pub(super) bias: Buffer,
    pub(super) epsilon: f64,
}

/// A frozen table of rows, looked up by index.
#[derive(Debug)]
pub struct FrozenEmbedding {
    pub(super) weight: Buffer,
    pub width: usize,
}

impl FrozenLinear {
    /// `(output)`
    pub fn bias(&self) -> Option<&Buffer> {
        self.bias.as_ref()
    }

    /// What is stored, for hashing.
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        [Some(&self.weight), self.bias.as_ref()].into_iter().flatten()
    }
}

impl FrozenNorm {
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        [&self.weight, &self.bias].into_iter()
    }
}

impl FrozenEmbedding {
    pub fn buffers(&self) -> impl Iterator<Item = &Buffer> {
        std::iter::once(&self.weight)
    }
}
