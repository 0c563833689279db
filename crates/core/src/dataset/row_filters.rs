//! Columns that decide whether a row is read: its split, the answer of an annotator, its weight, or whether its completion was good.

use super::diagnostics::{self, Diagnostic, quote};
use super::field_value::FieldValue;
use super::options::Split;
use super::preview::{ColumnSample, Preview};
use super::record::Record;
use super::row::UnusableRow;
use crate::task::RowSchema;

/// Columns that decide whether a row is read.
#[derive(Debug, Default)]
pub(super) struct RowFilters {
    split: Option<SplitColumns>,
    answer: Option<AnswerColumn>,
    weight: Option<String>,
    rating: Option<String>,
}

/// Column of the split, and column of flags that mark the validation rows among those of training; at least one of them.
#[derive(Debug)]
struct SplitColumns {
    column: Option<String>,
    validation_flag: Option<String>,
    read: Split,
}

/// Prodigy's answers: accept, reject or ignore.
#[derive(Debug)]
struct AnswerColumn {
    column: String,
    /// The only label of the file, which a rejected row does not have.
    binary_label: Option<String>,
}

const SPLIT_NAMES: [&str; 6] = ["split", "set", "subset", "partition", "data_split", "dataset_split"];
const VALIDATION_FLAG_NAMES: [&str; 4] = ["validation", "is_valid", "is_validation", "is_val"];
const WEIGHT_NAMES: [&str; 6] =
    ["weight", "weights", "sample_weight", "example_weight", "instance_weight", "row_weight"];
const RATING_NAMES: [&str; 4] = ["label", "kto_tag", "is_good", "is_desirable"];

impl RowFilters {
    /// Finds the columns among those that are not `used` for a field. `target` is the column of the target. Adds to `notes` what
    /// they do.
    ///
    /// # Errors
    /// `unsupported_column` for weights; `invalid_columns` if a split is requested and no column has it.
    pub fn detect(
        preview: &Preview,
        schema: RowSchema,
        requested_split: Option<Split>,
        used: &[&str],
        target: Option<&ColumnSample>,
        notes: &mut Vec<String>,
    ) -> Result<Self, Diagnostic> {
        let find = |names: &[&str], fits: &dyn Fn(&ColumnSample) -> bool| {
            let is_free = |column: &&ColumnSample| !used.contains(&column.name.as_str());
            let mut named = preview.columns.iter().filter(|column| names.contains(&column.normalized_name.as_str()));
            named.find(|column| is_free(column) && fits(column))
        };
        let words = Split::WORDS.map(|(word, _)| word);
        let split_column = find(&SPLIT_NAMES, &|column| column.has_only(&words));
        let flag_column = find(&VALIDATION_FLAG_NAMES, &ColumnSample::has_only_flags);
        let split = SplitColumns::new(split_column, flag_column, requested_split, notes)?;
        let answer = match takes_answers(schema) {
            true => find(&["answer"], &|column| column.has_only(&["accept", "reject", "ignore"])),
            false => None,
        };
        let answer = answer.map(|column| AnswerColumn::new(column, schema, target, notes));
        let weight = find(&WEIGHT_NAMES, &|_| true);
        if let Some(column) = weight
            && !column.has_only(&["0", "1", "0.0", "1.0"])
            && column.values().len() > 0
        {
            let message = format!(
                "the column {} seems to weigh the rows, and only the weights 0 and 1 are supported: leave the column out, or rename \
                 it if it is something else",
                column.quoted()
            );
            return Err(Diagnostic::new(diagnostics::UNSUPPORTED_COLUMN, message));
        }
        let rating = match schema {
            RowSchema::Completion | RowSchema::Messages => find(&RATING_NAMES, &ColumnSample::has_only_flags),
            _ => None,
        };
        if let Some(column) = rating {
            notes.push(format!(
                "{} says whether the answer was good: the rows where it is false are left out",
                column.quoted()
            ));
        }
        let name = |column: &ColumnSample| column.name.clone();
        Ok(Self { split, answer, weight: weight.map(name), rating: rating.map(name) })
    }

