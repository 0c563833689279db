//! Recognition of the formats of lines: JSON lines, CoNLL, FASTA and fastText.

use crate::dataset::format::Format;

/// Mark of a new document in CoNLL files.
pub(in crate::dataset) const CONLL_DOCUMENT: &str = "-DOCSTART-";
/// Start of a label in fastText files.
pub(in crate::dataset) const FASTTEXT_LABEL: &str = "__label__";

/// Lines that are looked at.
const MAX_LINES: usize = 1000;

/// Format of a text that is no JSON; `None` where it may be a file with columns. `is_complete` says that the sample is the whole file.
pub(super) fn detect(sample: &[u8], is_complete: bool, named_format: Option<Format>) -> Option<Format> {
    let text = String::from_utf8_lossy(sample);
    let mut lines: Vec<&str> = text.lines().take(MAX_LINES).collect();
    if !is_complete && lines.len() < MAX_LINES {
        lines.pop();
    }
    let mut visible = lines.iter().filter(|line| !line.trim().is_empty());
    let first = visible.next()?.trim_start();
    let second = visible.next().copied().unwrap_or_default();
    let is_sequence = |line: &str| {
        let line = line.trim();
        !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_alphabetic() || b"*-.".contains(&byte))
    };
    if first.starts_with('>') && (is_sequence(second) || named_format == Some(Format::Fasta)) {
        return Some(Format::Fasta);
    }
    if is_fasttext(&lines) {
        return Some(Format::Fasttext);
    }
    is_conll(&lines, named_format).then_some(Format::Conll)
}

/// Whether most lines of a sample hold one object each.
pub(super) fn has_objects_on_lines(sample: &[u8], is_complete: bool) -> bool {
    let mut lines: Vec<&[u8]> = sample.split(|byte| *byte == b'\n').collect();
    if !is_complete {
        lines.pop();
    }
    let is_object = |line: &&&[u8]| {
        let line = line.trim_ascii_end();
        let line = line.strip_suffix(b",").unwrap_or(line);
        // spaCy's examples are pairs of a text and an object.
        (line.starts_with(b"{\"") && line.ends_with(b"}")) || (line.starts_with(b"[\"") && line.ends_with(b"}]"))
    };
    let lines: Vec<&[u8]> = lines.into_iter().filter(|line| !line.trim_ascii().is_empty()).collect();
    // An array with an element per line begins with a bracket.
    let is_array = lines.first().is_some_and(|first| first.trim_ascii_start().starts_with(b"[") && !is_object(&first));
    !is_array && lines.len() > 1 && lines.iter().filter(is_object).count() * 2 >= lines.len()
}

/// Whether the first two lines of a sample hold a list each.
pub(super) fn has_lists_on_lines(sample: &[u8]) -> bool {
    let mut lines = sample.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let is_list = |line: Option<&[u8]>| line.is_some_and(|line| line.starts_with(b"[") && line.ends_with(b"]"));
    is_list(lines.next()) && is_list(lines.next())
}

/// Whether the first two lines of a sample hold a list of messages each.
pub(super) fn has_messages_on_lines(sample: &[u8]) -> bool {
    let first_line = sample.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let has_name = |name: &[u8]| first_line.windows(name.len()).any(|window| window == name);
    has_lists_on_lines(sample) && (has_name(b"\"role\"") || has_name(b"\"from\""))
}

/// Whether every line has a label that is one word, most of them in front, and no other columns.
fn is_fasttext(lines: &[&str]) -> bool {
    let mut visible = lines.iter().filter(|line| !line.trim().is_empty()).peekable();
    visible.peek().is_some()
        && visible.all(|line| {
            let mut words = line.split_whitespace();
            words.next().is_some_and(|word| word.starts_with(FASTTEXT_LABEL))
                || words.next_back().is_some_and(|word| word.starts_with(FASTTEXT_LABEL))
        })
}

/// Whether the lines are tokens with a tag such as `O` or `B-city` in the last column, and sentences end with a blank line.
fn is_conll(lines: &[&str], named_format: Option<Format>) -> bool {
    // Parts of speech are capitals, such as `NNP` and `PRP$`, or the punctuation mark itself.
    let is_part_of_speech =
        |tag: &str| tag.len() <= 6 && tag.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_punctuation());
    let is_tag = |tag: &str| {
        is_part_of_speech(tag)
            || matches!(tag.as_bytes(), [b'B' | b'I' | b'E' | b'S' | b'L' | b'U', b'-' | b'_', _, ..])
    };
    let mut rows = 0;
    let mut has_document = false;
    let mut has_sentence_end = false;
    let mut tags = 0;
    for (index, line) in lines.iter().map(|line| line.trim_end()).enumerate() {
        if line.is_empty() {
            has_sentence_end |= rows > 0 && index + 1 < lines.len();
        } else if line.starts_with(CONLL_DOCUMENT) {
            has_document = true;
        } else if !line.starts_with('#') {
            let Some(tag) = conll_columns(line).and_then(|columns| columns.last().copied()) else { return false };
            rows += 1;
            tags += usize::from(is_tag(tag));
        }
    }
    // The first line may name the columns.
    let is_named = named_format == Some(Format::Conll);
    rows > 0 && (is_named || (tags + 1 >= rows && tags > 0 && (has_document || has_sentence_end)))
}

/// Columns of a token's line: separated by tabs, else by spaces; `None` if there is only one, or if the token has spaces.
pub(in crate::dataset) fn conll_columns(line: &str) -> Option<Vec<&str>> {
    let columns: Vec<&str> =
        if line.contains('\t') { line.split('\t').map(str::trim).collect() } else { line.split_whitespace().collect() };
    let is_token = |token: &&str| !token.is_empty() && !token.contains(char::is_whitespace);
    (columns.len() > 1 && columns.first().is_some_and(is_token)).then_some(columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(text: &str) -> Option<Format> {
        detect(text.as_bytes(), true, None)
    }

    #[test]
    fn formats_of_lines_are_recognised() {
        let conll = "Book O\na O\nRiga B-city\n\nIs O\nit O\n";
        assert_eq!(detected(conll), Some(Format::Conll));
        assert_eq!(detected(&conll.replace(' ', "\t")), Some(Format::Conll));
        assert_eq!(detected(&format!("tokens\ttags\n{}", conll.replace(' ', "\t"))), Some(Format::Conll));
        assert_eq!(detected("-DOCSTART- -X- O O\n\nBook NN B-NP O\nRiga NNP B-NP B-city\n"), Some(Format::Conll));
        assert_eq!(detected("Book VB\na DT\nflight NN\n. .\n\nHers PRP$\n"), Some(Format::Conll));
        assert_eq!(detected(">p0|acidic\nMTPLEE\n>p1|basic\nMYK*\n"), Some(Format::Fasta));
        assert_eq!(detected("__label__pos It is good.\n\n__label__neg Bad.\n"), Some(Format::Fasttext));
    }

    #[test]
    fn tables_and_prose_are_not_taken_for_them() {
        for text in [
            "text\tlabel\nBook\tO\nRiga\tB-city\n",
            "text,label\na,B-x\n\nb,O\n",
            "text\tlabel\nto Riga\tB-x\n\nto Oslo\tO\n",
            "> a quotation, and its answer\nlabel,text\n",
            "text,label\n__label__pos good,x\n",
            "",
        ] {
            assert_eq!(detected(text), None, "{text}");
        }
        assert_eq!(detect(b"Book\tO\nRiga\tB-city\n", true, Some(Format::Conll)), Some(Format::Conll));
    }
}
