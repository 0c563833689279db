//! Encodings of text: transcoding to UTF-8, a guess where the encoding is not known, and ends of lines that are a lone carriage return.

use super::LimitedWriter;
use super::probable_encoding::probable_encoding;
use crate::dataset::diagnostics::{self, Diagnostic, quote};
use crate::dataset::line_source::LineSource;
use crate::dataset::text_encoding::TextEncoding;
use encoding_rs::{DecoderResult, Encoding};
use std::fs::File;
use std::io::{self, Read, Write};

const BUFFER_BYTES: usize = 1 << 16;
/// Characters of the example line in a message.
const EXAMPLE_BYTES: usize = 60;
/// Bytes of lines by which the encoding is guessed.
const GUESS_BYTES: usize = 1 << 16;

/// Decodes `source` into `target` as UTF-8. A byte order mark decides over `encoding`.
pub(super) fn transcode(
    source: &mut File,
    target: &File,
    encoding: TextEncoding,
    max_bytes: u64,
) -> io::Result<Result<(), Diagnostic>> {
    let mut decoder = encoding.0.new_decoder();
    let mut writer = LimitedWriter::new(target, max_bytes);
    let (mut input, mut output) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut line = 1;
    loop {
        let count = source.read(&mut input)?;
        let mut pending = &input[..count];
        loop {
            let (result, read, written) = decoder.decode_to_utf8_without_replacement(pending, &mut output, count == 0);
            pending = &pending[read..];
            line += output[..written].iter().filter(|byte| **byte == b'\n').count();
            if let Err(diagnostic) = writer.write(&output[..written])? {
                return Ok(Err(diagnostic));
            }
            match result {
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => return Ok(Err(not_in_encoding(decoder.encoding(), line))),
            }
        }
        if count == 0 {
            return writer.finish().map(Ok);
        }
    }
}

fn not_in_encoding(encoding: &'static Encoding, line: usize) -> Diagnostic {
    let message = format!(
        "line {line} holds bytes that are no {}: correct them, or name the file's encoding in `\"encoding\"`",
        encoding.name()
    );
    Diagnostic::new(diagnostics::UNKNOWN_ENCODING, message)
}

/// Whether the lines of a file end with `\r` alone, as old programs for the Macintosh write them.
pub(super) fn has_carriage_return_lines(sample: &[u8]) -> bool {
    sample.contains(&b'\r') && !sample.contains(&b'\n')
}

/// Writes every `\r` and `\r\n` as `\n`.
pub(super) fn replace_carriage_returns(source: &File, target: &File) -> io::Result<()> {
    let mut writer = io::BufWriter::with_capacity(BUFFER_BYTES, target);
    let (mut reader, mut buffer) = (source, vec![0; BUFFER_BYTES]);
    let mut follows_return = false;
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return writer.flush();
        }
        let mut converted = Vec::with_capacity(count);
        for byte in buffer[..count].iter().copied() {
            if byte == b'\r' {
                converted.push(b'\n');
            } else if byte != b'\n' || !follows_return {
                converted.push(byte);
            }
            follows_return = byte == b'\r';
        }
        writer.write_all(&converted)?;
    }
}

/// Text that is no UTF-8.
pub(in crate::dataset) struct EncodingGuess {
    first_line: u64,
    /// Start of the first line with other bytes.
    example: Vec<u8>,
    /// Lines with other bytes.
    sample: Vec<u8>,
    lines: u64,
}

/// Guesses the encoding of a file that is no UTF-8: none for valid UTF-8, and for a file with valid characters beyond ASCII, where
/// some lines are damaged. A single bad line is its own error.
pub(in crate::dataset) fn guess_encoding(mut source: LineSource) -> io::Result<Option<EncodingGuess>> {
    let mut guess: Option<EncodingGuess> = None;
    let mut chunk = Vec::new();
    let mut last_line = 0;
    loop {
        let line = source.position().line;
        // The rest of a character that a chunk boundary cuts stays in the buffer.
        if source.read_chunk(&mut chunk)? == 0 {
            break;
        }
        match std::str::from_utf8(&chunk) {
            Ok(text) if text.is_ascii() => chunk.clear(),
            Ok(_) => return Ok(None),
            Err(error) if !chunk[..error.valid_up_to()].is_ascii() => return Ok(None),
            Err(error) if error.error_len().is_none() && !chunk.ends_with(b"\n") => {
                chunk.drain(..error.valid_up_to());
            }
            Err(error) => {
                let at = error.valid_up_to();
                let guess = guess.get_or_insert_with(|| EncodingGuess {
                    first_line: line,
                    example: example_bytes(&chunk, at).to_vec(),
                    sample: Vec::new(),
                    lines: 0,
                });
                if guess.sample.len() + chunk.len() <= GUESS_BYTES {
                    guess.sample.extend(&chunk);
                }
                guess.lines += u64::from(line != last_line);
                last_line = line;
                chunk.clear();
            }
        }
    }
    Ok(guess.filter(|guess| guess.lines > 1))
}

