//! Rows that are longer than `max_length`: one finding for the file, and errors of the rows of which nothing to learn remains.

use super::diagnostics::{self, Diagnostic};
use super::token_lengths::{CountTokens, TokenCount};
use crate::error::{Error, Result};
use crate::task::Example;

/// Length of each example of a file.
#[derive(Debug, Default)]
pub(super) struct Truncation {
    /// Tokens of the example's longest sequence; one more than the base reads where the base cuts it.
    row_lengths: Vec<u32>,
}

/// Result of cutting a file's texts.
pub(super) struct Truncated {
    /// Line and error of each row of which nothing that can be learned remains.
    pub bad_rows: Vec<(u64, Diagnostic)>,
    pub warning: Option<Diagnostic>,
}

impl Truncation {
    /// Records the lengths of the next example's sequences.
    pub fn record(&mut self, token_counts: &[TokenCount]) {
        let longest = token_counts.iter().map(|count| count.tokens + usize::from(count.truncated)).max();
        self.row_lengths.push(u32::try_from(longest.unwrap_or(0)).unwrap_or(u32::MAX));
    }

    /// Removes the examples that cannot be learned from once they are cut to `max_length` tokens.
    ///
    /// # Errors
    /// Internal errors of the token counter.
    pub fn apply(
        &self,
        examples: &mut Vec<Example>,
        token_counter: &dyn CountTokens,
        max_length: usize,
    ) -> Result<Truncated> {
        let mut bad_rows = Vec::new();
        let mut is_usable = vec![true; examples.len()];
        let (mut cut_rows, mut longest) = (0usize, 0);
        for (index, length) in self.row_lengths.iter().map(|length| *length as usize).enumerate() {
            if length <= max_length {
                continue;
            }
            match token_counter.check_truncated(&examples[index], max_length) {
                Ok(()) => {
                    cut_rows += 1;
                    longest = longest.max(length);
                }
                Err(Error::Invalid(problem)) => {
                    is_usable[index] = false;
                    bad_rows.push((examples[index].line, Diagnostic::new(problem.code, problem.detail)));
                }
                Err(other) => return Err(other),
            }
        }
        let mut is_usable = is_usable.into_iter();
        examples.retain(|_| is_usable.next().unwrap_or(true));
        let warning = (cut_rows > 0).then(|| {
            let cut = TruncatedRows { count: cut_rows, longest };
            cut.warning(examples.len(), max_length, token_counter.longest())
        });
        Ok(Truncated { bad_rows, warning })
    }
}

/// Rows that are longer than `max_length`.
struct TruncatedRows {
    count: usize,
    /// Tokens of the longest; one more than the base reads where the base cuts it.
    longest: usize,
}

impl TruncatedRows {
    fn warning(&self, examples: usize, max_length: usize, base_length: usize) -> Diagnostic {
        let verb = if self.count == 1 { "is" } else { "are" };
        let advice = match self.longest > base_length {
            false => format!("`max_length` {} keeps all of them whole", self.longest),
            true if max_length < base_length => {
                format!("`max_length` {base_length} keeps most of them, and this base reads no more")
            }
            true => "this base reads no more: put what matters first, or split these texts".to_string(),
        };
        let message = format!(
            "{} of {examples} rows {verb} longer than the `max_length` of {max_length} tokens and cut at the end: {advice}",
            self.count
        );
        Diagnostic::new(diagnostics::TRUNCATED, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Target;

    struct Counter;

    impl CountTokens for Counter {
        fn count_tokens(&self, _example: &Example) -> Result<Vec<TokenCount>> {
            Ok(Vec::new())
        }

        fn longest(&self) -> usize {
            50
        }

        fn check_truncated(&self, example: &Example, _max_length: usize) -> Result<()> {
            match example.line {
                4 => Err(Error::invalid("nothing_to_learn", "nothing remains")),
                _ => Ok(()),
            }
        }
    }

    fn apply(lengths: &[usize], max_length: usize) -> (Vec<u64>, Truncated) {
        let example = |line| Example { line, text: String::new(), text_pair: None, target: Target::Text };
        let mut examples: Vec<Example> = (2..2 + lengths.len() as u64).map(example).collect();
        let mut truncation = Truncation::default();
        for length in lengths {
            let count = TokenCount { tokens: (*length).min(50), truncated: *length > 50, ..TokenCount::default() };
            truncation.record(&[count]);
        }
        let truncated = truncation.apply(&mut examples, &Counter, max_length).unwrap();
        (examples.iter().map(|example| example.line).collect(), truncated)
    }

    #[test]
    fn one_warning_counts_the_cut_rows_and_names_the_length_that_keeps_them() {
        let (lines, truncated) = apply(&[8, 20, 30, 16, 40], 16);
        assert_eq!((lines, truncated.bad_rows.len(), truncated.bad_rows[0].0), (vec![2, 3, 5, 6], 1, 4));
        let message = truncated.warning.unwrap().message;
        assert!(message.starts_with("2 of 4 rows are longer than the `max_length` of 16 tokens"), "{message}");
        assert!(message.ends_with("`max_length` 40 keeps all of them whole"), "{message}");
        assert!(apply(&[8, 16], 16).1.warning.is_none());
    }

    #[test]
    fn a_text_longer_than_the_base_reads_is_said_to_be_one() {
        let message = |max_length| apply(&[8, 60], max_length).1.warning.unwrap().message;
        assert!(message(16).contains("`max_length` 50 keeps most of them"), "{}", message(16));
        assert!(message(50).contains("1 of 2 rows is longer") && message(50).contains("split"), "{}", message(50));
    }
}
