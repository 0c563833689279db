//! Which of the file's columns (or JSON fields) hold what the task asks for. Does not know the file.

use super::findings::{self, Flaw, listed, quoted};
use crate::task::Shape;
use std::collections::BTreeMap;

/// The file's name for each field of the task.
#[derive(Debug)]
pub(super) struct Wanted {
    pub text: String,
    pub text_pair: Pair,
    pub shape: Shape,
    /// That of the shape's field.
    pub target: String,
}

/// The second text of a pair. Where the request maps it, a file without it is refused; otherwise it may be there.
#[derive(Debug)]
pub(super) enum Pair {
    Needed(String),
    Welcome(&'static str),
}

impl Pair {
    pub fn name(&self) -> &str {
        match self {
            Self::Needed(name) => name,
            Self::Welcome(name) => name,
        }
    }
}

impl Wanted {
    /// # Errors
    /// Where `columns` maps a field that the task does not have, or two fields to one column.
    pub fn new(columns: &BTreeMap<String, String>, shape: Shape) -> Result<Self, Flaw> {
        let fields = ["text", "text_pair", shape.field()];
        if let Some(unknown) = columns.keys().find(|field| !fields.contains(&field.as_str())) {
            let message = format!(
                "`columns` maps {}, which this task does not read: it reads {}",
                quoted(unknown),
                listed(fields.into_iter())
            );
            return Err(Flaw::new(findings::INVALID_COLUMNS, message));
        }
        let mapped = |field: &str| columns.get(field).map(|name| name.trim().to_string());
        let wanted = Self {
            text: mapped("text").unwrap_or_else(|| "text".to_string()),
            text_pair: mapped("text_pair").map_or(Pair::Welcome("text_pair"), Pair::Needed),
            shape,
            target: mapped(shape.field()).unwrap_or_else(|| shape.field().to_string()),
        };
        wanted.check_distinct()?;
        Ok(wanted)
    }

    fn check_distinct(&self) -> Result<(), Flaw> {
        let field = self.shape.field();
        let clash = if self.text == self.target {
            ("text", field, &self.text)
        } else {
            match &self.text_pair {
                Pair::Needed(name) if *name == self.text => ("text", "text_pair", name),
                Pair::Needed(name) if *name == self.target => ("text_pair", field, name),
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
        assert!(matches!(wanted.text_pair, Pair::Welcome("text_pair")));
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
