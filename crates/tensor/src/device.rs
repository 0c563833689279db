//! Which device computes, and how the frozen weights are held on it.

use super::Backend;
use super::candle::CandleBackend;
use super::cpu::{CpuBackend, QuantFormat, WeightStorage};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// With kernels by hand.
    #[default]
    Cpu,
    /// An NVIDIA GPU, counted from 0, through candle; only in a build with the feature `cuda`.
    Cuda(usize),
}

/// How frozen weights are held. Everything else is `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightFormat {
    /// As the checkpoint has them, where products can read that (f16, bf16 and GGUF's forms; on a CPU), else f32: the numbers
    /// are the same.
    #[default]
    Native,
    F32,
    /// Rounded to half the memory, as are the others to less.
    F16,
    /// On a GPU, too: with its tensor cores.
    Bf16,
    Q8_0,
    Q4_0,
}

impl WeightFormat {
    const ALL: [Self; 6] = [Self::Native, Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0];

    fn name(self) -> &'static str {
        match self {
            Self::Native => "as-is",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }

    fn storage(self) -> WeightStorage {
        match self {
            Self::Native => WeightStorage::Native,
            Self::F32 => WeightStorage::F32,
            Self::F16 => WeightStorage::Quantized(QuantFormat::F16),
            Self::Bf16 => WeightStorage::Quantized(QuantFormat::Bf16),
            Self::Q8_0 => WeightStorage::Quantized(QuantFormat::Q8_0),
            Self::Q4_0 => WeightStorage::Quantized(QuantFormat::Q4_0),
        }
    }
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

impl FromStr for WeightFormat {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let matching = Self::ALL.into_iter().find(|weights| weights.name() == text);
        matching.ok_or_else(|| format!("weights are not held as \"{text}\": use one of {}", names()))
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
        }
    }
}

/// The device's arithmetic.
///
/// # Errors
/// `Invalid` where this build or this machine has no such device, or the device does not hold weights that way.
pub fn create_backend(device: Device, weight_format: WeightFormat) -> Result<Arc<dyn Backend>> {
    match (device, weight_format) {
        (Device::Cpu, weights) => Ok(Arc::new(CpuBackend::detect().with_weight_storage(weights.storage()))),
        (Device::Cuda(number), WeightFormat::Native | WeightFormat::F32 | WeightFormat::Bf16) => {
            Ok(Arc::new(CandleBackend::cuda(number, weight_format)?))
        }
        (Device::Cuda(_), other) => Err(Error::unsupported(
            "conflicting_settings",
            format!("on a GPU the weights are held as f32 or bf16: leave --weight-format {other} out"),
        )),
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
        for weights in WeightFormat::ALL {
            assert_eq!(weights.to_string().parse(), Ok(weights));
        }
        assert!("f64".parse::<WeightFormat>().is_err_and(|error| error.contains("use one of as-is, f32")));
    }

    #[test]
    fn unsupported_gpu_weight_format_is_refused() {
        assert!(WeightFormat::ALL.into_iter().all(|weights| create_backend(Device::Cpu, weights).is_ok()));
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
