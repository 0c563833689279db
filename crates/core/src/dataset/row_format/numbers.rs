//! Rows with a number as target: a value of a text (`value`), or the similarity of two texts (`score`).

use super::field_checks::FieldChecks;
use super::{Cells, FileStats, RowFormat};
use crate::dataset::column_mapping::ColumnMapping;
use crate::dataset::diagnostics::{self, Diagnostic};
use crate::dataset::duplicates::DuplicateKey;
use crate::dataset::json_fields::{JsonObject, number_value, parse_number, string_value};
use crate::dataset::row::{RowErrors, ValidRow};
use crate::task::Target;
use crate::task::row_schema::{RowSchema, SecondText};
use std::borrow::Cow;

pub(super) struct Number {
    schema: RowSchema,
    to_target: fn(f64) -> Target,
}

pub(super) static VALUE: Number = Number { schema: RowSchema::Value, to_target: Target::Value };
pub(super) static SCORE: Number = Number { schema: RowSchema::Score, to_target: Target::Score };

impl RowFormat for Number {
    fn read_cells(&self, cells: Cells<'_>) -> Result<ValidRow, RowErrors> {
        let number = parse_number(self.schema.target_field(), &cells.target)?;
        self.check(cells.text, cells.second_text, number)
    }

    fn read_object(&self, object: &JsonObject<'_>, mapping: &ColumnMapping) -> Result<ValidRow, RowErrors> {
        let fields = object.fields(mapping)?;
        let number = number_value(fields.target, self.schema.target_field());
        let (text, number) = RowErrors::both(string_value(fields.text, "text"), number)?;
        self.check(text, fields.second_text, number)
    }

    fn file_error(&self, stats: &FileStats<'_>) -> Option<Diagnostic> {
        (stats.target_count < 2).then(|| {
            let field = self.schema.target_field();
            let message = format!("every usable row has the same {field}: there is nothing to learn from them");
            Diagnostic::new(diagnostics::TOO_FEW_VALUES, message)
        })
    }

    fn warns_about_single_labels(&self) -> bool {
        false
    }
}

impl Number {
    fn check(&self, text: Cow<'_, str>, second_text: Option<Cow<'_, str>>, number: f64) -> Result<ValidRow, RowErrors> {
        let mut checks = FieldChecks::default();
        let text = checks.trim("the text", text);
        let text_pair = checks.trim_optional("the text pair", second_text);
        checks.require_text("text", &text);
        if matches!(self.schema.second_text(), SecondText::Required(_)) {
            checks.require_text("text pair", text_pair.as_deref().unwrap_or_default());
        }
        let inputs = [Some(text.as_ref()), text_pair.as_deref()];
        let trimmed_fields = checks.finish::<&str>(&inputs, &[])?;
        Ok(ValidRow {
            duplicate_key: DuplicateKey::with_target(&inputs, number.to_string()),
            text: text.into_owned(),
            text_pair: text_pair.map(Cow::into_owned),
            target: (self.to_target)(number),
            trimmed_fields,
            warning: None,
        })
    }
}
