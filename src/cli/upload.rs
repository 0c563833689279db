//! Uploads a file as `multipart/form-data` (RFC 7578) with a known content length and a progress bar.

use super::error::{CliError, CliResult};
use super::output::{DisplayMode, Output, format_bytes};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Open file to upload.
pub struct FileUpload {
    pub path: PathBuf,
    pub name: String,
    file: File,
    size: u64,
}

/// Form with a file part and a JSON part. The file comes first: if the server rejected the JSON before reading the file, closing
/// the connection could discard its response.
pub struct MultipartForm {
    pub content_type: String,
    pub length: u64,
    prefix: Vec<u8>,
    upload: FileUpload,
    suffix: Vec<u8>,
}

impl FileUpload {
    /// # Errors
    /// `InvalidInput` if the file does not exist or is empty.
    pub fn open(path: &Path) -> CliResult<Self> {
        let file_error =
            |reason: &dyn std::fmt::Display| CliError::invalid_input(format!("{}: {reason}", path.display()));
        let file = File::open(path).map_err(|error| file_error(&error))?;
        let metadata = file.metadata().map_err(|error| file_error(&error))?;
        if !metadata.is_file() {
            return Err(file_error(&"this is not a file"));
        }
        if metadata.len() == 0 {
            return Err(file_error(&"the file is empty"));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { path: path.to_path_buf(), name, file, size: metadata.len() })
    }

    /// Returns the media type of the file's extension.
    fn content_type(&self) -> &'static str {
        match self.path.extension().and_then(|ending| ending.to_str()).unwrap_or_default() {
            "csv" => "text/csv",
            "tsv" => "text/tab-separated-values",
            "jsonl" | "ndjson" => "application/jsonl",
            "zip" => "application/zip",
            _ => "application/octet-stream",
        }
    }
}

impl MultipartForm {
    /// Creates a form; `json_field` is the name and the text of the JSON part.
    pub fn new(field: &str, upload: FileUpload, json_field: (&str, &str)) -> Self {
        let boundary = format!("espalier-{}", Uuid::now_v7().simple());
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{}\"\r\nContent-Type: {}\r\n\r\n",
            escape_file_name(&upload.name),
            upload.content_type()
        );
        let (name, text) = json_field;
        let tail = format!(
            "\r\n--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\
             Content-Type: application/json\r\n\r\n{text}\r\n--{boundary}--\r\n"
        );
        Self {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            length: head.len() as u64 + upload.size + tail.len() as u64,
            prefix: head.into_bytes(),
            upload,
            suffix: tail.into_bytes(),
        }
    }

    /// Returns a reader of the form's body, which shows a progress bar on a terminal.
    pub fn into_reader(self, output: &Output) -> impl Read + use<> {
        let target = match output.display_mode() {
            DisplayMode::Interactive => ProgressDrawTarget::stderr(),
            DisplayMode::Plain => ProgressDrawTarget::hidden(),
        };
        let template = format!(
            "sending {} {{bar:28}} {{bytes}}/{} ",
            escape_file_name(&self.upload.name),
            format_bytes(self.upload.size)
        );
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(self.upload.size), target).with_style(style);
        // The content length is already sent, so data appended to the file meanwhile must not be read.
        let file = self.upload.file.take(self.upload.size);
        Cursor::new(self.prefix).chain(ProgressReader { file, bar }).chain(Cursor::new(self.suffix))
    }
}

struct ProgressReader<R> {
    file: R,
    bar: ProgressBar,
}

impl<R: Read> Read for ProgressReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.bar.inc(count as u64);
        if count == 0 {
            self.bar.finish_and_clear();
        }
        Ok(count)
    }
}

/// Escapes a file name for the header as browsers do (WHATWG HTML).
fn escape_file_name(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::captured_output;
    use std::io::Write;

    #[test]
    fn content_length_matches_the_body() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a \"b\".csv");
        File::create(&path).unwrap().write_all(b"text,label\n").unwrap();
        let form = MultipartForm::new("dataset", FileUpload::open(&path).unwrap(), ("job", "{}"));
        let (length, content_type) = (form.length, form.content_type.clone());
        let mut text = String::new();
        let (output, _, _) = captured_output(crate::cli::output::OutputFormat::Human);
        form.into_reader(&output).read_to_string(&mut text).unwrap();
        assert_eq!(text.len() as u64, length);
        let boundary = content_type.split_once('=').unwrap().1;
        let file = "name=\"dataset\"; filename=\"a %22b%22.csv\"\r\nContent-Type: text/csv\r\n\r\ntext,label\n\r\n";
        assert!(text.starts_with(&format!("--{boundary}\r\nContent-Disposition: form-data; {file}--{boundary}\r\n")));
        assert!(
            text.ends_with(&format!(
                "name=\"job\"\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}--\r\n"
            ))
        );
    }

    #[test]
    fn directories_and_empty_files_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.csv");
        File::create(&empty).unwrap();
        for path in [folder.path(), &empty, Path::new("/nowhere.csv")] {
            let error = FileUpload::open(path).err().unwrap();
            assert_eq!(error.exit_code(), 2);
            assert!(error.message().unwrap().contains(&path.display().to_string()));
        }
    }
}
