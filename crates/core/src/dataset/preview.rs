//! Preview of a file: the columns and values of its first records. They decide how the whole file is read.

use super::column_names::normalized;
use super::content::Content;
use super::diagnostics::quote;
use super::field_value::FieldValue;
use super::options::{Limits, Options};
use super::record::Record;
use super::row::{OpenResult, RecordParser, UnusableRow, ValidRow};
use super::value_kind::Kind;
use serde_json::value::RawValue;
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

/// Number of records that are read.
const MAX_ROWS: usize = 1000;

/// Memory of values, and of columns beside those of a header, after which no further record is read.
const MAX_BYTES: usize = 4 << 20;

/// Columns of a file with the values of its first records.
#[derive(Debug, Default)]
pub(super) struct Preview {
    pub columns: Vec<ColumnSample>,
    /// Line of the header of a table, else of the first record.
    pub first_line: Option<u64>,
    pub is_table: bool,
    /// Whether a record of an annotation tool has no annotation.
    pub has_unannotated: bool,
    /// Whether a record has several annotations.
    pub has_several_annotations: bool,
    /// Index of the first column of each name.
    indices: HashMap<String, usize>,
    bytes: usize,
}

/// Values of a column that are not null, and not empty in a table.
#[derive(Debug)]
pub(super) struct ColumnSample {
    pub name: String,
    pub normalized_name: String,
    pub kind: Kind,
    values: Vec<SampleValue>,
}

#[derive(Debug)]
enum SampleValue {
    Json(Box<RawValue>),
    Cell(String),
}

impl Preview {
    /// # Errors
    /// Only if the file cannot be read from disk. The errors of a file that cannot be opened as a dataset are in the result.
    pub fn read(content: &Content, options: &Options, limits: &Limits) -> io::Result<OpenResult<Self>> {
        let preview = Rc::new(RefCell::new(Self::default()));
        let sampler = Box::new(Sampler(Rc::clone(&preview)));
        let mut reader = match super::open_reader(content, options, sampler, limits)? {
            Ok(reader) => reader,
            Err(error) => return Ok(Err(error)),
        };
        for _ in 0..MAX_ROWS {
            let Some(row) = reader.next_row()? else { break };
            let mut preview = preview.borrow_mut();
            preview.first_line.get_or_insert(row.line);
            if preview.bytes >= MAX_BYTES {
                break;
            }
        }
        drop(reader);
        let mut preview = preview.take();
        preview.columns.iter_mut().for_each(|column| column.kind = Kind::of_values(column.values()));
        Ok(Ok(preview))
    }

    /// The column with this name: as it is written, else apart from case, space and invisible characters.
    pub fn column(&self, name: &str) -> Option<&ColumnSample> {
        let exact = self.indices.get(name).and_then(|index| self.columns.get(*index));
        exact.or_else(|| {
            let normalized_name = normalized(name);
            let mut similar = self.columns.iter().filter(|column| column.normalized_name == normalized_name);
            similar.next().filter(|_| similar.next().is_none())
        })
    }

    pub fn column_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    fn push_column(&mut self, name: &str) -> usize {
        let index = self.columns.len();
        self.columns.push(ColumnSample::new(name));
        *self.indices.entry(name.to_string()).or_insert(index)
    }

    fn push_value(&mut self, name: &str, value: &FieldValue<'_>) {
        let index = match self.indices.get(name) {
            Some(index) => *index,
            None => {
                self.bytes += size_of::<ColumnSample>() + name.len();
                self.push_column(name)
            }
        };
        if value.is_null() || (matches!(value, FieldValue::Cell(_)) && value.source().trim().is_empty()) {
            return;
        }
        self.bytes += value.source().len();
        self.columns[index].values.push(match value {
            FieldValue::Json(raw) => SampleValue::Json((*raw).to_owned()),
            FieldValue::Cell(cell) => SampleValue::Cell(cell.to_string()),
        });
    }
}

impl ColumnSample {
    fn new(name: &str) -> Self {
        let normalized_name = normalized(name);
        Self { name: name.to_string(), normalized_name, kind: Kind::Empty, values: Vec::new() }
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = FieldValue<'_>> {
        self.values.iter().map(|value| match value {
            SampleValue::Json(raw) => FieldValue::Json(raw),
            SampleValue::Cell(cell) => FieldValue::Cell(cell.into()),
        })
    }

    /// Values that are texts or scalars, as labels.
    pub fn labels(&self) -> Vec<String> {
        let label = |value: FieldValue<'_>| value.as_label("").ok().map(|label| label.trim().to_string());
        self.values().filter_map(label).collect()
    }

    /// Lists of the values that are lists.
    pub fn lists(&self) -> Vec<Vec<String>> {
        let items = |value: FieldValue<'_>| {
            let items = value.as_label_list("").ok().flatten()?;
            Some(items.into_iter().map(|item| item.trim().to_string()).collect())
        };
        self.values().filter_map(items).collect()
    }

    /// Whether there are values, and all of them are one of the words, apart from case.
    pub fn has_only(&self, words: &[&str]) -> bool {
        let is_word = |value: FieldValue<'_>| {
            value.as_label("").is_ok_and(|label| words.contains(&label.trim().to_lowercase().as_str()))
        };
        !self.values.is_empty() && self.values().all(is_word)
    }

    /// Whether every value is a flag such as true or 1.
    pub fn has_only_flags(&self) -> bool {
        !self.values.is_empty() && self.values().all(|value| value.as_flag().is_some())
    }

    /// Whether a number is no integer.
    pub fn has_fractions(&self) -> bool {
        self.kind == Kind::Number
            && self.labels().iter().any(|label| label.parse::<f64>().is_ok_and(|number| number.fract() != 0.0))
    }

    pub fn quoted(&self) -> String {
        quote(&self.name)
    }
}

/// Collects the values of records.
struct Sampler(Rc<RefCell<Preview>>);

impl RecordParser for Sampler {
    fn set_header(&mut self, line: u64, header: &[String]) -> Vec<usize> {
        let mut preview = self.0.borrow_mut();
        preview.first_line = Some(line);
        preview.is_table = true;
        header.iter().for_each(|name| _ = preview.push_column(name));
        (0..header.len()).collect()
    }

    /// Returns no row, and no error.
    fn parse(&mut self, record: &Record<'_>) -> Result<ValidRow, UnusableRow> {
        let mut preview = self.0.borrow_mut();
        preview.has_unannotated |= record.is_unannotated;
        preview.has_several_annotations |= record.has_several_annotations;
        record.fields().for_each(|(name, value)| preview.push_value(name, value));
        Err(UnusableRow::Invalid(Vec::new()))
    }
}
