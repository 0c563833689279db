//! Examples of a dataset that was validated before, one by one and without a report.

use super::column_mapping::ColumnMapping;
use super::content::Content;
use super::diagnostics::Diagnostic;
use super::options::{Limits, Options};
use super::preview::Preview;
use super::row_format::RowParser;
use super::{infer_schema, open_reader};
use crate::error::{Context, Error, Result};
use crate::task::{self, Example};
use std::ops::ControlFlow;
use std::path::Path;

/// Calls `visit` with the examples in the order of the file, until it breaks. Rows with errors are left out.
///
/// # Errors
/// `Invalid` (`invalid_dataset`) if the file as a whole is not a dataset of this task.
pub fn for_each_example(
    path: &Path,
    options: &Options,
    task: &task::Config,
    limits: &Limits,
    mut visit: impl FnMut(Example) -> ControlFlow<()>,
) -> Result<()> {
    let read_context = || format!("reading the dataset {}", path.display());
    let refused = |diagnostic: Diagnostic| Error::invalid("invalid_dataset", diagnostic.message);
    let refused_in_line = |(_, diagnostic)| refused(diagnostic);
    let content = Content::open(path, options, limits.max_bytes).with_context(read_context)?.map_err(refused)?;
    let preview = Preview::read(&content, options, limits).with_context(read_context)?.map_err(refused_in_line)?;
    let schema = infer_schema::best_schema(&preview, options, task.row_schemas());
    let mapping = ColumnMapping::resolve(schema, options, &preview).map_err(refused)?;
    let parser = Box::new(RowParser::new(mapping));
    let mut reader =
        open_reader(&content, options, parser, limits).with_context(read_context)?.map_err(refused_in_line)?;
    while let Some(row) = reader.next_row().with_context(read_context)? {
        let Ok(valid) = row.content else { continue };
        if visit(valid.into_example(row.line)).is_break() {
            break;
        }
    }
    Ok(())
}
