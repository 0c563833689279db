//! The device that candle computes on, and how tensors come to it.

use super::kernels::{buffer, done};
use crate::device::Weights;
use crate::error::{Context, Error, Result};
use crate::{Buffer, Tensor};
use candle_core::{DType, Device};

/// candle on one device.
pub struct Candle {
    pub(super) device: Device,
    /// How frozen weights are held; what is computed with them is rounded likewise.
    pub(super) weights: Weights,
}

impl Candle {
    pub fn cpu() -> Self {
        Self::cpu_with(Weights::F32)
    }

    pub fn cpu_with(weights: Weights) -> Self {
        Self { device: Device::Cpu, weights }
    }

    /// # Errors
    /// `Invalid` where the build or the machine has no such GPU.
    pub fn cuda(number: usize, weights: Weights) -> Result<Self> {
        if !cfg!(feature = "cuda") {
            let detail = "this espalier was built without CUDA: build one with scripts/cuda.sh, or use --device cpu";
            return Err(Error::unsupported("no_such_device", detail));
        }
        let device = Device::new_cuda(number).map_err(|error| {
            let detail = format!("the GPU {number} cannot be used: {error}; `nvidia-smi` lists this machine's GPUs");
            Error::unsupported("no_such_device", detail)
        })?;
        Ok(Self { device, weights })
    }

    /// A frozen weight as it is held.
    pub(super) fn frozen(&self, tensor: &Tensor) -> Result<Buffer> {
        let held = self.tensor(tensor)?;
        match self.weights {
            Weights::Bf16 => done("rounding a weight", held.tensor().to_dtype(DType::BF16)),
            _ => Ok(held),
        }
    }

    pub(super) fn tensor(&self, tensor: &Tensor) -> Result<Buffer> {
        candle_core::Tensor::from_slice(&tensor.values, tensor.shape.as_slice(), &self.device)
            .map(buffer)
            .context("copying a tensor to the device")
    }
}
