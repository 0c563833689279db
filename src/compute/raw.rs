//! A weight as a checkpoint has it, on its way to the kernels: numbers, or blocks in fewer bits.
//!
//! Knows nothing of files.

use super::Tensor;
pub use super::cpu::{Form, Reduced};

/// A matrix `(output, input)`.
#[derive(Debug, Clone)]
pub enum Raw {
    Numbers(Tensor),
    /// Row by row, each in whole blocks.
    Blocks {
        form: Form,
        shape: [usize; 2],
        bytes: Vec<u8>,
    },
}

impl Raw {
    /// `(output, input)`
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Numbers(tensor) => [tensor.shape[0], tensor.shape[1]],
            Self::Blocks { shape, .. } => *shape,
        }
    }

    /// In fewer bits without loss; `None` for numbers.
    pub fn reduced(&self) -> Option<Reduced> {
        let Self::Blocks { form, shape: [output, input], bytes } = self else { return None };
        let mut reduced = Reduced::new(*form, *output, *input);
        let row = bytes.len() / (*output).max(1);
        bytes.chunks_exact(row.max(1)).enumerate().for_each(|(index, bytes)| reduced.copy_row(index, bytes));
        Some(reduced)
    }

    /// As numbers of 32 bits.
    pub fn tensor(self) -> Tensor {
        match self {
            Self::Numbers(tensor) => tensor,
            Self::Blocks { form, shape: [output, input], bytes } => {
                let mut values = vec![0.0; output * input];
                let rows = bytes.chunks_exact((bytes.len() / output.max(1)).max(1));
                values.chunks_exact_mut(input).zip(rows).for_each(|(out, row)| form.widen(row, out));
                Tensor::new([output, input], values)
            }
        }
    }
}

/// All numbers `(output, input)` of a weight in fewer bits.
pub fn numbers(reduced: &Reduced) -> Tensor {
    let (output, input) = (reduced.output(), reduced.input());
    let mut values = vec![0.0; output * input];
    values.chunks_exact_mut(input).enumerate().for_each(|(row, out)| reduced.row(row, out));
    Tensor::new([output, input], values)
}
