//! Separator and quotes of a file with columns, and the line `sep=;` that Excel writes.

use super::text_start;
use crate::dataset::content::Content;
use crate::dataset::csv_splitter::{EofState, FeedResult, RecordSplitter};
use crate::dataset::format::{Quoting, Separator};
use crate::dataset::line_source::{LineSource, trim_line_ending};
use crate::dataset::options::{Options, RequestedFormat};
use std::io;

/// Records that the choice of a separator looks at.
const MAX_RECORDS: usize = 100;
/// Longest line that is looked at for quotes; longer ones count as one without.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Completes the options of a file with columns.
pub(super) fn detect_columns(content: &Content, requested: &RequestedFormat, options: &mut Options) -> io::Result<()> {
    let sample = content.sample()?;
    let default = options.format.default_separator().unwrap_or(Separator::COMMA);
    let is_fixed = requested.format == Some(crate::dataset::format::Format::Tsv);
    let detected = if is_fixed { None } else { detect_separator(text_start(&sample)) };
    let separator = requested.separator.or(detected).unwrap_or(default);
    options.separator = (separator != default).then_some(separator);
    options.quoting = match requested.quoting {
        Some(quoting) => quoting,
        None => detect_quoting(content.lines()?, separator)?,
    };
    Ok(())
}

/// Separator of the columns: that of a line `sep=;`, else the one of the header that gives most records the header's number of
/// fields. `None` for a file with one column.
pub(super) fn detect_separator(sample: &[u8]) -> Option<Separator> {
    let start = sample.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let sample = &sample[start..];
    if let Some(separator) = separator_line(sample) {
        return Some(separator);
    }
    let scores = Separator::DETECTABLE.into_iter().filter_map(|separator| {
        let counts = field_counts(sample, separator);
        let columns = counts.first().copied().filter(|columns| *columns > 1)?;
        let consistent = counts.iter().filter(|count| **count == columns).count();
        // In thousandths, so that a separator that occurs in a few texts does not count more than a more usual one.
        Some((separator, consistent * 1000 / counts.len(), columns))
    });
    // Of equal candidates the first wins, which is the more usual one.
    scores
        .reduce(|best, next| if (next.1, next.2) > (best.1, best.2) { next } else { best })
        .map(|(separator, ..)| separator)
}

/// Numbers of fields of the first records.
fn field_counts(sample: &[u8], separator: Separator) -> Vec<usize> {
    let mut splitter = RecordSplitter::new(separator.byte(), Quoting::Doubled);
    let mut counts = Vec::new();
    let (mut start, mut end) = (0, 0);
    while end < sample.len() && counts.len() < MAX_RECORDS {
        let line_end = sample[end..].iter().position(|byte| *byte == b'\n').map(|at| end + at + 1);
        let chunk_end = line_end.unwrap_or(sample.len());
        let record = &sample[start..chunk_end];
        match splitter.feed(record, end - start) {
            FeedResult::NeedMore if line_end.is_some() => {
                end = chunk_end;
                continue;
            }
            FeedResult::NeedMore if splitter.finish_at_eof(record) == EofState::UnterminatedQuote => break,
            FeedResult::NeedMore | FeedResult::RecordEnd => {
                if !splitter.is_blank(record) {
                    counts.push(splitter.field_count());
                }
            }
            FeedResult::TextAfterQuote(_) => counts.push(0),
        }
        (start, end) = (chunk_end, chunk_end);
        splitter.reset();
    }
    counts
}

/// Separator of a first line `sep=;`, which Excel reads.
fn separator_line(line: &[u8]) -> Option<Separator> {
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = line.strip_prefix(b"\"").and_then(|line| line.strip_suffix(b"\"")).unwrap_or(line);
    match line.get(..4).filter(|prefix| prefix.eq_ignore_ascii_case(b"sep=")).map(|_| &line[4..]) {
        Some([byte]) => Separator::from_byte(*byte),
        _ => None,
    }
}

/// Skips a first line `sep=;`.
pub(in crate::dataset) fn skip_separator_line(source: &mut LineSource) -> io::Result<()> {
    let start = source.position();
    let mut line = Vec::new();
    source.read_chunk(&mut line)?;
    if separator_line(&line).is_none() {
        source.seek(start)?;
    }
    Ok(())
}

/// Counts of lines and fields that decide the meaning of quotes.
#[derive(Debug, Default)]
struct QuoteCounts {
    /// Fields that open with a quote and close with one before a separator or the end of the line.
    closed: u64,
    /// Lines with a field that opens with a quote and does not close in it.
    broken: u64,
    /// Lines that have the header's number of fields where quotes are ordinary characters.
    plain: u64,
    lines: u64,
    /// Broken lines that have the header's number of fields where a quote inside a field follows a backslash.
    backslash: u64,
}

