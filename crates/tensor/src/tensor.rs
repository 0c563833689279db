//! Tensor in host memory.

/// Row-major `f32` values with their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Tensor {
    /// # Panics
    /// If the number of values does not match the shape.
    pub fn new(shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), values.len(), "shape {shape:?} must hold the values");
        Self { shape, values }
    }

    pub fn zeros(shape: impl Into<Vec<usize>>) -> Self {
        let shape = shape.into();
        let values = vec![0.0; shape.iter().product()];
        Self { shape, values }
    }

    /// Little-endian bytes, as in a safetensors file.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.values.len() * size_of::<f32>()
    }
}
