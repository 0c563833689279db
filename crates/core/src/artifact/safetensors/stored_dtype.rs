//! The number formats that an adapter may be stored in, widened to `f32` exactly.

/// How one value of a tensor is stored, little endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredDtype {
    F32,
    F16,
    BF16,
}

impl StoredDtype {
    /// By the word in a safetensors header.
    pub fn from_name(dtype: &str) -> Option<Self> {
        match dtype {
            "F32" => Some(Self::F32),
            "F16" => Some(Self::F16),
            "BF16" => Some(Self::BF16),
            _ => None,
        }
    }

    pub fn to_f32(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F32 => bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect(),
            Self::F16 => u16_values(bytes).map(f16_to_f32).collect(),
            // BF16 is the upper half of an f32.
            Self::BF16 => u16_values(bytes).map(|bits| f32::from_bits(u32::from(bits) << 16)).collect(),
        }
    }
}

fn u16_values(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.as_chunks::<2>().0.iter().map(|chunk| u16::from_le_bytes(*chunk))
}

/// IEEE 754 binary16: 1 sign bit, 5 of exponent (bias 15), 10 of fraction. Every value is an `f32`.
fn f16_to_f32(bits: u16) -> f32 {
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
    fn f16_conversion_is_exact() {
        let cases: [(u16, f32); 8] = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0x0400, 0.000_061_035_156),
            (0x0001, 5.960_464_5e-8),
            (0x7c00, f32::INFINITY),
        ];
        for (bits, value) in cases {
            assert_eq!(StoredDtype::F16.to_f32(&bits.to_le_bytes()), [value], "{bits:#06x}");
        }
        assert!(StoredDtype::F16.to_f32(&0x7e00u16.to_le_bytes())[0].is_nan());
    }

    #[test]
    fn bf16_conversion_is_exact() {
        assert_eq!(StoredDtype::BF16.to_f32(&[0x80, 0x3f, 0x20, 0xc1]), [1.0, -10.0]);
    }
}
