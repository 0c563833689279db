//! Check of the fields of one request that are not read: which of them are ignored, and which are refused.

use super::field_rules::Rule;
use super::request::unsupported_field;
use crate::http::error::ApiResult;
use espalier_core::model::chat::ChatTemplate;
use serde_json::Value;
use std::collections::BTreeSet;

/// State of the check of one request.
pub struct FieldCheck<'a> {
    /// Whether unknown fields are refused (`--strict-requests`).
    pub is_strict: bool,
    /// The base's chat template, which may read further fields of messages.
    pub template: Option<&'a ChatTemplate>,
    /// Names of the fields that are ignored so far.
    pub ignored: BTreeSet<String>,
    /// Whether a field was left out, so that the request's text is not what is read.
    pub is_changed: bool,
}

impl<'a> FieldCheck<'a> {
    pub fn new(is_strict: bool, template: Option<&'a ChatTemplate>) -> Self {
        Self { is_strict, template, ignored: BTreeSet::new(), is_changed: false }
    }

    /// Checks a field that is not read, at a JSON pointer such as `/messages/0/name`.
    ///
    /// # Errors
    /// `unsupported_field` if it would change the answer.
    pub fn unread_field(
        &mut self,
        pointer: &str,
        value: &Value,
        rule: Option<Rule>,
        name_for_header: impl FnOnce() -> String,
    ) -> ApiResult<()> {
        self.is_changed = true;
        let is_ignored = match rule {
            _ if value.is_null() => false,
            Some(Rule::NoEffect) => false,
            Some(Rule::Hint(is_neutral)) => !is_neutral(value),
            Some(Rule::Unsupported(is_neutral, _)) if is_neutral(value) => false,
            Some(Rule::Unsupported(_, advice)) => return Err(unsupported_field(pointer, advice).into()),
            None if self.is_strict => {
                let advice = "is unknown: leave it out (this server runs with --strict-requests)";
                return Err(unsupported_field(pointer, advice).into());
            }
            None => true,
        };
        if is_ignored {
            self.ignored.insert(name_for_header());
        }
        Ok(())
    }
}
