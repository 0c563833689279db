//! What is said about a file: the fixed words, and the bookkeeping of the first hundred and all their counts.
//!
//! Does not know how a fault was found.

use super::{Finding, OnBadRows, Report};
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

const ROW_FAULTS: [&str; 16] = [
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
pub(super) const LISTED: usize = 100;

/// Whether leaving out rows would have avoided this finding.
pub(super) fn is_row_fault(code: &str) -> bool {
    ROW_FAULTS.contains(&code)
}

/// Something wrong or noteworthy whose place is known elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    pub code: &'static str,
    pub message: String,
}

impl Flaw {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn at(self, line: Option<u64>) -> Finding {
        Finding { line, code: self.code.to_string(), message: self.message }
    }
}

/// Collects findings while the file is read.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<Finding>,
    error_count: u64,
    warnings: Vec<Finding>,
    warning_counts: BTreeMap<String, u64>,
}

impl Findings {
    /// A row that cannot be used.
    pub fn bad_row(&mut self, line: u64, flaw: Flaw, on_bad_rows: OnBadRows) {
        match on_bad_rows {
            OnBadRows::Refuse => self.error(Some(line), flaw),
            OnBadRows::Skip => self.warning(line, flaw),
        }
    }

    /// Errors arrive in the order of the file; one about the whole file goes in front, so that it is never cut off.
    pub fn error(&mut self, line: Option<u64>, flaw: Flaw) {
        self.error_count += 1;
        match line {
            Some(_) if self.errors.len() < LISTED => self.errors.push(flaw.at(line)),
            Some(_) => {}
            None => {
                self.errors.insert(0, flaw.at(None));
                self.errors.truncate(LISTED);
            }
        }
    }

    pub fn warning(&mut self, line: u64, flaw: Flaw) {
        *self.warning_counts.entry(flaw.code.to_string()).or_default() += 1;
        if self.warnings.len() < LISTED {
            self.warnings.push(flaw.at(Some(line)));
        }
    }

    /// Warnings that could only be given at the end, sorted in among the others. Of both, the first hundred are known.
    pub fn late_warnings(&mut self, late: impl IntoIterator<Item = (u64, Flaw)>) {
        let earlier = std::mem::take(&mut self.warnings);
        for (line, flaw) in late {
            self.warning(line, flaw);
        }
        self.warnings.extend(earlier);
        self.warnings.sort_by_key(|finding| finding.line);
        self.warnings.truncate(LISTED);
    }

    /// Takes the findings of a report up again.
    pub fn of(report: &mut Report) -> Self {
        Self {
            errors: std::mem::take(&mut report.errors),
            error_count: report.error_count,
            warnings: std::mem::take(&mut report.warnings),
            warning_counts: std::mem::take(&mut report.warning_counts),
        }
    }

    /// Errors that could only be found at the end, sorted in among the others.
    pub fn late_errors(&mut self, late: impl IntoIterator<Item = (u64, Flaw)>) {
        let earlier = std::mem::take(&mut self.errors);
        for (line, flaw) in late {
            self.error(Some(line), flaw);
        }
        self.errors.extend(earlier);
        self.errors.sort_by_key(|finding| finding.line);
        self.errors.truncate(LISTED);
    }

    pub fn write_to(self, report: &mut Report) {
        report.errors = self.errors;
        report.error_count = self.error_count;
        report.warnings = self.warnings;
        report.warning_counts = self.warning_counts;
    }
}

/// A user's text inside a message: in quotes, on one line, and not longer than a line.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 60;
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    // escape_debug also escapes the apostrophe, which needs no escape between double quotes.
    format!("\"{}\"", shown.replace("\\'", "'"))
}

/// Names in quotes, the first few of them.
pub(super) fn listed<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let more = names.len().saturating_sub(SHOWN);
    let mut shown: Vec<String> = names.take(SHOWN).map(quoted).collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hundred_errors_are_listed_and_all_are_counted() {
        let mut findings = Findings::default();
        (2..=251).for_each(|line| findings.error(Some(line), Flaw::new(EMPTY_TEXT, "empty")));
        findings.error(None, Flaw::new(NO_USABLE_ROW, "none"));
        let mut report = Report::default();
        findings.write_to(&mut report);
        assert_eq!(report.error_count, 251);
        assert_eq!(report.errors.len(), 100);
        assert_eq!((report.errors[0].line, report.errors[99].line), (None, Some(100)));
    }

    #[test]
    fn a_late_warning_takes_its_place_by_line() {
        let mut findings = Findings::default();
        (0..150).for_each(|index| findings.warning(2 + 2 * index, Flaw::new(DUPLICATE, "again")));
        findings.late_warnings([(5, Flaw::new(LABEL_SEEN_ONCE, "once"))]);
        let mut report = Report::default();
        findings.write_to(&mut report);
        assert_eq!((report.warnings.len(), report.warnings[2].line), (100, Some(5)));
        assert_eq!(report.warning_counts["duplicate"], 150);
    }

    #[test]
    fn a_quoted_text_stays_on_one_line() {
        assert_eq!(quoted("it's\na \0"), "\"it's\\na \\0\"");
        assert_eq!(quoted(&"é".repeat(61)), format!("\"{}…\"", "é".repeat(60)));
    }
}
