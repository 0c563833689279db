//! Content of a dataset file: the file itself, or an unpacked or transcoded copy of it in an unlinked temporary file.

mod encoding;
mod probable_encoding;
mod signature;
mod unpack;
mod workbook;

pub(super) use encoding::guess_encoding;

use super::diagnostics::{self, Diagnostic};
use super::format::Format;
use super::line_source::LineSource;
use super::options::Options;
use super::text_encoding::TextEncoding;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use unpack::unpack;

/// Bytes at the start of a file that decide its encoding and its format.
pub(super) const SAMPLE_BYTES: usize = 256 * 1024;

/// Content of a dataset file, unpacked, and as UTF-8 with `\n` at the ends of its lines where it is text.
pub(super) struct Content {
    file: File,
    /// Warnings about the conversion, with their lines.
    pub warnings: Vec<(u64, Diagnostic)>,
}

/// Bytes of a file without its containers.
pub(super) struct RawContent<'a> {
    file: File,
    /// Where temporary files are written.
    folder: &'a Path,
    max_bytes: u64,
}

/// What the first bytes say about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentKind {
    Parquet,
    Xlsx,
    Text,
}

impl<'a> RawContent<'a> {
    /// Opens a file and unpacks it.
    ///
    /// # Errors
    /// A diagnostic for a file that is too large, damaged, or in a format that is not read.
    pub fn open(path: &'a Path, max_bytes: u64) -> io::Result<Result<Self, Diagnostic>> {
        let file = File::open(path)?;
        let file_bytes = file.metadata()?.len();
        if file_bytes > max_bytes {
            return Ok(Err(file_too_large(file_bytes, max_bytes)));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        Ok(unpack(file, folder, max_bytes)?.map(|file| Self { file, folder, max_bytes }))
    }

    /// Kind of the content, from its first bytes.
    ///
    /// # Errors
    /// A diagnostic that names the format and its conversion, for a format that is not read.
    pub fn kind(&mut self) -> io::Result<Result<ContentKind, Diagnostic>> {
        let sample = self.sample()?;
        match signature::find(&sample) {
            Some(signature::Signature::Parquet) => Ok(Ok(ContentKind::Parquet)),
            Some(signature::Signature::Zip) => {
                unpack::check_workbook(&self.file).map(|check| check.map(|()| ContentKind::Xlsx))
            }
            Some(signature::Signature::Refused(diagnostic)) => Ok(Err(diagnostic)),
            Some(signature::Signature::Gzip) | None => Ok(Ok(ContentKind::Text)),
        }
    }

    /// Encoding that a byte order mark or the pattern of zero bytes shows; `None` for UTF-8 and its relatives.
    pub fn detect_encoding(&mut self) -> io::Result<Option<TextEncoding>> {
        Ok(TextEncoding::detect(&self.sample()?))
    }

    /// Content of a format that is read as it is.
    fn into_binary(self) -> Content {
        Content { file: self.file, warnings: Vec::new() }
    }

    /// Converts a workbook into a table.
    fn into_table(self) -> io::Result<Result<Content, Diagnostic>> {
        let target = tempfile::tempfile_in(self.folder)?;
        let warnings = workbook::write_first_sheet(&self.file, &target, self.max_bytes)?;
        Ok(warnings.map(|warnings| Content { file: target, warnings }))
    }

    /// Decodes text.
    ///
    /// # Errors
    /// A diagnostic for bytes that the encoding does not have, and for text that is too long.
    pub fn into_text(mut self, encoding: Option<TextEncoding>) -> io::Result<Result<Content, Diagnostic>> {
        if let Some(encoding) = encoding.or(self.detect_encoding()?) {
            let target = tempfile::tempfile_in(self.folder)?;
            let max_bytes = self.max_bytes;
            if let Err(diagnostic) = encoding::transcode(&mut self.file, &target, encoding, max_bytes)? {
                return Ok(Err(diagnostic));
            }
            self.file = target;
        }
        if encoding::has_carriage_return_lines(&self.sample()?) {
            let target = tempfile::tempfile_in(self.folder)?;
            self.file.seek(SeekFrom::Start(0))?;
            encoding::replace_carriage_returns(&self.file, &target)?;
            self.file = target;
        }
        Ok(Ok(Content { file: self.file, warnings: Vec::new() }))
    }

    fn sample(&mut self) -> io::Result<Vec<u8>> {
        read_sample(&mut self.file)
    }
}

impl Content {
    /// Opens a file as the options say.
    pub fn open(path: &Path, options: &Options, max_bytes: u64) -> io::Result<Result<Self, Diagnostic>> {
        let raw = match RawContent::open(path, max_bytes)? {
            Ok(raw) => raw,
            Err(diagnostic) => return Ok(Err(diagnostic)),
        };
        match options.format {
            Format::Parquet => Ok(Ok(raw.into_binary())),
            Format::Xlsx => raw.into_table(),
            Format::Csv
            | Format::Tsv
            | Format::Jsonl
            | Format::Json
            | Format::Conll
            | Format::Fasta
            | Format::Fasttext => raw.into_text(options.encoding),
        }
    }

    /// Lines from the start. Sources of one content share its position, so only the newest may be used.
    pub fn lines(&self) -> io::Result<LineSource> {
        LineSource::new(self.file.try_clone()?)
    }

    /// The file, at its start.
    pub fn file(&self) -> io::Result<File> {
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file)
    }

    /// First bytes of the content.
    pub fn sample(&self) -> io::Result<Vec<u8>> {
        read_sample(&mut self.file()?)
    }
}

/// Writes to a temporary file of limited size.
struct LimitedWriter<'a> {
    file: io::BufWriter<&'a File>,
    bytes: u64,
    max_bytes: u64,
}

impl<'a> LimitedWriter<'a> {
    fn new(file: &'a File, max_bytes: u64) -> Self {
        Self { file: io::BufWriter::with_capacity(1 << 16, file), bytes: 0, max_bytes }
    }

    /// Writes the bytes; the diagnostic is that of content that is too long.
    fn write(&mut self, bytes: &[u8]) -> io::Result<Result<(), Diagnostic>> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.max_bytes {
            return Ok(Err(too_many_bytes(self.max_bytes)));
        }
        self.file.write_all(bytes).map(Ok)
    }

    fn finish(mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn read_sample(file: &mut File) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(0))?;
    let mut sample = Vec::new();
    file.take(SAMPLE_BYTES as u64).read_to_end(&mut sample)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(sample)
}

/// Error for content that is too long once it is unpacked or decoded.
fn too_many_bytes(limit: u64) -> Diagnostic {
    let message = format!(
        "the file holds more than the {limit} bytes that this server takes, once it is unpacked and decoded: send a smaller one"
    );
    Diagnostic::new(diagnostics::TOO_MANY_BYTES, message)
}

fn file_too_large(bytes: u64, limit: u64) -> Diagnostic {
    let message =
        format!("the file has {bytes} bytes, more than the {limit} that this server takes: send a smaller one");
    Diagnostic::new(diagnostics::TOO_MANY_BYTES, message)
}
