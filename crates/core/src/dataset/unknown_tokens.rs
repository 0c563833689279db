//! Text that the base's vocabulary does not know, such as emoji or another script: findings of rows and of the file.

use super::diagnostics::{self, Diagnostic};
use super::token_lengths::TokenCount;
use crate::model::VocabularyCount;

/// The report warns about a row if at least this share of its tokens is unknown.
const ROW_SHARE: f64 = 0.5;

/// The report warns about the file if at least this share of its tokens is unknown.
const FILE_SHARE: f64 = 0.01;

/// The file is refused if more than this share of its tokens is unknown.
const REFUSED_SHARE: f64 = 0.5;

/// Tokens of a file that are unknown to the base.
#[derive(Debug, Default)]
pub(super) struct UnknownTokens {
    total: VocabularyCount,
    /// Rows with an unknown token, and the first of them.
    rows: u64,
    first_line: u64,
}

impl UnknownTokens {
    /// Counts the tokens of a row. Returns a warning where most of the row is unknown.
    pub fn record(&mut self, line: u64, token_counts: &[TokenCount]) -> Option<Diagnostic> {
        let row: VocabularyCount = token_counts.iter().map(|count| count.vocabulary).sum();
        self.total = [self.total, row].into_iter().sum();
        if row.unknown > 0 {
            self.first_line = if self.rows == 0 { line } else { self.first_line };
            self.rows += 1;
        }
        (row.unknown > 0 && row.share() >= ROW_SHARE).then(|| {
            let message = format!(
                "{} of the {} tokens of this row are unknown to the base's vocabulary: the model sees none of that text",
                row.unknown, row.tokens
            );
            Diagnostic::new(diagnostics::UNKNOWN_TOKENS, message)
        })
    }

    /// Whether most of the file's text is unknown.
    pub fn is_most(&self) -> bool {
        self.total.share() > REFUSED_SHARE
    }

    /// Finding about the file, from a share of 1 % on.
    pub fn file_diagnostic(&self) -> Option<Diagnostic> {
        let share = self.total.share();
        if self.total.unknown == 0 || share < FILE_SHARE {
            return None;
        }
        let advice = match self.is_most() {
            true => {
                "nothing can be learned from it: use a base whose vocabulary has this script, such as a multilingual one"
            }
            false => "the model does not see that text; a base whose vocabulary has these characters would",
        };
        let place = match self.rows {
            1 => format!("line {}", self.first_line),
            rows => format!("{rows} rows from line {} on", self.first_line),
        };
        let message = format!(
            "{:.0} % of the tokens of the texts, in {place}, are unknown to the base's vocabulary \
             (such as emoji, or another script): {advice}",
            100.0 * share,
        );
        Some(Diagnostic::new(diagnostics::UNKNOWN_TOKENS, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(unknown: usize, tokens: usize) -> [TokenCount; 1] {
        [TokenCount { tokens: tokens + 2, truncated: false, vocabulary: VocabularyCount { unknown, tokens } }]
    }

    #[test]
    fn a_row_of_unknown_tokens_gets_a_warning_and_few_of_them_none() {
        let mut tokens = UnknownTokens::default();
        assert!(tokens.record(2, &count(0, 300)).is_none());
        assert!(tokens.record(3, &count(1, 300)).is_none());
        assert!(tokens.file_diagnostic().is_none(), "less than 1 %");
        let warning = tokens.record(7, &count(8, 10)).unwrap();
        assert!(warning.message.starts_with("8 of the 10 tokens"), "{}", warning.message);
        let message = tokens.file_diagnostic().unwrap().message;
        assert!(message.contains("1 % of the tokens") && message.contains("2 rows from line 3 on"), "{message}");
        assert!(!tokens.is_most());
    }

    #[test]
    fn mostly_unknown_text_is_refused_with_the_vocabulary_as_the_reason() {
        let mut tokens = UnknownTokens::default();
        tokens.record(2, &count(9, 10));
        assert!(tokens.is_most());
        assert!(tokens.file_diagnostic().unwrap().message.contains("multilingual"));
        assert!(!UnknownTokens::default().is_most());
    }
}
