//! The number formats that an adapter may be stored in, widened to `f32` exactly.

/// How one value of a tensor is stored, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    F32,
    F16,
    BF16,
}

impl Element {
    /// By the word in a safetensors header.
    pub fn named(dtype: &str) -> Option<Self> {
        match dtype {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::BF16),
            _ => None,
        }
    }

    pub fn widen(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect(),
            Self::F16 => pairs(bytes).map(from_f16).collect(),
            // BF16 is the upper half of an f32.
            Self::BF16 => pairs(bytes).map(|bits| f32::from_bits(u32::from(bits) << 16)).collect(),
        }
    }
}

fn pairs(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|two| u16::from_le_bytes(*two))
}

/// IEEE 754 binary16: 1 sign bit, 5 of exponent (bias 15), 10 of fraction. Every value is an `f32`.
fn from_f16(bits: u16) -> f32 {
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff) / 1024.0;
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-14),
        0x1f if fraction == 0.0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => (1.0 + fraction) * 2f32.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_values_are_exact() {
        let known: [(u16, f32); 8] = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0x0400, 0.000_061_035_156),
            (0x0001, 5.960_464_5e-8),
            (0x7c00, f32::INFINITY),
        ];
        for (bits, value) in known {
            assert_eq!(Element::F16.widen(&bits.to_le_bytes()), [value], "{bits:#06x}");
        }
        assert!(Element::F16.widen(&0x7e00u16.to_le_bytes())[0].is_nan());
    }

    #[test]
    fn brain_floats_are_the_upper_half_of_a_float() {
        assert_eq!(Element::BF16.widen(&[0x80, 0x3f, 0x20, 0xc1]), [1.0, -10.0]);
    }
}
