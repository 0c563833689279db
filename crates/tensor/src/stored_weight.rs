//! A weight as a checkpoint has it, on its way to the kernels: numbers, or blocks in fewer bits.
//!
//! Knows nothing of files.

use super::Tensor;
pub use super::cpu::{QuantFormat, QuantizedWeight};

/// Weights of a row in a block.
const VALUES_PER_BLOCK: usize = 32;

/// A matrix `(output, input)`.
#[derive(Debug, Clone)]
pub enum StoredWeight {
    Dense(Tensor),
    /// Row by row, each in whole blocks.
    Quantized {
        format: QuantFormat,
        shape: [usize; 2],
        bytes: Vec<u8>,
    },
}

impl StoredWeight {
    /// `(output, input)`
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Self::Dense(tensor) => [tensor.shape[0], tensor.shape[1]],
            Self::Quantized { shape, .. } => *shape,
        }
    }

    /// In fewer bits without loss; `None` for numbers.
    pub fn to_quantized(&self) -> Option<QuantizedWeight> {
        let Self::Quantized { format: form, shape: [output, input], bytes } = self else { return None };
        let mut reduced = QuantizedWeight::new(*form, *output, *input);
        let row_bytes = bytes.len() / (*output).max(1);
        bytes
            .chunks_exact(row_bytes.max(1))
            .enumerate()
            .for_each(|(index, bytes)| reduced.copy_row_blocks(index, bytes));
        Some(reduced)
    }

    /// Rows become columns. Halves stay halves where their new rows are whole blocks.
    pub fn transposed(self) -> Self {
        let [rows, columns] = self.shape();
        match self {
            Self::Quantized { format: form @ (QuantFormat::F16 | QuantFormat::Bf16), bytes, .. }
                if rows.is_multiple_of(VALUES_PER_BLOCK) =>
            {
                let bytes = transpose(bytes.as_chunks::<2>().0, [rows, columns]).as_flattened().to_vec();
                Self::Quantized { format: form, shape: [columns, rows], bytes }
            }
            other => {
                let values = transpose(&other.into_dequantized().values, [rows, columns]);
                Self::Dense(Tensor::new([columns, rows], values))
            }
        }
    }

    /// As numbers of 32 bits.
    pub fn into_dequantized(self) -> Tensor {
        match self {
            Self::Dense(tensor) => tensor,
            Self::Quantized { format: form, shape: [output, input], bytes } => {
                let mut values = vec![0.0; output * input];
                let rows = bytes.chunks_exact((bytes.len() / output.max(1)).max(1));
                values.chunks_exact_mut(input).zip(rows).for_each(|(out, row)| form.dequantize_row(row, out));
                Tensor::new([output, input], values)
            }
        }
    }
}

fn transpose<T: Copy>(values: &[T], [rows, columns]: [usize; 2]) -> Vec<T> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// All numbers `(output, input)` of a weight in fewer bits.
pub fn dequantize(weight: &QuantizedWeight) -> Tensor {
    let (output, input) = (weight.out_features(), weight.in_features());
    let mut values = vec![0.0; output * input];
    values.chunks_exact_mut(input).enumerate().for_each(|(row, out)| weight.dequantize_row(row, out));
    Tensor::new([output, input], values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transpose_swaps_rows_and_columns_in_every_format() {
        let values: Vec<f32> = (0..32 * 3).map(|number| number as f32).collect();
        let turned = StoredWeight::Dense(Tensor::new([32, 3], values.clone())).transposed();
        assert_eq!(turned.shape(), [3, 32]);
        let expected = turned.clone().into_dequantized();
        assert_eq!(expected.values[..3], [0.0, 3.0, 6.0]);
        let bytes = values.iter().flat_map(|number| half::f16::from_f32(*number).to_le_bytes()).collect();
        let halves = StoredWeight::Quantized { format: QuantFormat::F16, shape: [32, 3], bytes }.transposed();
        assert!(matches!(halves, StoredWeight::Quantized { format: QuantFormat::F16, shape: [3, 32], .. }));
        assert_eq!(halves.clone().into_dequantized(), expected);
        let restored = halves.transposed();
        assert_eq!(restored.shape(), [32, 3]);
        assert_eq!(restored.into_dequantized().values, values);
    }
}
