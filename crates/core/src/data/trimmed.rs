//! The rules for the fields of one row: white space is taken off, and what is left has to be something.
//!
//! Knows nothing of other rows.

use super::findings::{self, Flaw};
use super::row::{Fields, Written};
use std::borrow::Cow;

/// No class has a longer name; a text that was taken for a label has.
const MAX_LABEL_CHARACTERS: usize = 1000;

/// The fields without surrounding white space, and the names of those that had some.
///
/// # Errors
/// Everything that keeps the row from being an example. A blank second text is none: it is as if it were not there.
pub(super) fn trimmed(fields: Fields<'_>) -> Result<(Fields<'_>, Vec<&'static str>), Vec<Flaw>> {
    let mut spaced = Vec::new();
    let mut trim = |name: &'static str, value| {
        let (value, width) = without_space(value);
        if width == Space::Some && !value.is_empty() {
            spaced.push(name);
        }
        value
    };
    let name = match fields.target {
        Written::Positive(_) => "the negative",
        _ => "the text pair",
    };
    let fields = Fields {
        text: match fields.target {
            // Places are counted in the text as it is.
            Written::Tags { .. } => fields.text,
            // White space is part of what is said.
            Written::Completion(_) | Written::Chosen(_) | Written::Conversation(_) | Written::ChosenTurns(_) => {
                fields.text
            }
            _ => trim("the text", fields.text),
        },
        second: match fields.target {
            Written::Chosen(_) | Written::ChosenTurns(_) => fields.second,
            _ => fields.second.map(|second| trim(name, second)).filter(|second| !second.is_empty()),
        },
        target: match fields.target {
            Written::Label(label) => Written::Label(trim("the label", label)),
            Written::Labels(labels) => Written::Labels(labels.into_iter().map(|one| without_space(one).0).collect()),
            Written::Tags { words, tags } => {
                Written::Tags { words, tags: tags.into_iter().map(|tag| without_space(tag).0).collect() }
            }
            Written::Positive(positive) => Written::Positive(trim("the positive", positive)),
            other => other,
        },
        note: fields.note,
    };
    let flaws: Vec<Flaw> = flaws(&fields).into_iter().flatten().collect();
    if flaws.is_empty() { Ok((fields, spaced)) } else { Err(flaws) }
}

#[derive(PartialEq, Eq)]
enum Space {
    Some,
    None,
}

fn without_space(value: Cow<'_, str>) -> (Cow<'_, str>, Space) {
    if value.trim().len() == value.len() {
        return (value, Space::None);
    }
    let value = match value {
        Cow::Borrowed(value) => Cow::Borrowed(value.trim()),
        Cow::Owned(value) => Cow::Owned(value.trim().to_string()),
    };
    (value, Space::Some)
}

fn flaws(fields: &Fields<'_>) -> [Option<Flaw>; 6] {
    let labels = fields.target.labels();
    let empty = |value: &str, code, name: &str| {
        value.is_empty().then(|| Flaw::new(code, format!("the {name} is empty: fill it in, or leave the row out")))
    };
    let positive = if let Written::Positive(positive) = &fields.target { Some(positive) } else { None };
    let said = match &fields.target {
        Written::Completion(text) | Written::Chosen(text) => Some(text),
        _ => None,
    };
    let values = [Some(&fields.text), fields.second.as_ref(), positive, said].into_iter().flatten().chain(labels);
    let nul = values.into_iter().any(|value| value.contains('\0')).then(|| {
        let message = "the row holds a NUL character (U+0000): take it out, or save the file as UTF-8 if it is UTF-16";
        Flaw::new(findings::NUL_CHARACTER, message)
    });
    let long = labels.iter().any(|label| label.chars().nth(MAX_LABEL_CHARACTERS).is_some()).then(|| {
        let message = format!(
            "the label is longer than {MAX_LABEL_CHARACTERS} characters: is `label` read from the right column?"
        );
        Flaw::new(findings::LABEL_TOO_LONG, message)
    });
    let blank = if let Written::Tags { words, .. } = &fields.target { words.is_empty() } else { false };
    let wordless = (blank && !fields.text.is_empty())
        .then(|| Flaw::new(findings::EMPTY_TEXT, "the text has no word: leave the row out"));
    let single = matches!(fields.target, Written::Score(_)) && fields.second.is_none();
    let pairless =
        single.then(|| Flaw::new(findings::EMPTY_TEXT, "the text pair is empty: fill it in, or leave the row out"));
    let positive = positive.and_then(|positive| empty(positive, findings::EMPTY_TEXT, "positive"));
    let prompted = match &fields.target {
        Written::Completion(completion) => empty(completion, findings::EMPTY_TEXT, "completion"),
        Written::Chosen(_) if fields.second.is_none() => {
            let message = "the rejected answer is null: fill it in, or leave the row out";
            Some(Flaw::new(findings::EMPTY_TEXT, message))
        }
        Written::Chosen(chosen) if fields.second.as_deref() == Some(chosen) => {
            let message = "chosen and rejected are the same: there is nothing to prefer, leave the row out";
            Some(Flaw::new(findings::EMPTY_TEXT, message))
        }
        Written::Chosen(chosen) => empty(chosen, findings::EMPTY_TEXT, "chosen answer"),
        _ => None,
    };
    let nameless = labels.iter().find_map(|label| empty(label, findings::EMPTY_LABEL, "label"));
    let name = if said.is_some() { "prompt" } else { "text" };
    let text = empty(&fields.text, findings::EMPTY_TEXT, name);
    [text, wordless, positive.or(pairless).or(prompted), nameless, nul, long]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(text: &str, label: &str) -> Vec<&'static str> {
        let fields = Fields::new(text.into(), None, Written::Label(label.into()));
        match trimmed(fields) {
            Ok(_) => Vec::new(),
            Err(flaws) => flaws.iter().map(|flaw| flaw.code).collect(),
        }
    }

    #[test]
    fn every_fault_of_a_row_is_named() {
        assert_eq!(codes(" \t", "\u{a0}"), ["empty_text", "empty_label"]);
        assert_eq!(codes("a\0b", "x"), ["nul_character"]);
        assert_eq!(codes("a", &"x".repeat(1001)), ["label_too_long"]);
        assert!(codes("a", &"é".repeat(1000)).is_empty());
    }

    #[test]
    fn white_space_is_taken_off_and_named() {
        let target = Written::Label("x ".to_string().into());
        let fields = Fields::new(" a b\n".into(), Some("  ".into()), target);
        let (fields, spaced) = trimmed(fields).ok().unwrap();
        assert_eq!((fields.text.as_ref(), fields.second, fields.target.key().as_str()), ("a b", None, "x"));
        assert_eq!(spaced, ["the text", "the label"]);
    }
}
