//! A tensor in host memory: what weights files hold, and what travels to and from a device.

/// Row-major `f32` values with their shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Tensor {
    /// # Panics
    /// Where the shape does not hold exactly the values: that is a mistake in the calling code.
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

    /// The bytes as a safetensors file holds them.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// The number of bytes in memory and, as `F32`, in a file.
    pub fn bytes(&self) -> usize {
        self.values.len() * size_of::<f32>()
    }
}
