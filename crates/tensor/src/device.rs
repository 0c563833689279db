//! Which device computes, and how the frozen weights are held on it.

use super::Kernels;
use super::candle::Candle;
use super::cpu::{Cpu, Form, Held};
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
    /// As the checkpoint has them, where products can read that (f16, bf16 and GGUF's forms; on a CPU), else f32: the numbers
    /// are the same.
    #[default]
    AsIs,
    F32,
    /// Rounded to half the memory, as are the others to less.
    F16,
    /// On a GPU, too: with its tensor cores.
    Bf16,
    Q8_0,
    Q4_0,
}

impl Weights {
    const ALL: [Self; 6] = [Self::AsIs, Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0];

    fn name(self) -> &'static str {
        match self {
            Self::AsIs => "as-is",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }

    fn held(self) -> Held {
        match self {
            Self::AsIs => Held::AsIs,
            Self::F32 => Held::Whole,
            Self::F16 => Held::Rounded(Form::F16),
            Self::Bf16 => Held::Rounded(Form::Bf16),
            Self::Q8_0 => Held::Rounded(Form::Q8_0),
            Self::Q4_0 => Held::Rounded(Form::Q4_0),
        }
    }
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
        let names = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|weights| weights.name() == text);
        found.ok_or_else(|| format!("weights are not held as \"{text}\": use one of {}", names()))
    }
}

impl fmt::Display for Weights {
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
pub fn kernels(device: Device, weights: Weights) -> Result<Arc<dyn Kernels>> {
    match (device, weights) {
        (Device::Cpu, weights) => Ok(Arc::new(Cpu::best().holding(weights.held()))),
        (Device::Cuda(number), Weights::AsIs | Weights::F32 | Weights::Bf16) => {
            Ok(Arc::new(Candle::cuda(number, weights)?))
        }
        (Device::Cuda(_), other) => Err(Error::unsupported(
            "conflicting_settings",
            format!("on a GPU the weights are held as f32 or bf16: leave --weights {other} out"),
        )),
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
        for weights in Weights::ALL {
            assert_eq!(weights.to_string().parse(), Ok(weights));
        }
        assert!("f64".parse::<Weights>().is_err_and(|error| error.contains("use one of as-is, f32")));
    }

    #[test]
    fn what_a_gpu_does_not_hold_is_refused() {
        assert!(Weights::ALL.into_iter().all(|weights| kernels(Device::Cpu, weights).is_ok()));
        assert_eq!(
            kernels(Device::Cuda(0), Weights::Q4_0).err().map(|error| error.code()),
            Some("conflicting_settings")
        );
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_build_without_cuda_says_how_to_get_one() {
        let refused = kernels(Device::Cuda(0), Weights::F32).err().map(|error| error.to_string());
        assert!(refused.is_some_and(|detail| detail.contains("scripts/cuda.sh")));
    }
}
