//! What is said about a file: the fixed words, and the bookkeeping of the first hundred and all their counts.
//!
//! Does not know how a fault was found.

use super::{LocatedDiagnostic, OnBadRows, Report};
use std::collections::BTreeMap;

// Faults of one row: `on_bad_rows: skip` turns them into warnings.
pub(super) const BAD_UTF8: &str = "bad_utf8";
pub(super) const BROKEN_QUOTE: &str = "broken_quote";
pub(super) const EMPTY_LABEL: &str = "empty_label";
pub(super) const EMPTY_TEXT: &str = "empty_text";
pub(super) const ENTITY_OUTSIDE: &str = "entity_outside";
pub(super) const FIELD_COUNT: &str = "field_count";
pub(super) const LABEL_TOO_LONG: &str = "label_too_long";
pub(super) const MISSING_FIELD: &str = "missing_field";
pub(super) const NUL_CHARACTER: &str = "nul_character";
pub(super) const OVERLAPPING_ENTITIES: &str = "overlapping_entities";
pub(super) const RECORD_TOO_LONG: &str = "record_too_long";
pub(super) const TAG_COUNT: &str = "tag_count";
pub(super) const UNREADABLE_RECORD: &str = "unreadable_record";
pub(super) const WRONG_TYPE: &str = "wrong_type";

// Faults of the file: they refuse it in any case.
pub(super) const DUPLICATE_COLUMN: &str = "duplicate_column";
pub(super) const INVALID_COLUMNS: &str = "invalid_columns";
pub(super) const INVALID_HEADER: &str = "invalid_header";
pub(super) const MISSING_COLUMN: &str = "missing_column";
pub(super) const NO_USABLE_ROW: &str = "no_usable_row";
pub(super) const TOO_FEW_EXAMPLES: &str = "too_few_examples";
pub(super) const TOO_FEW_LABELS: &str = "too_few_labels";
pub(super) const TOO_FEW_VALUES: &str = "too_few_values";
pub(super) const TOO_MANY_BYTES: &str = "too_many_bytes";
pub(super) const TOO_MANY_LABELS: &str = "too_many_labels";
pub(super) const TOO_MANY_ROWS: &str = "too_many_rows";
pub(super) const UNKNOWN_LABEL: &str = "unknown_label";

// Warnings.
pub(super) const CONFLICTING_LABELS: &str = "conflicting_labels";
pub(super) const CUT_WORD: &str = "cut_word";
pub(super) const DUPLICATE: &str = "duplicate";
pub(super) const LABEL_SEEN_ONCE: &str = "label_seen_once";
pub(super) const TRUNCATED: &str = "truncated";
pub(super) const WHITE_SPACE: &str = "white_space";

const SKIPPABLE_CODES: [&str; 16] = [
    "chat_template_refused",
    "nothing_to_learn",
    BAD_UTF8,
    BROKEN_QUOTE,
    EMPTY_LABEL,
    EMPTY_TEXT,
    ENTITY_OUTSIDE,
    FIELD_COUNT,
    LABEL_TOO_LONG,
    MISSING_FIELD,
    NUL_CHARACTER,
    OVERLAPPING_ENTITIES,
    RECORD_TOO_LONG,
    TAG_COUNT,
    UNREADABLE_RECORD,
    WRONG_TYPE,
];

/// How many errors, and how many warnings, a report lists.
pub(super) const MAX_LISTED: usize = 100;

/// Whether leaving out rows would have avoided this finding.
pub(super) fn is_skippable(code: &str) -> bool {
    SKIPPABLE_CODES.contains(&code)
}

/// Something wrong or noteworthy whose place is known elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Diagnostic {
    pub code: &'static str,
    pub message: String,
}

impl Diagnostic {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn with_line(self, line: Option<u64>) -> LocatedDiagnostic {
        LocatedDiagnostic { line, code: self.code.to_string(), message: self.message }
    }
}

/// Collects findings while the file is read.
#[derive(Debug, Default)]
pub(super) struct DiagnosticCollector {
    errors: Vec<LocatedDiagnostic>,
    error_count: u64,
    warnings: Vec<LocatedDiagnostic>,
    warning_counts: BTreeMap<String, u64>,
}

impl DiagnosticCollector {
    /// A row that cannot be used.
    pub fn push_bad_row(&mut self, line: u64, diagnostic: Diagnostic, on_bad_rows: OnBadRows) {
        match on_bad_rows {
            OnBadRows::Refuse => self.push_error(Some(line), diagnostic),
            OnBadRows::Skip => self.push_warning(line, diagnostic),
        }
    }

    /// Errors arrive in the order of the file; one about the whole file goes in front, so that it is never cut off.
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

    /// Warnings that could only be given at the end, sorted in among the others. Of both, the first hundred are known.
    pub fn merge_warnings(&mut self, late: impl IntoIterator<Item = (u64, Diagnostic)>) {
        let in_file_order = std::mem::take(&mut self.warnings);
        for (line, flaw) in late {
            self.push_warning(line, flaw);
        }
        self.warnings.extend(in_file_order);
        self.warnings.sort_by_key(|finding| finding.line);
        self.warnings.truncate(MAX_LISTED);
    }

    /// Takes the findings of a report up again.
    pub fn take_from(report: &mut Report) -> Self {
        Self {
            errors: std::mem::take(&mut report.errors),
            error_count: report.error_count,
            warnings: std::mem::take(&mut report.warnings),
            warning_counts: std::mem::take(&mut report.warning_counts),
        }
    }

    /// Errors that could only be found at the end, sorted in among the others.
    pub fn merge_errors(&mut self, late: impl IntoIterator<Item = (u64, Diagnostic)>) {
        let in_file_order = std::mem::take(&mut self.errors);
        for (line, flaw) in late {
            self.push_error(Some(line), flaw);
        }
        self.errors.extend(in_file_order);
        self.errors.sort_by_key(|finding| finding.line);
        self.errors.truncate(MAX_LISTED);
    }

    pub fn store_in(self, report: &mut Report) {
        report.errors = self.errors;
        report.error_count = self.error_count;
        report.warnings = self.warnings;
        report.warning_counts = self.warning_counts;
    }
}

/// A user's text inside a message: in quotes, on one line, and not longer than a line.
pub(super) fn quote(text: &str) -> String {
    const MAX_CHARACTERS: usize = 60;
    let mut quoted_text: String = text.chars().take(MAX_CHARACTERS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_CHARACTERS).is_some() {
        quoted_text.push('…');
    }
    // escape_debug also escapes the apostrophe, which needs no escape between double quotes.
    format!("\"{}\"", quoted_text.replace("\\'", "'"))
}

/// Names in quotes, the first few of them.
pub(super) fn quote_list<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const MAX_NAMES: usize = 20;
    let omitted = names.len().saturating_sub(MAX_NAMES);
    let mut quoted_names: Vec<String> = names.take(MAX_NAMES).map(quote).collect();
    if omitted > 0 {
        quoted_names.push(format!("and {omitted} more"));
    }
    quoted_names.join(", ")
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn quote_escapes_and_truncates() {
        assert_eq!(quote("it's\na \0"), "\"it's\\na \\0\"");
        assert_eq!(quote(&"é".repeat(61)), format!("\"{}…\"", "é".repeat(60)));
    }
}
