//! The bytes of one token. Decoding the token alone does not give them if it is a part of a character.

/// How a vocabulary encodes the bytes of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenByteEncoding {
    /// Every byte as a visible character, `Ġ` for a space (GPT-2 and its successors).
    ByteLevel,
    /// `▁` for a space, `<0xE2>` for a byte without a token of its own (SentencePiece).
    SentencePiece,
    /// Plain text.
    Raw,
}

impl TokenByteEncoding {
    /// Detects the encoding from the token for a space.
    pub fn detect(has_token: impl Fn(&str) -> bool) -> Self {
        if has_token("Ġ") {
            Self::ByteLevel
        } else if has_token("▁") {
            Self::SentencePiece
        } else {
            Self::Raw
        }
    }

    /// Decodes a token, as the vocabulary writes it, into its bytes.
    pub fn decode_token(self, token: &str) -> Vec<u8> {
        match self {
            // Special tokens are plain text, which may have characters that encode no byte.
            Self::ByteLevel => {
                token.chars().map(byte_level_byte).collect::<Option<_>>().unwrap_or_else(|| token.into())
            }
            Self::SentencePiece => match sentencepiece_byte(token) {
                Some(byte) => vec![byte],
                None => token.replace('▁', " ").into_bytes(),
            },
            Self::Raw => token.into(),
        }
    }
}

/// Visible Latin-1 characters encode their own byte; characters from U+0100 on encode the other bytes in order.
fn byte_level_byte(character: char) -> Option<u8> {
    let is_visible = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..);
    match u32::from(character).checked_sub(0x100) {
        None => u8::try_from(character).ok().filter(is_visible),
        Some(offset) => (0..=u8::MAX).filter(|byte| !is_visible(byte)).nth(offset as usize),
    }
}

fn sentencepiece_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_byte.then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_encoding_is_detected_from_its_space_token() {
        assert_eq!(TokenByteEncoding::detect(|token| token == "Ġ"), TokenByteEncoding::ByteLevel);
        assert_eq!(TokenByteEncoding::detect(|token| token == "▁"), TokenByteEncoding::SentencePiece);
        assert_eq!(TokenByteEncoding::detect(|_| false), TokenByteEncoding::Raw);
    }

    #[test]
    fn a_token_decodes_to_the_bytes_of_its_text() {
        // from the ByteLevel pre-tokenizer of `tokenizers`: "é€" is written "Ã©âĤ¬", "\n" "Ċ", NUL "Ā", DEL "ġ", soft hyphen "Ń"
        let cases: [(&str, &[u8]); 7] = [
            ("Ġthe", b" the"),
            ("Ã©âĤ¬", "é€".as_bytes()),
            ("âĤ", &[0xe2, 0x82]),
            ("ĊĀġŃ", &[b'\n', 0, 0x7f, 0xad]),
            ("~!ÿ®¬", &[b'~', b'!', 0xff, 0xae, 0xac]),
            ("<|end|>", b"<|end|>"),
            ("<｜end▁of▁sentence｜>", "<｜end▁of▁sentence｜>".as_bytes()),
        ];
        for (token, bytes) in cases {
            assert_eq!(TokenByteEncoding::ByteLevel.decode_token(token), bytes, "{token}");
        }
        let cases: [(&str, &[u8]); 5] =
            [("▁the", b" the"), ("<0xE2>", &[0xe2]), ("<0xE2", b"<0xE2"), ("▁▁", b"  "), ("<0x+1>", b"<0x+1>")];
        for (token, bytes) in cases {
            assert_eq!(TokenByteEncoding::SentencePiece.decode_token(token), bytes, "{token}");
        }
        assert_eq!(TokenByteEncoding::Raw.decode_token("Ġ▁<0xE2>"), "Ġ▁<0xE2>".as_bytes());
    }

    #[test]
    fn every_byte_has_exactly_one_byte_level_character() {
        let mut bytes: Vec<u8> = (0..0x180).filter_map(char::from_u32).filter_map(byte_level_byte).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }
}
