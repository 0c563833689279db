//! Columns that decide whether a row is read: its split, the answer of an annotator, its weight, or whether its completion was good.

use super::diagnostics::{self, Diagnostic, quote};
use super::field_value::FieldValue;
use super::preview::{ColumnSample, Preview};
use super::record::Record;
use super::row::UnusableRow;
use crate::task::RowSchema;
use crate::task::Split;

/// Columns that decide whether a row is read.
#[derive(Debug, Default)]
pub(super) struct RowFilters {
    split: Option<SplitColumns>,
    answer: Option<AnswerColumn>,
    weight: Option<String>,
    rating: Option<String>,
}

/// Column of the split, and columns of flags that mark the validation and test rows among those of training; at least one of them.
#[derive(Debug)]
struct SplitColumns {
    column: Option<String>,
    flags: Vec<(String, Split)>,
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
const TEST_FLAG_NAMES: [&str; 1] = ["is_test"];
/// Ludwig's numbers of the splits.
const SPLIT_NUMBERS: [&str; 3] = ["0", "1", "2"];
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
        let split_column = split_column.or_else(|| find(&["split"], &|column| column.has_only(&SPLIT_NUMBERS)));
        let flag_columns = [(&VALIDATION_FLAG_NAMES[..], Split::Validation), (&TEST_FLAG_NAMES, Split::Test)]
            .map(|(names, split)| find(names, &ColumnSample::has_only_flags).map(|column| (column, split)));
        let flag_columns: Vec<(&ColumnSample, Split)> = flag_columns.into_iter().flatten().collect();
        let split = SplitColumns::new(split_column, &flag_columns, requested_split, notes)?;
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
        let split =
            self.split.iter().flat_map(|split| split.column.iter().chain(split.flags.iter().map(|(flag, _)| flag)));
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
        flags: &[(&ColumnSample, Split)],
        requested: Option<Split>,
        notes: &mut Vec<String>,
    ) -> Result<Option<Self>, Diagnostic> {
        let names = column.into_iter().chain(flags.iter().map(|(flag, _)| *flag));
        let names: Vec<String> = names.map(ColumnSample::quoted).collect();
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
            "{} divides the rows: those of the split {} are read{}",
            names.join(" with "),
            read.name(),
            if read == Split::Train {
                "; a job validates on those of the split validation, if there are any"
            } else {
                ""
            }
        ));
        if column.is_some_and(|column| column.has_only(&SPLIT_NUMBERS)) {
            notes.push("0 is the split train, 1 validation, 2 test".to_string());
        }
        let flags = flags.iter().map(|(flag, split)| (flag.name.clone(), *split)).collect();
        Ok(Some(Self { column: column.map(|column| column.name.clone()), flags, read }))
    }

    fn check(&self, record: &Record<'_>) -> Result<(), UnusableRow> {
        let mut split = Split::Train;
        if let Some(column) = &self.column {
            let value = record.required("split", column)?.as_label(column)?;
            let number = SPLIT_NUMBERS.iter().position(|number| *number == value.trim());
            let numbered = number.map(|number| [Split::Train, Split::Validation, Split::Test][number]);
            split = numbered.or_else(|| Split::from_word(&value)).ok_or_else(|| {
                let message = format!("the split is {}, and has to be train, validation or test", quote(value.trim()));
                Diagnostic::new(diagnostics::UNKNOWN_SPLIT, message)
            })?;
        }
        let is_flagged = |flag: &str| record.get(flag).and_then(FieldValue::as_flag) == Some(true);
        if let Some((_, flagged)) = self.flags.iter().find(|(flag, _)| split == Split::Train && is_flagged(flag)) {
            split = *flagged;
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
