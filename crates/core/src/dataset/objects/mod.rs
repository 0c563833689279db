//! Sources of rows that are objects: every format becomes the JSON text of one object after another.

mod class_labels;
mod conll;
mod fasta;
mod fasttext;
mod json_lines;
mod json_values;
mod object_source;
mod parquet_levels;
mod parquet_page_headers;
mod parquet_pages;
mod parquet_rows;
mod parquet_schema;
mod parquet_text;
mod text_lines;
mod thrift_reader;

pub(super) use object_source::ObjectSource;

use super::content::Content;
use super::detect::{RowsPosition, find_rows};
use super::diagnostics::Diagnostic;
use super::format::Format;
use super::options::Limits;
use std::io;

/// Opens the source of a format without columns; `None` for a format with columns.
pub(super) fn open_objects(
    content: &Content,
    format: Format,
    limits: &Limits,
) -> io::Result<Option<Result<Box<dyn ObjectSource>, Diagnostic>>> {
    let max_bytes = limits.max_record_bytes;
    let source: Box<dyn ObjectSource> = match format {
        Format::Csv | Format::Tsv | Format::Xlsx => return Ok(None),
        Format::Jsonl => Box::new(json_lines::JsonLines::new(content.lines()?, max_bytes)),
        Format::Json => {
            let position = find_rows(content.lines()?)?;
            let mut values = json_values::JsonValues::new(content.lines()?, max_bytes, limits.max_bytes);
            match position {
                RowsPosition::Document => {}
                RowsPosition::Array { start } => values.start_at_array(start)?,
                RowsPosition::Member { name, start, other_names } => {
                    values.start_at_member(&name, start, &other_names)?;
                }
            }
            Box::new(values)
        }
        Format::Parquet => match parquet_rows::ParquetRows::open(content.file()?, limits)? {
            Ok(rows) => Box::new(rows),
            Err(diagnostic) => return Ok(Some(Err(diagnostic))),
        },
        Format::Conll => Box::new(conll::Sentences::new(content.lines()?, max_bytes)),
        Format::Fasta => Box::new(fasta::Sequences::new(content.lines()?, max_bytes)),
        Format::Fasttext => Box::new(fasttext::LabelledLines::open(content, max_bytes)?),
    };
    Ok(Some(Ok(source)))
}
