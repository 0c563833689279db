//! Which of the file's columns (or JSON fields) hold what the task asks for. Does not know the file.

use super::findings::{self, Flaw, listed, quoted};
use crate::task::Shape;
use crate::task::shape::Second;
use std::collections::BTreeMap;

/// The file's name for each field of the task.
#[derive(Debug)]
pub(super) struct Wanted {
    pub shape: Shape,
    /// That of the row's own text.
    pub text: String,
    pub second: Option<SecondText>,
    /// That of the shape's field.
    pub target: String,
}

/// A row's second text. Where the task needs it or the request maps it, a file without it is refused; otherwise it may be
/// there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SecondText {
    pub field: &'static str,
    pub name: String,
    pub is_needed: bool,
}

impl Wanted {
    /// # Errors
    /// Where `columns` maps a field that the task does not have, or two fields to one column.
    pub fn new(columns: &BTreeMap<String, String>, shape: Shape) -> Result<Self, Flaw> {
        let fields = shape.fields();
        if let Some(unknown) = columns.keys().find(|field| !fields.contains(&field.as_str())) {
            let message = format!(
                "`columns` maps {}, which this task does not read: it reads {}",
                quoted(unknown),
                listed(fields.into_iter())
            );
            return Err(Flaw::new(findings::INVALID_COLUMNS, message));
        }
        let mapped = |field: &str| columns.get(field).map(|name| name.trim().to_string());
        let name = |field: &str| mapped(field).unwrap_or_else(|| field.to_string());
        let second = |field: &'static str, is_needed: bool| {
            Some(SecondText { field, name: name(field), is_needed: is_needed || mapped(field).is_some() })
        };
        let mut wanted = Self {
            shape,
            text: name(shape.text()),
            second: match shape.second() {
                Second::None => None,
                Second::Welcome(field) => second(field, false),
                Second::Needed(field) => second(field, true),
            },
            target: name(shape.field()),
        };
        // A column that serves as text or label is no second text, whatever its name.
        wanted.second = wanted
            .second
            .take()
            .filter(|second| second.is_needed || (second.name != wanted.text && second.name != wanted.target));
        wanted.check_distinct()?;
        Ok(wanted)
    }

    fn check_distinct(&self) -> Result<(), Flaw> {
        let (text, field) = (self.shape.text(), self.shape.field());
        let clash = if self.text == self.target && text != field {
            (text, field, &self.text)
        } else {
            match &self.second {
                Some(second) if second.name == self.text => (text, second.field, &second.name),
                Some(second) if second.name == self.target => (second.field, field, &second.name),
                _ => return Ok(()),
            }
        };
        let (one, other, name) = clash;
        let message = format!(
            "`{one}` and `{other}` would both be read from {}: give each its own column in `columns`",
            quoted(name)
        );
        Err(Flaw::new(findings::INVALID_COLUMNS, message))
    }
}

/// How to say which column is meant, for the messages that miss one.
pub(super) fn advice(field: &str) -> String {
    format!("`\"columns\": {{\"{field}\": \"…\"}}` in the job says which one holds the {}", field.replace('_', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(pairs: &[(&str, &str)]) -> Result<Wanted, Flaw> {
        Wanted::new(&pairs.iter().map(|(field, name)| (field.to_string(), name.to_string())).collect(), Shape::Label)
    }

    #[test]
    fn fields_keep_their_names_unless_they_are_mapped() {
        let wanted = wanted(&[("label", "category")]).unwrap();
        assert_eq!((wanted.text.as_str(), wanted.target.as_str()), ("text", "category"));
        assert_eq!(wanted.second.map(|second| (second.field, second.is_needed)), Some(("text_pair", false)));
    }

    #[test]
    fn an_unknown_field_is_refused_with_the_known_ones() {
        let flaw = wanted(&[("txt", "a")]).unwrap_err();
        assert_eq!(flaw.code, "invalid_columns");
        assert!(flaw.message.contains("\"text\", \"text_pair\", \"label\""), "{}", flaw.message);
    }

    #[test]
    fn two_fields_cannot_share_a_column() {
        assert!(wanted(&[("label", "text")]).is_err());
        assert!(wanted(&[("text_pair", "label")]).is_err());
        // An unmapped pair whose usual name serves another field is simply not there.
        assert!(wanted(&[("text", "text_pair")]).is_ok());
    }
}
