//! Test files: writing, validation, and short forms of the results.

use espalier_core::dataset::{
    self, CountTokens, Format, Limits, LocatedDiagnostic, OnBadRows, Options, TokenCount, ValidatedDataset,
};
use espalier_core::error::Result;
use espalier_core::task::{self, Example, Target};
use std::io::Write;

/// Counts words as tokens, with a `max_length` of 4.
pub struct WordCounter;

impl CountTokens for WordCounter {
    fn count_tokens(&self, example: &Example) -> Result<Vec<TokenCount>> {
        let words = |text: &str| text.split_whitespace().count();
        let words = words(&example.text) + example.text_pair.as_deref().map_or(0, words);
        Ok(vec![TokenCount { tokens: words.min(4), truncated: words > 4 }])
    }
}

/// File content and the options of its validation.
pub struct File {
    pub bytes: Vec<u8>,
    pub options: Options,
    pub limits: Limits,
}

pub fn csv(text: impl AsRef<[u8]>) -> File {
    File::new(Format::Csv, text)
}

pub fn tsv(text: impl AsRef<[u8]>) -> File {
    File::new(Format::Tsv, text)
}

pub fn jsonl(text: impl AsRef<[u8]>) -> File {
    File::new(Format::Jsonl, text)
}

impl File {
    pub fn new(format: Format, bytes: impl AsRef<[u8]>) -> Self {
        Self {
            bytes: bytes.as_ref().to_vec(),
            options: Options::new(format),
            limits: Limits { max_bytes: 1 << 24, max_rows: 1 << 20, max_record_bytes: 1 << 16, max_labels: 1000 },
        }
    }

    pub fn map_column(mut self, field: &str, column: &str) -> Self {
        self.options.columns.insert(field.into(), column.into());
        self
    }

    pub fn skip_bad_rows(mut self) -> Self {
        self.options.on_bad_rows = OnBadRows::Skip;
        self
    }

    pub fn with_limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    pub fn check(&self) -> ValidatedDataset {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&self.bytes).unwrap();
        dataset::validate(file.path(), &self.options, &task::Config::default(), &WordCounter, &self.limits).unwrap()
    }

    /// Line (0 for the whole file) and code of each error.
    pub fn errors(&self) -> Vec<(u64, String)> {
        let report = self.check().report;
        assert_eq!(report.error_count as usize, report.errors.len());
        lines_and_codes(&report.errors)
    }

    pub fn warnings(&self) -> Vec<(u64, String)> {
        let report = self.check().report;
        assert_eq!(report.error_count, 0, "{:?}", report.errors);
        lines_and_codes(&report.warnings)
    }

    /// Line, text and label of each example.
    pub fn examples(&self) -> Vec<(u64, String, String)> {
        let examples = self.check().examples.into_iter();
        examples
            .map(|example| {
                (example.line, example.text, {
                    let Target::Label(label) = example.target else { panic!("the target is not a label") };
                    label
                })
            })
            .collect()
    }
}

fn lines_and_codes(diagnostics: &[LocatedDiagnostic]) -> Vec<(u64, String)> {
    diagnostics.iter().map(|diagnostic| (diagnostic.line.unwrap_or(0), diagnostic.code.clone())).collect()
}

/// Expected value of `errors` or `warnings`.
pub fn expected_diagnostics(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(line, code)| (*line, code.to_string())).collect()
}

/// Expected value of `examples`.
pub fn expected_examples(expected: &[(u64, &str, &str)]) -> Vec<(u64, String, String)> {
    expected.iter().map(|(line, text, label)| (*line, text.to_string(), label.to_string())).collect()
}
