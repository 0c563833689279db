//! Mapping of a row schema's fields to the columns (or JSON fields) of a file.

use super::diagnostics::{self, Diagnostic, quote, quote_list};
use crate::task::RowSchema;
use crate::task::row_schema::SecondText;
use std::collections::BTreeMap;

/// Column of each field of a row schema.
#[derive(Debug)]
pub(super) struct ColumnMapping {
    pub schema: RowSchema,
    pub text_column: String,
    pub second_text: Option<SecondTextColumn>,
    pub target_column: String,
}

/// Column of a row's second text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SecondTextColumn {
    pub field: &'static str,
    pub column: String,
    /// Whether a file without the column is refused: the schema needs it, or the request maps it.
    pub is_required: bool,
}

impl ColumnMapping {
    /// # Errors
    /// `invalid_columns` if `columns` maps a field that the schema does not have, or two fields to one column.
    pub fn new(columns: &BTreeMap<String, String>, schema: RowSchema) -> Result<Self, Diagnostic> {
        let fields = schema.fields();
        if let Some(unknown_field) = columns.keys().find(|field| !fields.contains(&field.as_str())) {
            let message = format!(
                "`columns` maps {}, which this task does not read: it reads {}",
                quote(unknown_field),
                quote_list(fields.into_iter())
            );
            return Err(Diagnostic::new(diagnostics::INVALID_COLUMNS, message));
        }
        let mapped_column = |field: &str| columns.get(field).map(|name| name.trim().to_string());
        let column_for = |field: &str| mapped_column(field).unwrap_or_else(|| field.to_string());
        let second_text = |field: &'static str, is_required: bool| {
            Some(SecondTextColumn {
                field,
                column: column_for(field),
                is_required: is_required || mapped_column(field).is_some(),
            })
        };
        let mut mapping = Self {
            schema,
            text_column: column_for(schema.text_field()),
            second_text: match schema.second_text() {
                SecondText::None => None,
                SecondText::Optional(field) => second_text(field, false),
                SecondText::Required(field) => second_text(field, true),
            },
            target_column: column_for(schema.target_field()),
        };
        // An optional second text is not read from a column that is mapped to another field.
        mapping.second_text = mapping.second_text.take().filter(|second| {
            second.is_required || (second.column != mapping.text_column && second.column != mapping.target_column)
        });
        mapping.check_distinct()?;
        Ok(mapping)
    }

    fn check_distinct(&self) -> Result<(), Diagnostic> {
        let (text_field, target_field) = (self.schema.text_field(), self.schema.target_field());
        let conflict = if self.text_column == self.target_column && text_field != target_field {
            (text_field, target_field, &self.text_column)
        } else {
            match &self.second_text {
                Some(second) if second.column == self.text_column => (text_field, second.field, &second.column),
                Some(second) if second.column == self.target_column => (second.field, target_field, &second.column),
                _ => return Ok(()),
            }
        };
        let (first, second, column) = conflict;
        let message = format!(
            "`{first}` and `{second}` would both be read from {}: give each its own column in `columns`",
            quote(column)
        );
        Err(Diagnostic::new(diagnostics::INVALID_COLUMNS, message))
    }
}

/// Advice on mapping a field, for errors about missing columns.
pub(super) fn mapping_hint(field: &str) -> String {
    format!("`\"columns\": {{\"{field}\": \"…\"}}` in the job says which one holds the {}", field.replace('_', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping_of(columns: &[(&str, &str)]) -> Result<ColumnMapping, Diagnostic> {
        ColumnMapping::new(
            &columns.iter().map(|(field, name)| (field.to_string(), name.to_string())).collect(),
            RowSchema::Label,
        )
    }

    #[test]
    fn unmapped_fields_use_their_own_names() {
        let mapping = mapping_of(&[("label", "category")]).unwrap();
        assert_eq!((mapping.text_column.as_str(), mapping.target_column.as_str()), ("text", "category"));
        assert_eq!(mapping.second_text.map(|second| (second.field, second.is_required)), Some(("text_pair", false)));
    }

    #[test]
    fn unknown_field_is_rejected_and_lists_known_fields() {
        let diagnostic = mapping_of(&[("txt", "a")]).unwrap_err();
        assert_eq!(diagnostic.code, "invalid_columns");
        assert!(diagnostic.message.contains("\"text\", \"text_pair\", \"label\""), "{}", diagnostic.message);
    }

    #[test]
    fn rejects_two_fields_on_one_column() {
        assert!(mapping_of(&[("label", "text")]).is_err());
        assert!(mapping_of(&[("text_pair", "label")]).is_err());
        // The default column of an unmapped `text_pair` may be mapped to another field.
        assert!(mapping_of(&[("text", "text_pair")]).is_ok());
    }
}
