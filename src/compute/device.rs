//! Which device computes, and how the frozen weights are held on it.

use super::Kernels;
use super::candle::Candle;
use super::cpu::Cpu;
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
pub enum Weights {
    #[default]
    F32,
    /// Half the memory, and the GPU's tensor cores.
    Bf16,
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            Some(("cuda", number)) => number.parse().map(Self::Cuda).map_err(|_| wording(text)),
            _ => Err(wording(text)),
        }
    }
}

fn wording(text: &str) -> String {
    format!("\"{text}\" is no device: use cpu, cuda, or cuda:N for the GPU with the number N")
}

impl FromStr for Weights {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("weights are not held as \"{text}\": use f32 or bf16")),
        }
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
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
pub fn kernels(device: Device, weights: Weights) -> Result<Arc<dyn Kernels>> {
    match (device, weights) {
        (Device::Cpu, Weights::F32) => Ok(Arc::new(Cpu::best())),
        (Device::Cpu, Weights::Bf16) => Err(Error::invalid(
            "conflicting_settings",
            "on a CPU the weights are held as f32: leave --weights bf16 out, or name a GPU with --device",
        )),
        (Device::Cuda(number), weights) => Ok(Arc::new(Candle::cuda(number, weights)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is_written() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Cuda(3)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert_eq!("cuda".parse(), Ok(Device::Cuda(0)));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cpu:0"] {
            assert!(wrong.parse::<Device>().is_err_and(|error| error.contains("use cpu, cuda")), "{wrong}");
        }
        for weights in [Weights::F32, Weights::Bf16] {
            assert_eq!(weights.to_string().parse(), Ok(weights));
        }
        assert!("f64".parse::<Weights>().is_err_and(|error| error.contains("use f32 or bf16")));
    }

    #[test]
    fn what_a_cpu_does_not_hold_is_refused() {
        assert!(kernels(Device::Cpu, Weights::F32).is_ok());
        assert!(kernels(Device::Cpu, Weights::Bf16).is_err());
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_how_to_get_one() {
        let refused = kernels(Device::Cuda(0), Weights::F32).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|detail| detail.contains("scripts/cuda.sh")));
    }
}
