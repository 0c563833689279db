//! Backend on candle: NVIDIA GPUs, and the oracle of the tests.
//!
//! Forward passes that save nothing use `candle-nn`'s fused softmax, norms and rotary embeddings. Backward passes are
//! written out here: candle's autograd also computes the gradients of frozen weights, and its fused operations cut the
//! graph.

mod activation;
mod attention;
mod channel_ops;
mod kv_cache;
mod lora;
mod norm;
mod ops;
mod rotary;
mod weights;

use crate::backend::{Buffer, DeviceBuffer, Parameter};
use crate::error::{Context, Error, Result};
use crate::{Tensor, WeightFormat};
use candle_core::Device;

type CandleTensor = candle_core::Tensor;
type CandleResult<T = CandleTensor> = candle_core::Result<T>;

/// candle on one device.
pub struct CandleBackend {
    device: Device,
    /// Storage format of frozen weights, and the precision of the products with them.
    weight_format: WeightFormat,
}

impl CandleBackend {
    pub fn cpu() -> Self {
        Self::cpu_with_weight_format(WeightFormat::F32)
    }

    pub fn cpu_with_weight_format(weight_format: WeightFormat) -> Self {
        Self { device: Device::Cpu, weight_format }
    }

    /// # Errors
    /// `Unsupported` if the build or the machine has no such GPU.
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

    fn upload_tensor(&self, tensor: &Tensor) -> Result<CandleTensor> {
        CandleTensor::from_slice(&tensor.values, tensor.shape.as_slice(), &self.device)
            .context("copying a tensor to the device")
    }
}

impl DeviceBuffer for CandleTensor {
    fn rows(&self) -> usize {
        self.dims().first().copied().unwrap_or(1)
    }

    fn width(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }
}

impl Buffer {
    /// # Panics
    /// If the buffer belongs to another backend.
    fn as_tensor(&self) -> &CandleTensor {
        self.downcast_ref().expect("the buffer belongs to this backend")
    }
}

impl Parameter {
    /// # Panics
    /// If the parameter belongs to another backend.
    fn as_tensor(&self) -> &CandleTensor {
        self.downcast_ref().expect("the parameter belongs to this backend")
    }
}

/// Wraps a result of candle; `operation` is the context of its error.
fn into_buffer(operation: &'static str, result: CandleResult) -> Result<Buffer> {
    result.map(Buffer::new).context(operation)
}

/// `target` with the rows of the range replaced by `update` of them.
fn update_rows(
    target: &Buffer,
    range: std::ops::Range<usize>,
    update: impl FnOnce(CandleTensor) -> CandleResult,
) -> CandleResult {
    let (all, count) = (target.as_tensor(), target.rows());
    let updated = update(all.narrow(0, range.start, range.len())?)?;
    let (rows_before, rows_after) = (all.narrow(0, 0, range.start)?, all.narrow(0, range.end, count - range.end)?);
    CandleTensor::cat(&[rows_before, updated, rows_after], 0)
}

fn add_accumulator(result: CandleTensor, accumulator: Option<Buffer>) -> CandleResult {
    match accumulator {
        Some(accumulator) => accumulator.as_tensor() + result,
        None => Ok(result),
    }
}

fn sum_tensors(terms: impl Iterator<Item = CandleResult>) -> CandleResult {
    terms.reduce(|left, right| left? + right?).unwrap_or_else(|| candle_core::bail!("a sum has at least one term"))
}
