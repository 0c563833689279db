//! Settings: how frozen weights are stored on a device, and how activations enter the products with them.

use std::fmt;
use std::str::FromStr;

/// Storage format of frozen weights. Everything else is `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WeightFormat {
    /// The checkpoint's own format where the CPU kernels can read it (f16, bf16 and GGUF's formats), else f32. Lossless.
    #[default]
    Native,
    F32,
    /// Rounded to 16 bits.
    F16,
    /// Rounded to 16 bits; GPUs multiply it with their tensor cores.
    Bf16,
    Q8_0,
    Q4_0,
}

impl WeightFormat {
    pub(crate) const ALL: [Self; 6] = [Self::Native, Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0];

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
}

impl FromStr for WeightFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let matching = Self::ALL.into_iter().find(|format| format.name() == text);
        matching.ok_or_else(|| format!("weights are not held as \"{text}\": use one of {}", names()))
    }
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Precision of the activations in products with the base model's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ActivationQuantization {
    #[default]
    F32,
    /// Quantizes activations in blocks (as llama.cpp's Q8_1): to 8 bits, or to 7 for weights of 8. Weights of 16 and 32 bits are
    /// multiplied as a copy in 8 bits.
    Int8,
}

/// Precision of LoRA's A and B with [`ActivationQuantization::Int8`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LoraPrecision {
    #[default]
    F32,
    /// 8 bits with one scale per rank.
    Int8,
}

impl FromStr for ActivationQuantization {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "int8" => Ok(Self::Int8),
            _ => Err(format!("activations are not multiplied as \"{text}\": use f32 or int8")),
        }
    }
}

impl fmt::Display for ActivationQuantization {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_format_round_trips_through_display() {
        for format in WeightFormat::ALL {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("f64".parse::<WeightFormat>().is_err_and(|error| error.contains("use one of as-is, f32")));
    }
}
