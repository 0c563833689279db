//! Chooses the backend of a device. This is the only file above the backends that names both.

use crate::WeightFormat;
use crate::backend::Backend;
use crate::backend::candle::CandleBackend;
use crate::backend::cpu::{CpuBackend, WeightStorage};
use crate::error::{Error, Result};
use crate::quant::QuantFormat;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The device that computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    #[default]
    Cpu,
    /// NVIDIA GPU with this ordinal, through candle; only in builds with the feature `cuda`.
    Cuda(usize),
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", number)) => number.parse().map(Self::Cuda).map_err(|_| invalid_device_message(text)),
            _ => Err(invalid_device_message(text)),
        }
    }
}

fn invalid_device_message(text: &str) -> String {
    format!("\"{text}\" is no device: use cpu, cuda, or cuda:N for the GPU with the number N")
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

/// Creates the backend of a device.
///
/// # Errors
/// `Unsupported` if this build or this machine has no such device, or if the device does not support the weight format.
pub fn create_backend(device: Device, weight_format: WeightFormat) -> Result<Arc<dyn Backend>> {
    match (device, weight_format) {
        (Device::Cpu, format) => Ok(Arc::new(CpuBackend::detect().with_weight_storage(cpu_storage(format)))),
        (Device::Cuda(number), WeightFormat::Native | WeightFormat::F32 | WeightFormat::Bf16) => {
            Ok(Arc::new(CandleBackend::cuda(number, weight_format)?))
        }
        (Device::Cuda(_), WeightFormat::F16 | WeightFormat::Q8_0 | WeightFormat::Q4_0) => Err(Error::unsupported(
            "conflicting_settings",
            format!("on a GPU the weights are held as f32 or bf16: leave --weight-format {weight_format} out"),
        )),
    }
}

fn cpu_storage(weight_format: WeightFormat) -> WeightStorage {
    match weight_format {
        WeightFormat::Native => WeightStorage::Native,
        WeightFormat::F32 => WeightStorage::F32,
        WeightFormat::F16 => WeightStorage::Quantized(QuantFormat::F16),
        WeightFormat::Bf16 => WeightStorage::Quantized(QuantFormat::Bf16),
        WeightFormat::Q8_0 => WeightStorage::Quantized(QuantFormat::Q8_0),
        WeightFormat::Q4_0 => WeightStorage::Quantized(QuantFormat::Q4_0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_round_trips_through_display() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cpu:0"] {
            assert!(wrong.parse::<Device>().is_err_and(|error| error.contains("use cpu, cuda")), "{wrong}");
        }
    }

    #[test]
    fn unsupported_gpu_weight_format_is_refused() {
        assert!(WeightFormat::ALL.into_iter().all(|format| create_backend(Device::Cpu, format).is_ok()));
        assert_eq!(
            create_backend(Device::Cuda(0), WeightFormat::Q4_0).err().map(|error| error.code()),
            Some("conflicting_settings")
        );
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn cuda_device_without_cuda_build_names_the_build_script() {
        let error_message = create_backend(Device::Cuda(0), WeightFormat::F32).err().map(|error| error.to_string());
        assert!(error_message.is_some_and(|detail| detail.contains("scripts/cuda.sh")));
    }
}
