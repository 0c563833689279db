//! Collects diagnostics while a file is read: the first 100 errors and warnings, and all counts.

use super::diagnostics::{Diagnostic, LocatedDiagnostic};
use super::options::OnBadRows;
use super::report::Report;
use std::collections::BTreeMap;

/// Number of errors, and of warnings, that a report lists.
const MAX_LISTED: usize = 100;

/// Collects errors and warnings of a dataset: all are counted, the first are kept.
#[derive(Debug, Default)]
pub(super) struct DiagnosticCollector {
    errors: Vec<LocatedDiagnostic>,
    error_count: u64,
    warnings: Vec<LocatedDiagnostic>,
    warning_counts: BTreeMap<String, u64>,
}

impl DiagnosticCollector {
    /// Adds the error of a row: as a warning under `skip`.
    pub fn push_bad_row(&mut self, line: u64, diagnostic: Diagnostic, on_bad_rows: OnBadRows) {
        match on_bad_rows {
            OnBadRows::Refuse => self.push_error(Some(line), diagnostic),
            OnBadRows::Skip => self.push_warning(line, diagnostic),
        }
    }

    /// Adds an error. Errors of rows must come in file order; one of the whole file is put first, so that it is always listed.
    pub fn push_error(&mut self, line: Option<u64>, diagnostic: Diagnostic) {
        self.error_count += 1;
        match line {
            Some(_) if self.errors.len() < MAX_LISTED => self.errors.push(diagnostic.with_line(line)),
            Some(_) => {}
            None => {
                self.errors.insert(0, diagnostic.with_line(None));
                self.errors.truncate(MAX_LISTED);
            }
        }
    }

    pub fn push_warning(&mut self, line: u64, diagnostic: Diagnostic) {
        *self.warning_counts.entry(diagnostic.code.to_string()).or_default() += 1;
        if self.warnings.len() < MAX_LISTED {
            self.warnings.push(diagnostic.with_line(Some(line)));
        }
    }

    /// Adds a warning about the file as a whole. It is put first, so that it is always listed.
    pub fn push_file_warning(&mut self, diagnostic: Diagnostic) {
        *self.warning_counts.entry(diagnostic.code.to_string()).or_default() += 1;
        self.warnings.insert(0, diagnostic.with_line(None));
        self.warnings.truncate(MAX_LISTED);
    }

    /// Adds errors of rows that are known only at the end of the file: as warnings under `skip`.
    pub fn merge_bad_rows(&mut self, late: Vec<(u64, Diagnostic)>, on_bad_rows: OnBadRows) {
        match on_bad_rows {
            OnBadRows::Refuse => self.merge_errors(late),
            OnBadRows::Skip => self.merge_warnings(late),
        }
    }

    /// Adds warnings that are known only at the end of the file, sorted by line among the others.
    pub fn merge_warnings(&mut self, late: impl IntoIterator<Item = (u64, Diagnostic)>) {
        let in_file_order = std::mem::take(&mut self.warnings);
        for (line, diagnostic) in late {
            self.push_warning(line, diagnostic);
        }
        self.warnings.extend(in_file_order);
        self.warnings.sort_by_key(|diagnostic| diagnostic.line);
        self.warnings.truncate(MAX_LISTED);
    }

    /// Continues with the diagnostics of a report.
    pub fn take_from(report: &mut Report) -> Self {
        Self {
            errors: std::mem::take(&mut report.errors),
            error_count: report.error_count,
            warnings: std::mem::take(&mut report.warnings),
            warning_counts: std::mem::take(&mut report.warning_counts),
        }
    }

    /// Adds errors of rows that are known only at the end, sorted by line among the others.
    pub fn merge_errors(&mut self, late: impl IntoIterator<Item = (u64, Diagnostic)>) {
        let in_file_order = std::mem::take(&mut self.errors);
        for (line, diagnostic) in late {
            self.push_error(Some(line), diagnostic);
        }
        self.errors.extend(in_file_order);
        self.errors.sort_by_key(|diagnostic| diagnostic.line);
        self.errors.truncate(MAX_LISTED);
    }

    pub fn store_in(self, report: &mut Report) {
        report.errors = self.errors;
        report.error_count = self.error_count;
        report.warnings = self.warnings;
        report.warning_counts = self.warning_counts;
    }
}

#[cfg(test)]
mod tests {
    use super::super::diagnostics::{DUPLICATE, EMPTY_TEXT, LABEL_SEEN_ONCE, NO_USABLE_ROW};
    use super::*;

    #[test]
    fn report_lists_100_errors_and_counts_all() {
        let mut collector = DiagnosticCollector::default();
        (2..=251).for_each(|line| collector.push_error(Some(line), Diagnostic::new(EMPTY_TEXT, "empty")));
        collector.push_error(None, Diagnostic::new(NO_USABLE_ROW, "none"));
        let mut report = Report::default();
        collector.store_in(&mut report);
        assert_eq!(report.error_count, 251);
        assert_eq!(report.errors.len(), 100);
        assert_eq!((report.errors[0].line, report.errors[99].line), (None, Some(100)));
    }

    #[test]
    fn merged_warnings_are_sorted_by_line() {
        let mut collector = DiagnosticCollector::default();
        (0..150).for_each(|index| collector.push_warning(2 + 2 * index, Diagnostic::new(DUPLICATE, "again")));
        collector.merge_warnings([(5, Diagnostic::new(LABEL_SEEN_ONCE, "once"))]);
        let mut report = Report::default();
        collector.store_in(&mut report);
        assert_eq!((report.warnings.len(), report.warnings[2].line), (100, Some(5)));
        assert_eq!(report.warning_counts["duplicate"], 150);
    }
}
