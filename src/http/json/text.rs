//! Text of a JSON body: its encoding, byte order mark and escapes.

use crate::http::error::{ApiError, ApiResult};

const UTF8_BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Length of an escape such as `\ud83d`.
const ESCAPE_BYTES: usize = 6;

/// Removes a byte order mark, and replaces escapes of lone surrogates, which are no characters, with U+FFFD, as JavaScript and Python do
/// when they encode such a text.
///
/// # Errors
/// 400 (`malformed_json`) for UTF-16 and UTF-32.
pub fn prepare(mut body: Vec<u8>) -> ApiResult<Vec<u8>> {
    if body.starts_with(UTF8_BYTE_ORDER_MARK) {
        body.drain(..UTF8_BYTE_ORDER_MARK.len());
    }
    if let Some(encoding) = wide_encoding(&body) {
        return Err(ApiError::bad_request("malformed_json", format!("the body is {encoding}: send UTF-8")));
    }
    replace_lone_surrogates(&mut body);
    Ok(body)
}

/// Names the encoding of a text of which each character takes two or four bytes. JSON begins with two ASCII characters, so that
/// one of the first bytes is 0 then.
fn wide_encoding(body: &[u8]) -> Option<&'static str> {
    match body {
        [0, 0, 0xfe, 0xff, ..] | [0xff, 0xfe, 0, 0, ..] | [0, 0, ..] | [_, 0, 0, 0, ..] => Some("UTF-32"),
        [0xfe, 0xff, ..] | [0xff, 0xfe, ..] | [0, _, ..] | [_, 0, ..] => Some("UTF-16"),
        _ => None,
    }
}

/// Replaces each escape of a surrogate that is not half of a pair; the text keeps its length.
fn replace_lone_surrogates(body: &mut [u8]) {
    let mut position = 0;
    while let Some(offset) = body[position..].iter().position(|byte| *byte == b'\\') {
        let start = position + offset;
        position = match escaped_code_unit(&body[start..]) {
            // Another escape, such as `\n` or `\\`.
            None => (start + 2).min(body.len()),
            Some(0xd800..=0xdbff) if is_low_surrogate(&body[start + ESCAPE_BYTES..]) => start + 2 * ESCAPE_BYTES,
            Some(0xd800..=0xdfff) => {
                body[start + 2..start + ESCAPE_BYTES].copy_from_slice(b"fffd");
                start + ESCAPE_BYTES
            }
            Some(_) => start + ESCAPE_BYTES,
        };
    }
}

fn is_low_surrogate(text: &[u8]) -> bool {
    matches!(escaped_code_unit(text), Some(0xdc00..=0xdfff))
}

/// Code unit of the escape that the text begins with; `None` for another escape.
fn escaped_code_unit(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(text: &str) -> String {
        String::from_utf8(prepare(text.as_bytes().to_vec()).unwrap()).unwrap()
    }

    #[test]
    fn lone_surrogates_are_replaced() {
        for (text, expected) in [
            (r#"{"a": "\ud800"}"#, r#"{"a": "\ufffd"}"#),
            (r#"{"a": "\uDC00\uD800x"}"#, r#"{"a": "\ufffd\ufffdx"}"#),
            (r#"{"a": "\ud83d\ude00"}"#, r#"{"a": "\ud83d\ude00"}"#),
            (r#"{"a": "\ud83d\ud83d\ude00"}"#, r#"{"a": "\ufffd\ud83d\ude00"}"#),
            (r#"{"a": "\\ud800 \n \u00e9"}"#, r#"{"a": "\\ud800 \n \u00e9"}"#),
            (r#"{"a": "\ud8"#, r#"{"a": "\ud8"#),
            ("\\", "\\"),
        ] {
            assert_eq!(prepared(text), expected);
        }
    }

    #[test]
    fn byte_order_mark_is_removed_and_other_encodings_are_named() {
        assert_eq!(prepared("\u{feff}{}"), "{}");
        assert_eq!(prepared(""), "");
        let utf16 = |text: &str, is_little: bool| -> Vec<u8> {
            text.encode_utf16()
                .flat_map(|unit| if is_little { unit.to_le_bytes() } else { unit.to_be_bytes() })
                .collect()
        };
        for body in [utf16("{}", true), utf16("{}", false), utf16("\u{feff}{}", true), utf16("\u{feff}{}", false)] {
            let error = prepare(body).unwrap_err();
            assert!(error.status == 400 && error.detail.contains("UTF-16"), "{}", error.detail);
        }
        assert!(prepare(b"{\0\0\0}\0\0\0".to_vec()).unwrap_err().detail.contains("UTF-32"));
    }
}
