//! Normalization and checks that the fields of several schemas share.

use crate::dataset::diagnostics::{self, Diagnostic};
use crate::dataset::row::RowErrors;
use std::borrow::Cow;

/// Longest label in characters. A longer one is probably a text that was read as a label.
const MAX_LABEL_CHARACTERS: usize = 1000;

/// Trims and checks the fields of one row, and collects its errors.
#[derive(Default)]
pub(super) struct FieldChecks {
    errors: Vec<Diagnostic>,
    trimmed_fields: Vec<&'static str>,
}

impl FieldChecks {
    /// Removes surrounding white space. `name` is listed as trimmed if something is left.
    pub fn trim<'a>(&mut self, name: &'static str, value: Cow<'a, str>) -> Cow<'a, str> {
        let untrimmed_bytes = value.len();
        let trimmed = trim_value(value);
        if trimmed.len() < untrimmed_bytes && !trimmed.is_empty() {
            self.trimmed_fields.push(name);
        }
        trimmed
    }

    /// Removes surrounding white space; a blank value counts as absent.
    pub fn trim_optional<'a>(&mut self, name: &'static str, value: Option<Cow<'a, str>>) -> Option<Cow<'a, str>> {
        value.map(|value| self.trim(name, value)).filter(|value| !value.is_empty())
    }

    /// Adds an error for an empty text.
    pub fn require_text(&mut self, name: &str, value: &str) {
        self.require(diagnostics::EMPTY_TEXT, name, value);
    }

    pub fn push(&mut self, error: Diagnostic) {
        self.errors.push(error);
    }

    /// Adds the errors that any text and any label may have, and returns the names of the trimmed fields.
    pub fn finish<L: AsRef<str>>(
        mut self,
        texts: &[Option<&str>],
        labels: &[L],
    ) -> Result<Vec<&'static str>, RowErrors> {
        if let Some(empty) = labels.iter().find(|label| label.as_ref().is_empty()) {
            self.require(diagnostics::EMPTY_LABEL, "label", empty.as_ref());
        }
        let has_nul = |value: &str| value.contains('\0');
        if texts.iter().flatten().any(|text| has_nul(text)) || labels.iter().any(|label| has_nul(label.as_ref())) {
            let message =
                "the row holds a NUL character (U+0000): take it out, or save the file as UTF-8 if it is UTF-16";
            self.push(Diagnostic::new(diagnostics::NUL_CHARACTER, message));
        }
        if labels.iter().any(|label| label.as_ref().chars().nth(MAX_LABEL_CHARACTERS).is_some()) {
            let message = format!(
                "the label is longer than {MAX_LABEL_CHARACTERS} characters: is `label` read from the right column?"
            );
            self.push(Diagnostic::new(diagnostics::LABEL_TOO_LONG, message));
        }
        if self.errors.is_empty() { Ok(self.trimmed_fields) } else { Err(self.errors.into_iter().collect()) }
    }

    fn require(&mut self, code: &'static str, name: &str, value: &str) {
        if value.is_empty() {
            let message = format!("the {name} is empty: fill it in, or leave the row out");
            self.push(Diagnostic::new(code, message));
        }
    }
}

/// Removes surrounding white space.
pub(super) fn trim_value(value: Cow<'_, str>) -> Cow<'_, str> {
    match value {
        Cow::Borrowed(value) => Cow::Borrowed(value.trim()),
        Cow::Owned(value) if value.trim().len() == value.len() => Cow::Owned(value),
        Cow::Owned(value) => Cow::Owned(value.trim().to_string()),
    }
}
