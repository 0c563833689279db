//! Finds the end of a chunked request body (RFC 9112, section 7.1).

/// Position in a chunked body.
#[derive(Debug, Clone, Copy)]
pub enum ChunkedScanner {
    Size {
        size: u64,
        has_digits: bool,
    },
    Extension {
        size: u64,
    },
    SizeLf {
        size: u64,
    },
    Data {
        remaining: u64,
    },
    DataCr,
    DataLf,
    TrailerLine {
        is_empty: bool,
    },
    TrailerLf,
    EndLf,
    End,
    /// hyper fails at the same byte and closes the connection.
    Invalid,
}

impl ChunkedScanner {
    pub fn new() -> Self {
        Self::Size { size: 0, has_digits: false }
    }

    /// Returns whether the body, or what can be read of it, is over.
    pub fn is_end(self) -> bool {
        matches!(self, Self::End)
    }

    /// Returns how many of the bytes belong to the body.
    pub fn advance(&mut self, bytes: &[u8]) -> usize {
        let mut position = 0;
        while position < bytes.len() {
            match self {
                Self::End => return position,
                Self::Invalid => return bytes.len(),
                Self::Data { remaining } => {
                    let available = bytes.len() - position;
                    let taken = usize::try_from(*remaining).map_or(available, |remaining| remaining.min(available));
                    position += taken;
                    *remaining -= taken as u64;
                    if *remaining == 0 {
                        *self = Self::DataCr;
                    }
                }
                _ => {
                    *self = self.next(bytes[position]);
                    position += 1;
                }
            }
        }
        position
    }

    fn next(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Size { size, .. }, byte) if byte.is_ascii_hexdigit() && size >> (u64::BITS - 4) == 0 => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                Self::Size { size: size << 4 | digit, has_digits: true }
            }
            (Self::Size { size, has_digits: true } | Self::Extension { size }, b'\r') => Self::SizeLf { size },
            (Self::Size { size, has_digits: true }, b';' | b' ' | b'\t') => Self::Extension { size },
            (Self::Extension { size }, byte) if byte != b'\n' => Self::Extension { size },
            (Self::SizeLf { size: 0 }, b'\n') => Self::TrailerLine { is_empty: true },
            (Self::SizeLf { size }, b'\n') => Self::Data { remaining: size },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::new(),
            (Self::TrailerLine { is_empty: true }, b'\r') => Self::EndLf,
            (Self::TrailerLine { is_empty: false }, b'\r') => Self::TrailerLf,
            (Self::TrailerLine { .. }, _) => Self::TrailerLine { is_empty: false },
            (Self::TrailerLf, b'\n') => Self::TrailerLine { is_empty: true },
            (Self::EndLf, b'\n') => Self::End,
            _ => Self::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_is_found_however_the_body_is_split() {
        for body in [
            "0\r\n\r\n",
            "00000000000000000000\r\n\r\n",
            "0\r\na\nb: c\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "a;name=value\r\n0\r\n\r\n01234\r\n000\r\n\r\n",
            "1 \r\n\r\r\n0\r\nfield: value\r\nother: value\r\n\r\n",
            "A\r\n0123456789\r\n1F\r\n0123456789012345678901234567890\r\n0\r\n\r\n",
        ] {
            let bytes = format!("{body}GET / HTTP/1.1\r\n");
            for step in 1..bytes.len() {
                let (mut scanner, mut position) = (ChunkedScanner::new(), 0);
                for part in bytes.as_bytes().chunks(step) {
                    position += scanner.advance(part);
                }
                assert!(scanner.is_end(), "{body:?} in steps of {step}");
                assert_eq!(position, body.len(), "{body:?} in steps of {step}");
            }
        }
    }

    #[test]
    fn malformed_body_has_no_end() {
        for body in ["\r\n\r\n", "x\r\n", "5\nhello", "11111111111111111\r\n", "1\r\nab\r\n0\r\n\r\n", ";\r\n"] {
            let mut scanner = ChunkedScanner::new();
            let bytes = format!("{body}0\r\n\r\n");
            assert_eq!(scanner.advance(bytes.as_bytes()), bytes.len(), "{body:?}");
            assert!(matches!(scanner, ChunkedScanner::Invalid), "{body:?}: {scanner:?}");
        }
    }
}
