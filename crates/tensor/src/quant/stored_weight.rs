//! Weight matrix of a checkpoint, dense or quantized.

use super::{BLOCK_SIZE, QuantFormat};
use crate::Tensor;

/// Weight matrix `(output, input)` as stored in a checkpoint.
#[derive(Debug, Clone)]
pub enum StoredWeight {
    Dense(Tensor),
    /// Row-major; every row is a whole number of blocks in file layout.
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

    /// Transposes the matrix. 16-bit formats stay 16-bit if the new rows are whole blocks; other formats become dense.
    pub fn transposed(self) -> Self {
        let [rows, columns] = self.shape();
        match self {
            Self::Quantized { format: format @ (QuantFormat::F16 | QuantFormat::Bf16), bytes, .. }
                if rows.is_multiple_of(BLOCK_SIZE) =>
            {
                let bytes = transpose(bytes.as_chunks::<2>().0, [rows, columns]).as_flattened().to_vec();
                Self::Quantized { format, shape: [columns, rows], bytes }
            }
            other => {
                let values = transpose(&other.into_dequantized().values, [rows, columns]);
                Self::Dense(Tensor::new([columns, rows], values))
            }
        }
    }

    /// Dequantizes to `f32`.
    pub fn into_dequantized(self) -> Tensor {
        match self {
            Self::Dense(tensor) => tensor,
            Self::Quantized { format, shape: [output, input], bytes } => {
                let mut values = vec![0.0; output * input];
                let rows = bytes.chunks_exact((bytes.len() / output.max(1)).max(1));
                values.chunks_exact_mut(input).zip(rows).for_each(|(out, row)| format.dequantize_row(row, out));
                Tensor::new([output, input], values)
            }
        }
    }
}

fn transpose<T: Copy>(values: &[T], [rows, columns]: [usize; 2]) -> Vec<T> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transpose_swaps_rows_and_columns_in_every_format() {
        let values: Vec<f32> = (0..32 * 3).map(|number| number as f32).collect();
        let transposed = StoredWeight::Dense(Tensor::new([32, 3], values.clone())).transposed();
        assert_eq!(transposed.shape(), [3, 32]);
        let expected = transposed.clone().into_dequantized();
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
