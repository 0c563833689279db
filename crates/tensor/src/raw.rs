//! A weight as a checkpoint has it, on its way to the kernels: numbers, or blocks in fewer bits.
//!
//! Knows nothing of files.

use super::Tensor;
pub use super::cpu::{Form, Reduced};

/// Weights of a row in a block.
const BLOCK: usize = 32;

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

    /// Rows become columns. Halves stay halves where their new rows are whole blocks.
    pub fn turned(self) -> Self {
        let [rows, columns] = self.shape();
        match self {
            Self::Blocks { form: form @ (Form::F16 | Form::Bf16), bytes, .. } if rows.is_multiple_of(BLOCK) => {
                let bytes = turned(bytes.as_chunks::<2>().0, [rows, columns]).as_flattened().to_vec();
                Self::Blocks { form, shape: [columns, rows], bytes }
            }
            other => {
                let values = turned(&other.tensor().values, [rows, columns]);
                Self::Numbers(Tensor::new([columns, rows], values))
            }
        }
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

fn turned<T: Copy>(all: &[T], [rows, columns]: [usize; 2]) -> Vec<T> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| all[row * columns + column])).collect()
}

/// All numbers `(output, input)` of a weight in fewer bits.
pub fn numbers(reduced: &Reduced) -> Tensor {
    let (output, input) = (reduced.output(), reduced.input());
    let mut values = vec![0.0; output * input];
    values.chunks_exact_mut(input).enumerate().for_each(|(row, out)| reduced.row(row, out));
    Tensor::new([output, input], values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turned_weight_has_its_rows_as_columns_in_any_form() {
        let numbers: Vec<f32> = (0..32 * 3).map(|number| number as f32).collect();
        let turned = Raw::Numbers(Tensor::new([32, 3], numbers.clone())).turned();
        assert_eq!(turned.shape(), [3, 32]);
        let expected = turned.clone().tensor();
        assert_eq!(expected.values[..3], [0.0, 3.0, 6.0]);
        let bytes = numbers.iter().flat_map(|number| half::f16::from_f32(*number).to_le_bytes()).collect();
        let halves = Raw::Blocks { form: Form::F16, shape: [32, 3], bytes }.turned();
        assert!(matches!(halves, Raw::Blocks { form: Form::F16, shape: [3, 32], .. }));
        assert_eq!(halves.clone().tensor(), expected);
        let back = halves.turned();
        assert_eq!(back.shape(), [32, 3]);
        assert_eq!(back.tensor().values, numbers);
    }
}
