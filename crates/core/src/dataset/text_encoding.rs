//! Name of a text encoding, as requests give it and datasets store it.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::ToSchema;

/// Encoding of text, by a name of the WHATWG Encoding Standard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(value_type = String, example = "windows-1252")]
pub struct TextEncoding(pub(super) &'static Encoding);

impl TextEncoding {
    /// Finds an encoding by its name.
    pub fn parse(name: &str) -> Result<Self, String> {
        Encoding::for_label_no_replacement(name.as_bytes()).map(Self).ok_or_else(|| {
            format!(
                "the encoding {name:?} is unknown: give one such as \"utf-8\", \"windows-1252\", \"iso-8859-2\", \"utf-16le\", \
                 \"shift_jis\" or \"gb18030\""
            )
        })
    }

    /// Detects UTF-16 by its byte order mark, or by its zero bytes: in text of European languages, every second byte of UTF-16 is zero.
    pub(super) fn detect(sample: &[u8]) -> Option<Self> {
        match Encoding::for_bom(sample) {
            Some((encoding, _)) if encoding == UTF_8 => return None,
            Some((encoding, _)) => return Some(Self(encoding)),
            None => {}
        }
        let pairs = sample.len() / 2;
        let zeros = |offset: usize| sample.iter().skip(offset).step_by(2).filter(|byte| **byte == 0).count();
        let is_evident =
            |zeros: usize, other_zeros: usize| pairs >= 8 && zeros * 10 >= pairs * 6 && other_zeros * 20 <= pairs;
        let (even, odd) = (zeros(0), zeros(1));
        if is_evident(odd, even) {
            Some(Self(UTF_16LE))
        } else if is_evident(even, odd) {
            Some(Self(UTF_16BE))
        } else {
            None
        }
    }
}

impl Serialize for TextEncoding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.name().to_ascii_lowercase())
    }
}

impl<'de> Deserialize<'de> for TextEncoding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
