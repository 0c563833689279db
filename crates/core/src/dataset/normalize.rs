//! The rules for the fields of one row: white space is taken off, and what is left has to be something.
//!
//! Knows nothing of other rows.

use super::diagnostics::{self, Diagnostic};
use super::row::{RawTarget, RowFields};
use std::borrow::Cow;

/// No class has a longer name; a text that was taken for a label has.
const MAX_LABEL_CHARACTERS: usize = 1000;

/// The fields without surrounding white space, and the names of those that had some.
///
/// # Errors
/// Everything that keeps the row from being an example. A blank second text is none: it is as if it were not there.
pub(super) fn normalize_row(fields: RowFields<'_>) -> Result<(RowFields<'_>, Vec<&'static str>), Vec<Diagnostic>> {
    let mut trimmed_fields = Vec::new();
    let mut trim = |name: &'static str, value| {
        let (value, whitespace) = trim_value(value);
        if whitespace == Whitespace::Trimmed && !value.is_empty() {
            trimmed_fields.push(name);
        }
        value
    };
    let second_text_name = match fields.target {
        RawTarget::Positive(_) => "the negative",
        _ => "the text pair",
    };
    let fields = RowFields {
        text: match fields.target {
            // Places are counted in the text as it is.
            RawTarget::Tags { .. } => fields.text,
            // White space is part of what is said.
            RawTarget::Completion(_)
            | RawTarget::Chosen(_)
            | RawTarget::Conversation(_)
            | RawTarget::ChosenConversation(_) => fields.text,
            _ => trim("the text", fields.text),
        },
        second_text: match fields.target {
            RawTarget::Chosen(_) | RawTarget::ChosenConversation(_) => fields.second_text,
            _ => fields.second_text.map(|second| trim(second_text_name, second)).filter(|second| !second.is_empty()),
        },
        target: match fields.target {
            RawTarget::Label(label) => RawTarget::Label(trim("the label", label)),
            RawTarget::Labels(labels) => RawTarget::Labels(labels.into_iter().map(|one| trim_value(one).0).collect()),
            RawTarget::Tags { word_spans: words, tags } => {
                RawTarget::Tags { word_spans: words, tags: tags.into_iter().map(|tag| trim_value(tag).0).collect() }
            }
            RawTarget::Positive(positive) => RawTarget::Positive(trim("the positive", positive)),
            other => other,
        },
        warning: fields.warning,
    };
    let diagnostics: Vec<Diagnostic> = check_fields(&fields).into_iter().flatten().collect();
    if diagnostics.is_empty() { Ok((fields, trimmed_fields)) } else { Err(diagnostics) }
}

#[derive(PartialEq, Eq)]
enum Whitespace {
    Trimmed,
    Unchanged,
}

fn trim_value(value: Cow<'_, str>) -> (Cow<'_, str>, Whitespace) {
    if value.trim().len() == value.len() {
        return (value, Whitespace::Unchanged);
    }
    let value = match value {
        Cow::Borrowed(value) => Cow::Borrowed(value.trim()),
        Cow::Owned(value) => Cow::Owned(value.trim().to_string()),
    };
    (value, Whitespace::Trimmed)
}