/// Quotes of a file. They are ordinary characters where more fields that open with a quote do not close than do, and every line has
/// the header's number of fields without them. In files with commas this would split texts, so it is never assumed there.
fn detect_quoting(mut source: LineSource, separator: Separator) -> io::Result<Quoting> {
    skip_separator_line(&mut source)?;
    let (mut plain, mut doubled, mut backslash) = (
        RecordSplitter::new(separator.byte(), Quoting::None),
        RecordSplitter::new(separator.byte(), Quoting::Doubled),
        RecordSplitter::new(separator.byte(), Quoting::Backslash),
    );
    let mut counts = QuoteCounts::default();
    let mut columns = None;
    let mut line = Vec::new();
    loop {
        line.clear();
        let number = source.position().line;
        if source.read_chunk(&mut line)? == 0 {
            break;
        }
        while source.position().line == number && line.len() <= MAX_LINE_BYTES && source.read_chunk(&mut line)? > 0 {}
        if source.position().line == number {
            source.skip_line()?;
        }
        let text = trim_line_ending(&line);
        if text.trim_ascii().is_empty() {
            continue;
        }
        let plain_count = count_fields(&mut plain, text);
        let columns = *columns.get_or_insert(plain_count);
        counts.lines += 1;
        counts.plain += u64::from(plain_count == columns);
        if !text.contains(&b'"') {
            continue;
        }
        if count_fields(&mut doubled, text).is_some() {
            counts.closed += doubled.quoted_field_count() as u64;
        } else {
            counts.broken += 1;
            let is_escaped = text.windows(2).any(|pair| pair == b"\\\"");
            counts.backslash += u64::from(is_escaped && count_fields(&mut backslash, text) == columns);
        }
    }
    Ok(if counts.backslash > 0 && counts.backslash == counts.broken {
        Quoting::Backslash
    } else if separator != Separator::COMMA && counts.broken > counts.closed && counts.plain == counts.lines {
        Quoting::None
    } else {
        Quoting::Doubled
    })
}

/// Number of fields of a line; `None` if its quotes do not close in their fields.
fn count_fields(splitter: &mut RecordSplitter, line: &[u8]) -> Option<usize> {
    splitter.reset();
    match splitter.feed(line, 0) {
        FeedResult::NeedMore if splitter.finish_at_eof(line) == EofState::Complete => Some(splitter.field_count()),
        FeedResult::NeedMore | FeedResult::RecordEnd | FeedResult::TextAfterQuote(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn separator(text: &str) -> Option<char> {
        detect_separator(text.as_bytes()).map(|separator| char::from(separator.byte()))
    }

    fn quoting(text: &str, separator: &str) -> Quoting {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        detect_quoting(LineSource::new(file).unwrap(), Separator::parse(separator).unwrap()).unwrap()
    }

    #[test]
    fn separator_is_that_of_the_header() {
        assert_eq!(separator("text,label\na;b,c\n"), Some(','));
        assert_eq!(separator("text;label\r\n\"a;b\";c\r\n"), Some(';'));
        assert_eq!(separator("text\tlabel\na, b, c\tx\n"), Some('\t'));
        assert_eq!(separator("\ntext|label\na, b|x"), Some('|'));
        assert_eq!(separator("\"id, text\";label\na;b\n"), Some(';'));
        assert_eq!(separator("text\na, b; c\n"), None);
        assert_eq!(separator(""), None);
        // Both are in the header, and the records decide.
        assert_eq!(separator("what, please;label\na;b\nc, d, e;f\n"), Some(';'));
    }

    #[test]
    fn excel_line_names_the_separator() {
        assert_eq!(separator("sep=;\r\na,b;c\n"), Some(';'));
        assert_eq!(separator("\"sep=\t\"\na,b\n"), Some('\t'));
        assert_eq!(separator("sep=ab,c\n"), Some(','));
    }

    #[test]
    fn quotes_that_do_not_close_are_ordinary_characters() {
        let swallowed = "text\tlabel\n\"I will not,\tneg\nhe told us\tneutral\nsplendid.\"\tpos\n";
        assert_eq!(quoting(swallowed, "\t"), Quoting::None);
        assert_eq!(quoting("text\tlabel\n\"Never\" said he\tneg\nthe 12\" pan\tpos\n", "\t"), Quoting::None);
        // Quotes are needed: a text holds the separator, or spans lines.
        assert_eq!(quoting("text\tlabel\n\"a\tb\"\tneg\n", "\t"), Quoting::Doubled);
        assert_eq!(quoting("text\tlabel\n\"a\nb\"\tneg\n", "\t"), Quoting::Doubled);
        assert_eq!(quoting("text\tlabel\n\"a \"\"b\"\"\"\tneg\n\"c\td\n", "\t"), Quoting::Doubled);
        assert_eq!(quoting("text,label\n\"Never\" said he,neg\n", ","), Quoting::Doubled);
    }

    #[test]
    fn backslashes_before_quotes_are_escapes() {
        assert_eq!(quoting("text,label\n\"He said \\\"fine\\\", and left\",ok\n\"a\",bad\n", ","), Quoting::Backslash);
        assert_eq!(quoting("text,label\n\"a \\\"\",ok\n\"a\" b,bad\n", ","), Quoting::Doubled);
    }
}