/// Text around the byte at `at`: from the start of the line, unless it is long.
fn example_bytes(line: &[u8], at: usize) -> &[u8] {
    let start = if at < EXAMPLE_BYTES { 0 } else { at - EXAMPLE_BYTES / 2 };
    &line[start..line.len().min(at + EXAMPLE_BYTES / 2)]
}

impl EncodingGuess {
    /// Error of the file that offers the encoding.
    pub fn to_diagnostic(&self) -> Diagnostic {
        let encoding = probable_encoding(&self.sample);
        let name = encoding.name().to_ascii_lowercase();
        let example = encoding.decode_without_bom_handling(&self.example).0;
        let message = format!(
            "the file is not UTF-8: {} lines from line {} on hold other bytes. As {name} that line reads {}; where that is right, send \
             `\"encoding\": \"{name}\"`, else name the encoding or save the file as UTF-8",
            self.lines,
            self.first_line,
            quote(example.trim())
        );
        Diagnostic::new(diagnostics::UNKNOWN_ENCODING, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(to_bytes).collect()
    }

    fn transcoded(bytes: &[u8], name: &str, max_bytes: u64) -> Result<String, Diagnostic> {
        let mut source = tempfile::tempfile().unwrap();
        source.write_all(bytes).unwrap();
        io::Seek::rewind(&mut source).unwrap();
        let mut target = tempfile::tempfile().unwrap();
        transcode(&mut source, &target, TextEncoding::parse(name).unwrap(), max_bytes).unwrap()?;
        io::Seek::rewind(&mut target).unwrap();
        Ok(io::read_to_string(target).unwrap())
    }

    #[test]
    fn utf16_is_found_with_and_without_a_mark() {
        let detected = |bytes: &[u8]| TextEncoding::detect(bytes).map(|encoding| encoding.0.name());
        assert_eq!(detected(&utf16("\u{feff}a", u16::to_le_bytes)), Some("UTF-16LE"));
        assert_eq!(detected(&utf16("text\tlabel\ngut\tja\n", u16::to_le_bytes)), Some("UTF-16LE"));
        assert_eq!(detected(&utf16("text\tlabel\ngut\tja\n", u16::to_be_bytes)), Some("UTF-16BE"));
        assert_eq!(detected("\u{feff}text,label\n".as_bytes()), None);
        assert_eq!(detected("text,label\ngut,ja\n\0\0\0\0\0\0".as_bytes()), None);
    }

    #[test]
    fn text_is_transcoded_within_the_limit() {
        assert_eq!(transcoded(b"gr\xf6\xdfer", "latin1", 10).unwrap(), "größer");
        assert_eq!(transcoded(&utf16("\u{feff}größer", u16::to_le_bytes), "utf-16le", 10).unwrap(), "größer");
        assert_eq!(transcoded(b"gr\xf6\xdfer", "latin1", 7).unwrap_err().code, "too_many_bytes");
        let error = transcoded(b"\x82\xa0\n\x82\n", "shift_jis", 10).unwrap_err();
        assert!(error.message.contains("line 2"), "{}", error.message);
        assert!(TextEncoding::parse("utf-7").is_err());
    }

    #[test]
    fn lone_carriage_returns_end_lines() {
        assert!(has_carriage_return_lines(b"text,label\ra,b\r"));
        assert!(!has_carriage_return_lines(b"text,label\r\na,b\r\n"));
        let (mut source, mut target) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        source.write_all(b"a\rb\r\nc\n\r").unwrap();
        io::Seek::rewind(&mut source).unwrap();
        replace_carriage_returns(&source, &target).unwrap();
        io::Seek::rewind(&mut target).unwrap();
        assert_eq!(io::read_to_string(target).unwrap(), "a\nb\nc\n\n");
    }

    #[test]
    fn encoding_is_guessed_for_several_lines_without_other_characters() {
        let guess = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            guess_encoding(LineSource::new(file).unwrap()).unwrap().map(|guess| guess.to_diagnostic().message)
        };
        let message = guess(b"text,label\ngr\xf6\xdfer,a\nx,b\n\xe4,c\n").unwrap();
        assert!(message.contains("2 lines from line 2") && message.contains("größer"), "{message}");
        assert_eq!(guess(b"text,label\ngr\xf6\xdfer,a\n"), None);
        assert_eq!(guess("größer\n".as_bytes()), None);
        assert_eq!(guess(b"\xc3\xb6\n\xf6\n\xf6\n"), None);
        let long = ["ä".repeat(70_000).as_bytes(), b"\n\xf6\n\xf6\n"].concat();
        assert_eq!(guess(&long), None);
    }
}
