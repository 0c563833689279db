//! One remembered operation: where its gradient goes, and what its backward pass needs.

use super::{Param, Rows};
use crate::Packed;
use crate::distance::{Distance, Near};
use crate::kernels::{AttentionSaved, Buffer, FrozenLinear, FrozenNorm, NormSaved, Pool};
use crate::rotary::Rotation;
use std::ops::Range;
use std::sync::Arc;

/// Distances within sequences.
pub struct Within {
    pub distance: Arc<Distance>,
    /// The sequences without keys in front.
    pub own: Arc<Packed>,
}

impl Within {
    pub fn near(&self) -> Near<'_> {
        Near { distance: &self.distance, own: &self.own }
    }
}

/// Attention that has been computed.
pub struct Attended {
    pub inputs: [Rows; 3],
    pub output: Rows,
    pub qkv: [Buffer; 3],
    pub saved: AttentionSaved,
    pub heads: usize,
    /// Of the queries, and of keys and values.
    pub layouts: [Arc<Packed>; 2],
    pub within: Option<Within>,
}

/// A low-rank update that has been added.
pub struct Updated {
    pub onto: Rows,
    pub input: Rows,
    pub output: Rows,
    pub x: Buffer,
    pub projected: Buffer,
    pub a: Param,
    pub b: Param,
    pub scale: f64,
}

pub enum Node {
    Linear {
        input: Rows,
        output: Rows,
        map: Arc<FrozenLinear>,
    },
    Dense {
        input: Rows,
        output: Rows,
        x: Buffer,
        weight: Param,
        bias: Param,
    },
    LowRank(Updated),
    Norm {
        input: Rows,
        residual: Option<Rows>,
        output: Rows,
        saved: NormSaved,
        norm: Arc<FrozenNorm>,
    },
    /// Element by element: an activation's derivative, a dropout mask.
    Times {
        input: Rows,
        output: Rows,
        factor: Buffer,
    },
    /// A copy, or something constant added.
    Pass {
        input: Rows,
        output: Rows,
    },
    Parameter {
        parameter: Param,
        output: Rows,
    },
    ScaleColumns {
        onto: Rows,
        factors: Rows,
        output: Rows,
        x: Buffer,
        l: Buffer,
    },
    AddColumns {
        onto: Rows,
        shifts: Rows,
        output: Rows,
    },
    AddRows {
        onto: Rows,
        added: Rows,
        output: Rows,
        scale: f64,
    },
    Prepend {
        input: Rows,
        front: Rows,
        output: Rows,
        /// Of the input.
        layout: Arc<Packed>,
        /// Rows in the front.
        count: usize,
    },
    Attention(Attended),
    Rotate {
        input: Rows,
        output: Rows,
        heads: usize,
        rotation: Arc<Rotation>,
        positions: Arc<[u32]>,
    },
    Columns {
        input: Rows,
        output: Rows,
        columns: Range<usize>,
        /// Of the input.
        width: usize,
    },
    Gated {
        input: Rows,
        output: Rows,
        factors: Buffer,
    },
    Product {
        factors: [Rows; 2],
        output: Rows,
        values: [Buffer; 2],
    },
    Fold {
        input: Rows,
        output: Rows,
        /// Of the input.
        width: usize,
    },
    Pick {
        input: Rows,
        output: Rows,
        which: Arc<[u32]>,
        /// Rows of the input.
        count: usize,
    },
    Pool {
        input: Rows,
        output: Rows,
        layout: Arc<Packed>,
        pool: Pool,
    },
}

impl Node {
    pub fn output(&self) -> Rows {
        match self {
            Self::Linear { output, .. }
            | Self::Dense { output, .. }
            | Self::Norm { output, .. }
            | Self::Times { output, .. }
            | Self::Pass { output, .. }
            | Self::Parameter { output, .. }
            | Self::ScaleColumns { output, .. }
            | Self::AddColumns { output, .. }
            | Self::AddRows { output, .. }
            | Self::Prepend { output, .. }
            | Self::Rotate { output, .. }
            | Self::Columns { output, .. }
            | Self::Gated { output, .. }
            | Self::Product { output, .. }
            | Self::Fold { output, .. }
            | Self::Pick { output, .. }
            | Self::Pool { output, .. } => *output,
            Self::LowRank(updated) => updated.output,
            Self::Attention(attended) => attended.output,
        }
    }
}
