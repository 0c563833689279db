//! Recorded operations, with their inputs and saved activations.

use super::{ParamId, Var};
use crate::RaggedLayout;
use crate::attention_mask::{AttentionMask, MaskContext};
use crate::backend::{AttentionSaved, Buffer, FrozenLinear, FrozenNorm, NormSaved, PoolingKind, RotaryTable};
use std::ops::Range;
use std::sync::Arc;

/// Attention mask of a recorded operation, with the key layout that it refers to.
pub struct MaskArgs {
    pub mask: Arc<AttentionMask>,
    /// Key layout without prefixes.
    pub unprefixed_key_layout: Arc<RaggedLayout>,
}

impl MaskArgs {
    pub fn context(&self) -> MaskContext<'_> {
        MaskContext { mask: &self.mask, unprefixed_key_layout: &self.unprefixed_key_layout }
    }
}

/// Recorded attention.
pub struct AttentionOp {
    pub inputs: [Var; 3],
    pub output: Var,
    pub qkv: [Buffer; 3],
    pub saved: AttentionSaved,
    pub heads: usize,
    /// Layouts of the queries, and of keys and values.
    pub layouts: [Arc<RaggedLayout>; 2],
    pub mask: Option<MaskArgs>,
}

/// Recorded low-rank update.
pub struct LoraOp {
    pub target: Var,
    pub input: Var,
    pub output: Var,
    pub x: Buffer,
    pub projected: Buffer,
    pub a: ParamId,
    pub b: ParamId,
    pub scale: f64,
}

/// A recorded operation: its inputs, output and saved activations.
pub enum Op {
    Linear {
        input: Var,
        output: Var,
        linear: Arc<FrozenLinear>,
    },
    Dense {
        input: Var,
        output: Var,
        x: Buffer,
        weight: ParamId,
        bias: ParamId,
    },
    Lora(LoraOp),
    Norm {
        input: Var,
        residual: Option<Var>,
        output: Var,
        saved: NormSaved,
        norm: Arc<FrozenNorm>,
    },
    /// Product with a constant: the derivative of an activation, or a dropout mask.
    MulConstant {
        input: Var,
        output: Var,
        factor: Buffer,
    },
    /// Copy, or addition of a constant.
    Identity {
        input: Var,
        output: Var,
    },
    Parameter {
        parameter: ParamId,
        output: Var,
    },
    ScaleChannels {
        target: Var,
        factors: Var,
        output: Var,
        x: Buffer,
        factor_rows: Buffer,
    },
    AddChannels {
        target: Var,
        bias: Var,
        output: Var,
    },
    AddRowsScaled {
        target: Var,
        added: Var,
        output: Var,
        scale: f64,
    },
    PrependRows {
        input: Var,
        prefix: Var,
        output: Var,
        /// Layout of the input.
        layout: Arc<RaggedLayout>,
        /// Rows of the prefix.
        prefix_rows: usize,
    },
    Attention(AttentionOp),
    ApplyRotary {
        input: Var,
        output: Var,
        heads: usize,
        rotary: Arc<RotaryTable>,
        positions: Arc<[u32]>,
    },
    SliceChannels {
        input: Var,
        output: Var,
        channels: Range<usize>,
        /// Width of the input.
        width: usize,
    },
    Glu {
        input: Var,
        output: Var,
        factors: Buffer,
    },
    Mul {
        factors: [Var; 2],
        output: Var,
        values: [Buffer; 2],
    },
    Reshape {
        input: Var,
        output: Var,
        /// Width of the input.
        width: usize,
    },
    GatherRows {
        input: Var,
        output: Var,
        indices: Arc<[u32]>,
        /// Number of rows of the input.
        row_count: usize,
    },
    Pool {
        input: Var,
        output: Var,
        layout: Arc<RaggedLayout>,
        kind: PoolingKind,
    },
}

impl Op {
    pub fn output(&self) -> Var {
        match self {
            Self::Linear { output, .. }
            | Self::Dense { output, .. }
            | Self::Norm { output, .. }
            | Self::MulConstant { output, .. }
            | Self::Identity { output, .. }
            | Self::Parameter { output, .. }
            | Self::ScaleChannels { output, .. }
            | Self::AddChannels { output, .. }
            | Self::AddRowsScaled { output, .. }
            | Self::PrependRows { output, .. }
            | Self::ApplyRotary { output, .. }
            | Self::SliceChannels { output, .. }
            | Self::Glu { output, .. }
            | Self::Mul { output, .. }
            | Self::Reshape { output, .. }
            | Self::GatherRows { output, .. }
            | Self::Pool { output, .. } => *output,
            Self::Lora(op) => op.output,
            Self::Attention(op) => op.output,
        }
    }
}
