//! Settings that the first bytes of an input choose.

use espalier_core::dataset::{Decimal, Format, OnBadRows, Options, Quoting, Separator, Split, TextEncoding};
use espalier_core::task::RowSchema;
use std::collections::BTreeMap;

/// Settings of a request, one byte each.
pub struct Settings {
    schema: u8,
    rows: u8,
    columns: u8,
    /// Encoding, file name, or separator and quotes.
    format: u8,
}

const ENCODINGS: [&str; 16] = [
    "utf-8",
    "utf-16le",
    "utf-16be",
    "windows-1252",
    "iso-8859-2",
    "koi8-r",
    "macintosh",
    "ibm866",
    "x-user-defined",
    "shift_jis",
    "euc-jp",
    "iso-2022-jp",
    "gb18030",
    "gbk",
    "big5",
    "euc-kr",
];

const SEPARATORS: [&str; 10] = [",", "\t", ";", "|", " ", ":", "=", "#", "-", "."];

const FILE_NAMES: [&str; 8] =
    ["rows.csv", "rows.tsv", "rows.jsonl", "rows.json", "rows.conll", "rows.fasta", "rows.txt", "rows.json.gz"];

/// Names that a request maps the field of the target to.
const COLUMN_NAMES: [&str; 3] = ["label", "a", "Text "];

impl Settings {
    /// Splits an input into its settings and the file; `None` for an input without settings.
    pub fn split_from(input: &[u8]) -> Option<(Self, &[u8])> {
        let ([schema, rows, columns, format], file) = input.split_first_chunk()?;
        Some((Self { schema: *schema, rows: *rows, columns: *columns, format: *format }, file))
    }

    /// Schema of the task that is requested; `None` where it is inferred from the file.
    pub fn schema(&self) -> Option<RowSchema> {
        choose(&RowSchema::ALL, self.schema)
    }

    /// Tokens to which texts are cut.
    pub fn max_length(&self) -> Option<usize> {
        choose(&[4, 64], self.rows)
    }

    /// Completes detected options with the settings that a request adds to them.
    pub fn complete(&self, options: &mut Options) {
        let target = self.schema().unwrap_or_default().target_field();
        options.on_bad_rows = if self.rows & 0x10 == 0 { OnBadRows::Refuse } else { OnBadRows::Skip };
        options.split = choose(&[Split::Train, Split::Validation, Split::Test], self.rows >> 5);
        options.decimal = choose(&[Decimal::Point, Decimal::Comma], self.columns);
        options.columns = choose(&COLUMN_NAMES, self.columns >> 2)
            .map(|name| BTreeMap::from([(target.to_string(), name.to_string())]))
            .unwrap_or_default();
        if self.columns & 0x10 != 0 {
            options.label_names = ["a", "b", "label"].map(str::to_string).to_vec();
        }
    }

    pub fn encoding(&self) -> Option<TextEncoding> {
        choose(&ENCODINGS, self.format).and_then(|name| TextEncoding::parse(name).ok())
    }

    pub fn file_name(&self) -> Option<&'static str> {
        choose(&FILE_NAMES, self.format)
    }

    pub fn table_format(&self) -> Format {
        if self.columns & 0x20 == 0 { Format::Csv } else { Format::Tsv }
    }

    pub fn separator(&self) -> Option<Separator> {
        choose(&SEPARATORS, self.format & 0x0F).and_then(|text| Separator::parse(text).ok())
    }

    pub fn quoting(&self) -> Option<Quoting> {
        choose(&[Quoting::Doubled, Quoting::Backslash, Quoting::None], self.format >> 4)
    }
}

/// One of `values`, or none of them.
fn choose<T: Copy>(values: &[T], index: u8) -> Option<T> {
    values.get(usize::from(index) % (values.len() + 1)).copied()
}
