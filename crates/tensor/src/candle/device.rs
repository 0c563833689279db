//! The device that candle computes on, and how tensors come to it.

use super::ops::{into_buffer, wrap_tensor};
use crate::device::WeightFormat;
use crate::error::{Context, Error, Result};
use crate::{Buffer, Tensor};
use candle_core::{DType, Device};

/// candle on one device.
pub struct CandleBackend {
    pub(super) device: Device,
    /// How frozen weights are held; what is computed with them is rounded likewise.
    pub(super) weight_format: WeightFormat,
}

impl CandleBackend {
    pub fn cpu() -> Self {
        Self::cpu_with_weight_format(WeightFormat::F32)
    }

    pub fn cpu_with_weight_format(weight_format: WeightFormat) -> Self {
        Self { device: Device::Cpu, weight_format }
    }

    /// # Errors
    /// `Invalid` where the build or the machine has no such GPU.
    pub fn cuda(ordinal: usize, weight_format: WeightFormat) -> Result<Self> {
        if !cfg!(feature = "cuda") {
            let detail = "this espalier was built without CUDA: build one with scripts/cuda.sh, or use --device cpu";
            return Err(Error::unsupported("no_such_device", detail));
        }
        let device = Device::new_cuda(ordinal).map_err(|error| {
            let detail = format!("the GPU {ordinal} cannot be used: {error}; `nvidia-smi` lists this machine's GPUs");
            Error::unsupported("no_such_device", detail)
        })?;
        Ok(Self { device, weight_format })
    }

    /// A frozen weight as it is held.
    pub(super) fn upload_frozen(&self, tensor: &Tensor) -> Result<Buffer> {
        let uploaded = self.upload_tensor(tensor)?;
        match self.weight_format {
            WeightFormat::Bf16 => into_buffer("rounding a weight", uploaded.as_candle_tensor().to_dtype(DType::BF16)),
            _ => Ok(uploaded),
        }
    }

    pub(super) fn upload_tensor(&self, tensor: &Tensor) -> Result<Buffer> {
        candle_core::Tensor::from_slice(&tensor.values, tensor.shape.as_slice(), &self.device)
            .map(wrap_tensor)
            .context("copying a tensor to the device")
    }
}
