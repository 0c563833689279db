//! Unpacking of gzip files and of zip archives that hold one file.

use super::signature::{self, Signature, refused};
use super::{LimitedWriter, read_sample};
use crate::dataset::diagnostics::{self, Diagnostic, quote_list};
use ::zip::ZipArchive;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek};
use std::path::Path;

/// Containers in each other that are unpacked, such as a gzip file in a zip archive.
const MAX_DEPTH: usize = 2;
/// Files of an archive that are looked at.
const MAX_ENTRIES: usize = 10_000;
const WORKBOOK_ENTRY: &str = "xl/workbook.xml";

/// Unpacks a file into temporary files in `folder`; a file that is not packed is returned as it is.
///
/// # Errors
/// A diagnostic for a damaged container, an archive of several files, and content of more than `max_bytes`.
pub(super) fn unpack(mut file: File, folder: &Path, max_bytes: u64) -> io::Result<Result<File, Diagnostic>> {
    for _ in 0..MAX_DEPTH {
        let unpacked = match signature::find(&read_sample(&mut file)?) {
            Some(Signature::Gzip) => gunzip(&file, folder, max_bytes)?,
            Some(Signature::Zip) => match unzip(&file, folder, max_bytes)? {
                Ok(Some(unpacked)) => Ok(unpacked),
                Ok(None) => break,
                Err(diagnostic) => Err(diagnostic),
            },
            Some(Signature::Parquet | Signature::Refused(_)) | None => break,
        };
        match unpacked {
            Ok(unpacked) => file = unpacked,
            Err(diagnostic) => return Ok(Err(diagnostic)),
        }
    }
    if matches!(signature::find(&read_sample(&mut file)?), Some(Signature::Gzip)) {
        return Ok(Err(damaged("gzip file", "it holds too many packed files in each other")));
    }
    Ok(Ok(file))
}

/// Checks that an archive that [`unpack`] left as it is is a workbook.
pub(super) fn check_workbook(file: &File) -> io::Result<Result<(), Diagnostic>> {
    let archive = match open_archive(file)? {
        Ok(archive) => archive,
        Err(diagnostic) => return Ok(Err(diagnostic)),
    };
    let names = file_names(&archive);
    let has = |prefix: &str| names.iter().any(|name| name.starts_with(prefix));
    Ok(if has(WORKBOOK_ENTRY) {
        Ok(())
    } else if has("xl/") {
        let advice = "save it as .xlsx or as CSV UTF-8";
        Err(refused("a binary workbook of Excel (.xlsb)", advice))
    } else if has("word/") || has("ppt/") {
        Err(refused("a document of Word or PowerPoint", "write its rows as CSV or JSON lines"))
    } else if has("content.xml") {
        let advice = "save it as .xlsx or as CSV, or convert it with \
             `python -c \"import pandas; pandas.read_excel('rows.ods').to_csv('rows.csv', index=False)\"`";
        Err(refused("an OpenDocument file", advice))
    } else if names.iter().any(|name| name.ends_with("/data.pkl")) {
        Err(refused("a checkpoint of PyTorch", "send the training rows instead"))
    } else {
        Err(damaged("zip archive", "it holds packed files in each other"))
    })
}

fn gunzip(file: &File, folder: &Path, max_bytes: u64) -> io::Result<Result<File, Diagnostic>> {
    copy_limited(MultiGzDecoder::new(BufReader::new(file)), "gzip file", folder, max_bytes)
}

/// Unpacks the only file of an archive; `None` for a workbook or document, which is an archive itself.
fn unzip(file: &File, folder: &Path, max_bytes: u64) -> io::Result<Result<Option<File>, Diagnostic>> {
    let mut archive = match open_archive(file)? {
        Ok(archive) => archive,
        Err(diagnostic) => return Ok(Err(diagnostic)),
    };
    if archive.len() > MAX_ENTRIES {
        return Ok(Err(several_files(&["more files than are looked at"])));
    }
    let names = file_names(&archive);
    let is_document = |name: &String| {
        ["[Content_Types].xml", "content.xml"].contains(&name.as_str())
            || name.starts_with("xl/")
            || name.ends_with("data.pkl")
    };
    if names.iter().any(is_document) {
        return Ok(Ok(None));
    }
    let is_dataset = |name: &&String| {
        let base_name = name.rsplit('/').next().unwrap_or_default();
        !base_name.is_empty() && !base_name.starts_with('.') && !name.starts_with("__MACOSX/")
    };
    let datasets: Vec<&String> = names.iter().filter(is_dataset).collect();
    let [name] = datasets.as_slice() else {
        return Ok(Err(several_files(&datasets.into_iter().map(String::as_str).collect::<Vec<_>>())));
    };
    let copy = match archive.by_name(name) {
        Ok(entry) => copy_limited(entry, "zip archive", folder, max_bytes)?,
        Err(error) => Err(damaged("zip archive", &error.to_string())),
    };
    Ok(copy.map(Some))
}

