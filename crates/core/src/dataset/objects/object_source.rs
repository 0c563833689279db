//! Seam between the formats whose rows are objects and their reader.

use crate::dataset::diagnostics::Diagnostic;
use std::borrow::Cow;
use std::io;

/// Rows of a file as the JSON texts of objects.
pub(in crate::dataset) trait ObjectSource {
    /// Returns the next object in file order, or `None` at the end of the file.
    fn next_object(&mut self) -> io::Result<Option<SourceObject<'_>>>;

    /// Error that ended the file before its end, of the file as a whole.
    fn take_file_error(&mut self) -> Option<Diagnostic> {
        None
    }

    /// Warnings since the last call, with their lines.
    fn take_warnings(&mut self) -> Vec<(u64, Diagnostic)> {
        Vec::new()
    }
}

/// JSON text of a row, or the reason why it cannot be read.
pub(in crate::dataset) struct SourceObject<'a> {
    /// Line of the file where it begins; its number in a file without lines.
    pub line: u64,
    pub text: Result<Cow<'a, str>, Diagnostic>,
}