fn check_fields(fields: &RowFields<'_>) -> [Option<Diagnostic>; 6] {
    let labels = fields.target.labels();
    let empty_value = |value: &str, code, name: &str| {
        value
            .is_empty()
            .then(|| Diagnostic::new(code, format!("the {name} is empty: fill it in, or leave the row out")))
    };
    let positive_text = if let RawTarget::Positive(positive) = &fields.target { Some(positive) } else { None };
    let answer = match &fields.target {
        RawTarget::Completion(text) | RawTarget::Chosen(text) => Some(text),
        _ => None,
    };
    let values =
        [Some(&fields.text), fields.second_text.as_ref(), positive_text, answer].into_iter().flatten().chain(labels);
    let nul_character = values.into_iter().any(|value| value.contains('\0')).then(|| {
        let message = "the row holds a NUL character (U+0000): take it out, or save the file as UTF-8 if it is UTF-16";
        Diagnostic::new(diagnostics::NUL_CHARACTER, message)
    });
    let label_too_long = labels.iter().any(|label| label.chars().nth(MAX_LABEL_CHARACTERS).is_some()).then(|| {
        let message = format!(
            "the label is longer than {MAX_LABEL_CHARACTERS} characters: is `label` read from the right column?"
        );
        Diagnostic::new(diagnostics::LABEL_TOO_LONG, message)
    });
    let has_no_words =
        if let RawTarget::Tags { word_spans: words, .. } = &fields.target { words.is_empty() } else { false };
    let missing_words = (has_no_words && !fields.text.is_empty())
        .then(|| Diagnostic::new(diagnostics::EMPTY_TEXT, "the text has no word: leave the row out"));
    let lacks_second_text = matches!(fields.target, RawTarget::Score(_)) && fields.second_text.is_none();
    let missing_pair = lacks_second_text
        .then(|| Diagnostic::new(diagnostics::EMPTY_TEXT, "the text pair is empty: fill it in, or leave the row out"));
    let empty_positive = positive_text.and_then(|positive| empty_value(positive, diagnostics::EMPTY_TEXT, "positive"));
    let invalid_answer = match &fields.target {
        RawTarget::Completion(completion) => empty_value(completion, diagnostics::EMPTY_TEXT, "completion"),
        RawTarget::Chosen(_) if fields.second_text.is_none() => {
            let message = "the rejected answer is null: fill it in, or leave the row out";
            Some(Diagnostic::new(diagnostics::EMPTY_TEXT, message))
        }
        RawTarget::Chosen(chosen) if fields.second_text.as_deref() == Some(chosen) => {
            let message = "chosen and rejected are the same: there is nothing to prefer, leave the row out";
            Some(Diagnostic::new(diagnostics::EMPTY_TEXT, message))
        }
        RawTarget::Chosen(chosen) => empty_value(chosen, diagnostics::EMPTY_TEXT, "chosen answer"),
        _ => None,
    };
    let empty_label = labels.iter().find_map(|label| empty_value(label, diagnostics::EMPTY_LABEL, "label"));
    let text_name = if answer.is_some() { "prompt" } else { "text" };
    let empty_text = empty_value(&fields.text, diagnostics::EMPTY_TEXT, text_name);
    [
        empty_text,
        missing_words,
        empty_positive.or(missing_pair).or(invalid_answer),
        empty_label,
        nul_character,
        label_too_long,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str, label: &str) -> Vec<&'static str> {
        let fields = RowFields::new(text.into(), None, RawTarget::Label(label.into()));
        match normalize_row(fields) {
            Ok(_) => Vec::new(),
            Err(flaws) => flaws.iter().map(|flaw| flaw.code).collect(),
        }
    }

    #[test]
    fn reports_every_error_of_a_row() {
        assert_eq!(codes(" \t", "\u{a0}"), ["empty_text", "empty_label"]);
        assert_eq!(codes("a\0b", "x"), ["nul_character"]);
        assert_eq!(codes("a", &"x".repeat(1001)), ["label_too_long"]);
        assert!(codes("a", &"é".repeat(1000)).is_empty());
    }

    #[test]
    fn trims_and_reports_whitespace() {
        let target = RawTarget::Label("x ".to_string().into());
        let fields = RowFields::new(" a b\n".into(), Some("  ".into()), target);
        let (fields, trimmed_fields) = normalize_row(fields).ok().unwrap();
        assert_eq!((fields.text.as_ref(), fields.second_text, fields.target.dedup_key().as_str()), ("a b", None, "x"));
        assert_eq!(trimmed_fields, ["the text", "the label"]);
    }
}