pub(super) fn open_archive(file: &File) -> io::Result<Result<ZipArchive<BufReader<File>>, Diagnostic>> {
    let mut reader = BufReader::new(file.try_clone()?);
    reader.rewind()?;
    Ok(ZipArchive::new(reader).map_err(|error| damaged("zip archive or workbook", &error.to_string())))
}

/// Names of an archive's files. Leaves out names that are not UTF-8.
fn file_names(archive: &ZipArchive<BufReader<File>>) -> Vec<String> {
    archive.file_names().filter_map(|name| Some(name.ok()?.into_owned())).collect()
}

/// Copies to a temporary file. Errors of the reader are those of damaged data.
fn copy_limited(
    mut reader: impl Read,
    kind: &str,
    folder: &Path,
    max_bytes: u64,
) -> io::Result<Result<File, Diagnostic>> {
    let target = tempfile::tempfile_in(folder)?;
    let mut writer = LimitedWriter::new(&target, max_bytes);
    let mut buffer = vec![0; 1 << 16];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if let Err(diagnostic) = writer.write(&buffer[..count])? {
                    return Ok(Err(diagnostic));
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(damaged(kind, &error.to_string()))),
        }
    }
    writer.finish()?;
    Ok(Ok(target))
}

fn several_files(names: &[&str]) -> Diagnostic {
    let message = match names {
        [] => "the zip archive holds no file: put the dataset's file into it".to_string(),
        _ => format!(
            "the zip archive holds {}: send one file, and a validation file as its own dataset",
            quote_list(names.iter().copied())
        ),
    };
    Diagnostic::new(diagnostics::UNKNOWN_FORMAT, message)
}

fn damaged(kind: &str, reason: &str) -> Diagnostic {
    let message = format!("the {kind} cannot be unpacked ({reason}): check it, or send the file unpacked");
    Diagnostic::new(diagnostics::DAMAGED_FILE, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::zip::ZipWriter;
    use ::zip::write::SimpleFileOptions;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
        for (name, bytes) in files {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn unpacked(bytes: &[u8], max_bytes: u64) -> Result<String, Diagnostic> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut unpacked = unpack(file, Path::new("/tmp"), max_bytes).unwrap()?;
        unpacked.rewind().unwrap();
        Ok(io::read_to_string(unpacked).unwrap())
    }

    #[test]
    fn containers_of_one_file_are_unpacked() {
        assert_eq!(unpacked(b"text,label\n", 100).unwrap(), "text,label\n");
        assert_eq!(unpacked(&gzipped(b"text,label\n"), 100).unwrap(), "text,label\n");
        let two_members = [gzipped(b"text,"), gzipped(b"label\n")].concat();
        assert_eq!(unpacked(&two_members, 100).unwrap(), "text,label\n");
        let archive =
            zipped(&[("__MACOSX/._rows.csv", b"x"), ("a/", b""), ("a/rows.csv", b"text"), (".DS_Store", b"y")]);
        assert_eq!(unpacked(&archive, 100).unwrap(), "text");
        assert_eq!(unpacked(&zipped(&[("rows.csv.gz", &gzipped(b"text"))]), 100).unwrap(), "text");
    }

    #[test]
    fn bombs_and_damaged_containers_are_refused() {
        let zeros = vec![0; 1 << 20];
        for packed in [gzipped(&zeros), zipped(&[("rows.csv", &zeros)])] {
            assert_eq!(unpacked(&packed, (1 << 20) - 1).unwrap_err().code, "too_many_bytes");
            assert_eq!(unpacked(&packed[..packed.len() / 2], 1 << 20).unwrap_err().code, "damaged_file");
        }
        let nested = gzipped(&gzipped(&gzipped(b"text")));
        assert_eq!(unpacked(&nested, 1000).unwrap_err().code, "damaged_file");
    }

    #[test]
    fn archive_of_several_files_is_refused_by_name() {
        let error = unpacked(&zipped(&[("train.csv", b"a"), ("test.csv", b"b")]), 100).unwrap_err();
        assert_eq!(error.code, "unknown_format");
        assert!(error.message.contains("\"train.csv\", \"test.csv\""), "{}", error.message);
    }
}
