//! What a validation dataset shares with its training dataset.

use super::diagnostic_collector::DiagnosticCollector;
use super::diagnostics::{self, Diagnostic};
use super::report::Report;
use crate::task::Example;
use crate::task::text_key::TextKey;
use std::collections::HashSet;

/// Keys of a dataset's inputs, by which copies and near-copies are found.
pub struct InputKeys(HashSet<TextKey>);

impl InputKeys {
    pub fn new(examples: &[Example]) -> Self {
        Self(examples.iter().map(Example::input_key).collect())
    }

    /// Number of examples whose input is one of these.
    pub fn count_shared(&self, examples: &[Example]) -> usize {
        examples.iter().filter(|example| self.0.contains(&example.input_key())).count()
    }
}

impl Report {
    /// Adds a warning (`shared_with_validation`) to the report of a training dataset, where `shared` of the `examples` of its validation
    /// dataset are also in it.
    pub fn warn_about_shared_examples(&mut self, shared: usize, examples: usize) {
        if shared == 0 {
            return;
        }
        let verb = if shared == 1 { "is" } else { "are" };
        let message = format!(
            "{shared} of the {examples} rows of the validation dataset {verb} also in the training dataset (the same text up to case, \
             white space and Unicode form): the metrics look better than the model is; take these rows out of one of the two"
        );
        let mut collector = DiagnosticCollector::take_from(self);
        collector.push_file_warning(Diagnostic::new(diagnostics::SHARED_WITH_VALIDATION, message));
        collector.store_in(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::Target;

    #[test]
    fn shared_examples_are_counted_and_reported_once() {
        let example = |text: &str| {
            let target = Target::Label("a".to_string());
            Example { line: 1, text: text.to_string(), text_pair: None, target }
        };
        let keys = InputKeys::new(&[example("My card"), example("cash")]);
        let shared = keys.count_shared(&[example("my  CARD"), example("my card"), example("transfer")]);
        assert_eq!(shared, 2);
        let mut report = Report::default();
        report.warn_about_shared_examples(0, 3);
        assert!(report.warnings.is_empty());
        report.warn_about_shared_examples(shared, 3);
        assert_eq!((report.warnings[0].code.as_str(), report.warnings[0].line), ("shared_with_validation", None));
        assert!(report.warnings[0].message.starts_with("2 of the 3 rows"), "{}", report.warnings[0].message);
    }
}
