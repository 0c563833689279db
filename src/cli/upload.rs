//! Sending a file as `multipart/form-data` (RFC 7578) with a known length, and saying how far it is.
//!
//! Knows nothing of what is in the file.

use super::failure::{Failure, Outcome};
use super::output::{Live, Output, size};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A file to be sent.
pub struct Upload {
    pub path: PathBuf,
    pub name: String,
    file: File,
    bytes: u64,
}

/// A form of a file and some JSON. The file goes first: a server that refused the JSON before it has read the file would
/// close the connection, and its answer could be lost on the way.
pub struct Form {
    pub content_type: String,
    pub length: u64,
    head: Vec<u8>,
    upload: Upload,
    tail: Vec<u8>,
}

impl Upload {
    /// # Errors
    /// `BadInput` where there is no such file, or nothing in it.
    pub fn open(path: &Path) -> Outcome<Self> {
        let wrong = |why: &dyn std::fmt::Display| Failure::bad_input(format!("{}: {why}", path.display()));
        let file = File::open(path).map_err(|error| wrong(&error))?;
        let metadata = file.metadata().map_err(|error| wrong(&error))?;
        if !metadata.is_file() {
            return Err(wrong(&"this is not a file"));
        }
        if metadata.len() == 0 {
            return Err(wrong(&"the file is empty"));
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Self { path: path.to_path_buf(), name, file, bytes: metadata.len() })
    }

    /// By the name's ending; the server reads the ending too.
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

impl Form {
    /// `json` is the name and the text of the field that goes with the file.
    pub fn new(field: &str, upload: Upload, json: (&str, &str)) -> Self {
        let boundary = format!("espalier-{}", Uuid::now_v7().simple());
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{}\"\r\nContent-Type: {}\r\n\r\n",
            escape(&upload.name),
            upload.content_type()
        );
        let (name, text) = json;
        let tail = format!(
            "\r\n--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\
             Content-Type: application/json\r\n\r\n{text}\r\n--{boundary}--\r\n"
        );
        Self {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            length: head.len() as u64 + upload.bytes + tail.len() as u64,
            head: head.into_bytes(),
            upload,
            tail: tail.into_bytes(),
        }
    }

    /// The form's bytes; on a terminal a bar runs along with them.
    pub fn reader(self, output: &Output) -> impl Read + use<> {
        let target = match output.live() {
            Live::Terminal => ProgressDrawTarget::stderr(),
            Live::Plain => ProgressDrawTarget::hidden(),
        };
        let template =
            format!("sending {} {{bar:28}} {{bytes}}/{} ", escape(&self.upload.name), size(self.upload.bytes));
        let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(self.upload.bytes), target).with_style(style);
        // A file that grows meanwhile must not grow the form, whose length was announced.
        let file = self.upload.file.take(self.upload.bytes);
        Cursor::new(self.head).chain(Counted { file, bar }).chain(Cursor::new(self.tail))
    }
}

struct Counted<R> {
    file: R,
    bar: ProgressBar,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.bar.inc(count as u64);
        if count == 0 {
            self.bar.finish_and_clear();
        }
        Ok(count)
    }
}

/// As browsers write a file's name into the header.
fn escape(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::kept;
    use std::io::Write;

    #[test]
    fn a_form_is_as_long_as_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a \"b\".csv");
        File::create(&path).unwrap().write_all(b"text,label\n").unwrap();
        let form = Form::new("dataset", Upload::open(&path).unwrap(), ("job", "{}"));
        let (length, content_type) = (form.length, form.content_type.clone());
        let mut text = String::new();
        let (output, _, _) = kept(crate::cli::output::Form::People);
        form.reader(&output).read_to_string(&mut text).unwrap();
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
    fn what_is_no_file_or_empty_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.csv");
        File::create(&empty).unwrap();
        for path in [folder.path(), &empty, Path::new("/nowhere.csv")] {
            let failure = Upload::open(path).err().unwrap();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.message().unwrap().contains(&path.display().to_string()));
        }
    }
}
