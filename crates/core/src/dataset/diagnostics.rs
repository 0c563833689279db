//! Diagnostics of a dataset: their codes, and quoting of user text in messages.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

// Errors of one row: `on_bad_rows: skip` turns them into warnings.
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
pub(super) const UNKNOWN_SPLIT: &str = "unknown_split";
pub(super) const UNNAMED_LABEL: &str = "unnamed_label";
pub(super) const UNREADABLE_RECORD: &str = "unreadable_record";
pub(super) const UNSUPPORTED_WEIGHT: &str = "unsupported_weight";
pub(super) const WRONG_TYPE: &str = "wrong_type";

// Errors of the file: it is refused even with `on_bad_rows: skip`.
pub(super) const DAMAGED_FILE: &str = "damaged_file";
pub(super) const DUPLICATE_COLUMN: &str = "duplicate_column";
pub(super) const INVALID_COLUMNS: &str = "invalid_columns";
pub(super) const INVALID_HEADER: &str = "invalid_header";
pub(super) const LABELS_LIKE_LISTS: &str = "labels_like_lists";
pub(super) const LABELS_LIKE_NUMBERS: &str = "labels_like_numbers";
pub(super) const LABEL_NAMES: &str = "label_names";
pub(super) const LABEL_SEPARATOR: &str = "label_separator";
pub(super) const MISSING_COLUMN: &str = "missing_column";
pub(super) const NO_USABLE_ROW: &str = "no_usable_row";
pub(super) const NUMBER_FORMAT: &str = "number_format";
pub(super) const TOO_FEW_EXAMPLES: &str = "too_few_examples";
pub(super) const TOO_FEW_LABELS: &str = "too_few_labels";
pub(super) const TOO_FEW_VALUES: &str = "too_few_values";
pub(super) const TOO_MANY_BYTES: &str = "too_many_bytes";
pub(super) const TOO_MANY_LABELS: &str = "too_many_labels";
pub(super) const TOO_MANY_ROWS: &str = "too_many_rows";
pub(super) const UNIQUE_LABELS: &str = "unique_labels";
pub(super) const UNKNOWN_ENCODING: &str = "unknown_encoding";
pub(super) const UNKNOWN_FORMAT: &str = "unknown_format";
pub(super) const UNKNOWN_LABEL: &str = "unknown_label";
pub(super) const UNSUPPORTED_COLUMN: &str = "unsupported_column";

// Warnings.
pub(super) const CLASS_NAMES: &str = "class_names";
pub(super) const CONFLICTING_LABELS: &str = "conflicting_labels";
pub(super) const CUT_WORD: &str = "cut_word";
pub(super) const DUPLICATE: &str = "duplicate";
pub(super) const LABEL_SEEN_ONCE: &str = "label_seen_once";
pub(super) const NOT_READ: &str = "not_read";
pub(super) const NO_LABEL: &str = "no_label";
pub(super) const OUTLIERS: &str = "outliers";
pub(super) const RARE_LABEL: &str = "rare_label";
pub(super) const SHARED_WITH_VALIDATION: &str = "shared_with_validation";
pub(super) const SIMILAR_LABELS: &str = "similar_labels";
pub(super) const SPANS_LINES: &str = "spans_lines";
pub(super) const TRAILING_COMMA: &str = "trailing_comma";
pub(super) const TRUNCATED: &str = "truncated";
/// Warning of a row or a file; error of a file of which most tokens are unknown.
pub(super) const UNKNOWN_TOKENS: &str = "unknown_tokens";
pub(super) const UNQUOTED: &str = "unquoted";
pub(super) const WHITE_SPACE: &str = "white_space";

const SKIPPABLE_CODES: [&str; 19] = [
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
    UNKNOWN_SPLIT,
    UNNAMED_LABEL,
    UNREADABLE_RECORD,
    UNSUPPORTED_WEIGHT,
    WRONG_TYPE,
];

/// Whether `on_bad_rows: skip` would have avoided an error with this code.
pub(super) fn is_skippable(code: &str) -> bool {
    SKIPPABLE_CODES.contains(&code)
}

/// Error or warning without its line.
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

/// Error or warning in a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LocatedDiagnostic {
    /// Left out where the diagnostic is about the whole file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    pub code: String,
    pub message: String,
}

/// Quotes user text for a message: escaped onto one line, and cut to 60 characters.
pub(super) fn quote(text: &str) -> String {
    const MAX_CHARACTERS: usize = 60;
    let mut quoted_text: String = text.chars().take(MAX_CHARACTERS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_CHARACTERS).is_some() {
        quoted_text.push('…');
    }
    // escape_debug also escapes the apostrophe, which needs no escape between double quotes.
    format!("\"{}\"", quoted_text.replace("\\'", "'"))
}

/// Quotes the first 20 names.
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
    fn quote_escapes_and_truncates() {
        assert_eq!(quote("it's\na \0"), "\"it's\\na \\0\"");
        assert_eq!(quote(&"é".repeat(61)), format!("\"{}…\"", "é".repeat(60)));
    }
}