    /// Columns that are read.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        let split = self.split.iter().flat_map(|split| [&split.column, &split.validation_flag]).flatten();
        let answer = self.answer.iter().map(|answer| &answer.column);
        split.chain(answer).chain(&self.weight).chain(&self.rating).map(String::as_str)
    }

    /// # Errors
    /// `LeftOut` for a row that is not to be read, or the error of a value that says neither.
    pub fn check(&self, record: &Record<'_>) -> Result<(), UnusableRow> {
        if record.is_unannotated {
            return Err(UnusableRow::LeftOut("no annotation".to_string()));
        }
        if let Some(split) = &self.split {
            split.check(record)?;
        }
        if let Some(answer) = &self.answer {
            answer.check(record)?;
        }
        if let Some((column, value)) = self.weight.as_ref().and_then(|column| Some((column, record.get(column)?))) {
            match value.as_flag() {
                Some(true) => {}
                Some(false) => return Err(UnusableRow::LeftOut(format!("{column}: 0"))),
                None if value.source().trim().is_empty() => {}
                None => {
                    let message =
                        format!("the weight is {}, and only 0 and 1 are supported", quote(value.source().trim()));
                    return Err(Diagnostic::new(diagnostics::UNSUPPORTED_WEIGHT, message).into());
                }
            }
        }
        let is_bad = |column: &String| record.get(column).and_then(FieldValue::as_flag) == Some(false);
        match &self.rating {
            Some(column) if is_bad(column) => Err(UnusableRow::LeftOut(format!("{column}: false"))),
            _ => Ok(()),
        }
    }

    /// Whether an annotator has rejected the label of the row, which is read as the opposite of the label.
    pub fn is_rejected(&self, record: &Record<'_>) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.text(record) == "reject")
    }
}

impl SplitColumns {
    fn new(
        column: Option<&ColumnSample>,
        validation_flag: Option<&ColumnSample>,
        requested: Option<Split>,
        notes: &mut Vec<String>,
    ) -> Result<Option<Self>, Diagnostic> {
        let names: Vec<String> = [column, validation_flag].into_iter().flatten().map(ColumnSample::quoted).collect();
        let read = requested.unwrap_or(Split::Train);
        if names.is_empty() {
            let message =
                "a split is requested, and no column such as `split` says which rows belong to it: leave `split` out";
            return match requested {
                Some(_) => Err(Diagnostic::new(diagnostics::INVALID_COLUMNS, message)),
                None => Ok(None),
            };
        }
        notes.push(format!(
            "{} divides the rows: those of the split {} are read; `\"split\": \"validation\"` in an upload to \
             `/datasets` reads those for the `validation` of a job",
            names.join(" with "),
            read.name()
        ));
        let name = |column: &ColumnSample| column.name.clone();
        Ok(Some(Self { column: column.map(name), validation_flag: validation_flag.map(name), read }))
    }

    fn check(&self, record: &Record<'_>) -> Result<(), UnusableRow> {
        let mut split = Split::Train;
        if let Some(column) = &self.column {
            let value = record.required("split", column)?.as_label(column)?;
            split = Split::from_word(&value).ok_or_else(|| {
                let message = format!("the split is {}, and has to be train, validation or test", quote(value.trim()));
                Diagnostic::new(diagnostics::UNKNOWN_SPLIT, message)
            })?;
        }
        let is_flagged = |flag: &String| record.get(flag).and_then(FieldValue::as_flag) == Some(true);
        if split == Split::Train && self.validation_flag.as_ref().is_some_and(is_flagged) {
            split = Split::Validation;
        }
        match split == self.read {
            true => Ok(()),
            false => Err(UnusableRow::LeftOut(split.left_out_reason())),
        }
    }
}

impl AnswerColumn {
    fn new(column: &ColumnSample, schema: RowSchema, target: Option<&ColumnSample>, notes: &mut Vec<String>) -> Self {
        let labels = target.map(ColumnSample::labels).unwrap_or_default();
        let has_one_label = labels.first().is_some_and(|first| labels.iter().all(|label| label == first));
        let binary_label = labels.into_iter().next().filter(|_| schema == RowSchema::Label && has_one_label);
        let rejected = match &binary_label {
            Some(label) => format!("those with \"reject\" have the label {}", quote(&rejected_label(label))),
            None => "those with \"reject\" are left out".to_string(),
        };
        notes.push(format!("{}: {rejected}, and those with \"ignore\" are left out", column.quoted()));
        Self { column: column.name.clone(), binary_label }
    }

    fn text(&self, record: &Record<'_>) -> String {
        let value = record.get(&self.column).and_then(|value| value.as_label("answer").ok());
        value.unwrap_or_default().trim().to_lowercase()
    }

    fn check(&self, record: &Record<'_>) -> Result<(), UnusableRow> {
        match self.text(record).as_str() {
            "reject" if self.binary_label.is_some() => Ok(()),
            answer @ ("reject" | "ignore") => Err(UnusableRow::LeftOut(format!("{}: {answer}", self.column))),
            _ => Ok(()),
        }
    }
}

/// Label of a row whose annotator has rejected `label`.
pub(super) fn rejected_label(label: &str) -> String {
    format!("not {label}")
}

fn takes_answers(schema: RowSchema) -> bool {
    matches!(schema, RowSchema::Label | RowSchema::Labels | RowSchema::Tags | RowSchema::Entities)
}
