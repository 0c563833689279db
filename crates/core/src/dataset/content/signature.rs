//! Formats of files that their first bytes tell.

use crate::dataset::diagnostics::{self, Diagnostic};

/// What the first bytes of a file tell.
pub(super) enum Signature {
    Gzip,
    /// A zip archive, or a workbook or document in one.
    Zip,
    Parquet,
    Refused(Diagnostic),
}

/// Format that is not read: its first bytes, its name, and what to do.
type RefusedFormat = (&'static [u8], &'static str, &'static str);

const WRITE_ROWS: &str = "write its rows as CSV or JSON lines";

const REFUSED: [RefusedFormat; 37] = [
    (b"%PDF-", "a PDF document", WRITE_ROWS),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "a workbook or document of an Excel or Word before 2007",
        "save it as .xlsx or as CSV UTF-8, or convert it with \
         `python -c \"import pandas; pandas.read_excel('rows.xls').to_csv('rows.csv', index=False)\"`",
    ),
    (
        b"FEA1",
        "a Feather file",
        "convert it with `python -c \"import pandas; pandas.read_feather('rows.feather').to_parquet('rows.parquet')\"`",
    ),
    (
        b"ARROW1",
        "an Arrow file",
        "convert it with `python -c \"import pandas; pandas.read_feather('rows.arrow').to_parquet('rows.parquet')\"`",
    ),
    (
        b"\xff\xff\xff\xff",
        "an Arrow stream, such as a folder of `datasets` holds",
        "convert it with `python -c \"import datasets; datasets.Dataset.from_file('data.arrow').to_json('rows.jsonl')\"`",
    ),
    (
        b"ORC",
        "an ORC file",
        "convert it with `python -c \"import pandas; pandas.read_orc('rows.orc').to_parquet('rows.parquet')\"`",
    ),
    (
        b"Obj\x01",
        "an Avro file",
        "convert it with `python -c \"import polars; polars.read_avro('rows.avro').write_parquet('rows.parquet')\"`",
    ),
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file",
        "convert it with `python -c \"import pandas; pandas.read_hdf('rows.h5').to_csv('rows.csv', index=False)\"`",
    ),
    (b"PARE", "an encrypted Parquet file", "write it without encryption"),
    (b"\x80\x02", "a Python pickle", PICKLE),
    (b"\x80\x03", "a Python pickle", PICKLE),
    (b"\x80\x04", "a Python pickle", PICKLE),
    (b"\x80\x05", "a Python pickle", PICKLE),
    (
        b"\x93NUMPY",
        "a NumPy array",
        "convert it with `python -c \"import numpy, pandas; pandas.DataFrame(numpy.load('rows.npy')).to_csv('rows.csv', index=False)\"` \
         and name its columns",
    ),
    (
        b"SQLite format 3\0",
        "a SQLite database",
        "export the table with `sqlite3 -header -csv rows.db 'select * from rows' > rows.csv`",
    ),
    (
        b"$FL2",
        "an SPSS file",
        "convert it with `python -c \"import pandas; pandas.read_spss('rows.sav').to_csv('rows.csv', index=False)\"`",
    ),
    (
        b"<stata_dta>",
        "a Stata file",
        "convert it with `python -c \"import pandas; pandas.read_stata('rows.dta').to_csv('rows.csv', index=False)\"`",
    ),
    (b"\x89PNG", "a PNG picture", WRITE_ROWS),
    (b"\xff\xd8\xff", "a JPEG picture", WRITE_ROWS),
    (b"GIF8", "a GIF picture", WRITE_ROWS),
    (b"RIFF", "a sound, video or WebP picture", WRITE_ROWS),
    (b"GGUF", "model weights in GGUF", "send the training rows instead"),
    (b"BZh", "packed with bzip2", "unpack it with `bunzip2 rows.bz2`, or pack it with gzip"),
    (b"\xfd7zXZ\0", "packed with xz", "unpack it with `unxz rows.xz`, or pack it with gzip"),
    (b"\x28\xb5\x2f\xfd", "packed with Zstandard", "unpack it with `unzstd rows.zst`, or pack it with gzip"),
    (b"\x04\x22\x4d\x18", "packed with LZ4", "unpack it with `unlz4 rows.lz4`, or pack it with gzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it with `7z x rows.7z`, or pack it with gzip"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it with `unrar x rows.rar`, or pack it with gzip"),
    (b"PK\x05\x06", "an empty zip archive", "put the dataset's file into it"),
    (b"PK\x07\x08", "a zip archive in several volumes", "pack it into one file"),
    (b"\xff\xfe\0\0", "text in UTF-32", "convert it with `iconv -f utf-32 -t utf-8 rows.csv > rows-utf8.csv`"),
    (b"\0\0\xfe\xff", "text in UTF-32", "convert it with `iconv -f utf-32 -t utf-8 rows.csv > rows-utf8.csv`"),
    (
        b"version https://git-lfs.github.com/spec/",
        "a pointer of Git LFS, not the file itself",
        "fetch the file with `git lfs pull`",
    ),
    (b"{\\rtf", "an RTF document", WRITE_ROWS),
    (b"<?xml", "an XML document", XML),
    (b"<!DOCTYPE", "an HTML page", "check the address that the file was downloaded from"),
    (b"<html", "an HTML page", "check the address that the file was downloaded from"),
];

const PICKLE: &str = "convert it with \
     `python -c \"import pandas; pandas.DataFrame(pandas.read_pickle('rows.pkl')).to_csv('rows.csv', index=False)\"`";
const XML: &str =
    "convert it with `python -c \"import pandas; pandas.read_xml('rows.xml').to_csv('rows.csv', index=False)\"`";

/// Position of the mark of a tar archive.
const TAR_OFFSET: usize = 257;

/// Format of the file; `None` for text and for what is not known.
pub(super) fn find(sample: &[u8]) -> Option<Signature> {
    let mark = sample.strip_prefix(b"\xef\xbb\xbf").unwrap_or(sample);
    if mark.starts_with(b"\x1f\x8b") {
        return Some(Signature::Gzip);
    }
    if mark.starts_with(b"PK\x03\x04") {
        return Some(Signature::Zip);
    }
    if mark.starts_with(b"PAR1") {
        return Some(Signature::Parquet);
    }
    if sample.get(TAR_OFFSET..).is_some_and(|rest| rest.starts_with(b"ustar")) {
        return Some(Signature::Refused(refused(
            "a tar archive",
            "unpack it with `tar xf rows.tar`, and send its dataset file",
        )));
    }
    let is_binary = sample.iter().take(4096).any(|byte| *byte < b'\t');
    let has_prefix = |prefix: &[u8]| match (prefix.first(), mark.get(..prefix.len())) {
        (Some(b'<'), Some(start)) => start.eq_ignore_ascii_case(prefix),
        (Some(b'%' | b'{' | b'v'), Some(start)) => start == prefix,
        // A text may begin with the letters of a binary format.
        (_, Some(start)) => start == prefix && (is_binary || !prefix.is_ascii()),
        (_, None) => false,
    };
    let (_, name, advice) = REFUSED.iter().find(|(prefix, ..)| has_prefix(prefix))?;
    Some(Signature::Refused(refused(name, advice)))
}

/// Error for a format that is not read.
pub(super) fn refused(name: &str, advice: &str) -> Diagnostic {
    Diagnostic::new(
        diagnostics::UNKNOWN_FORMAT,
        format!("the file is {name}, which is not read as a dataset: {advice}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sample: &[u8]) -> String {
        match find(sample) {
            Some(Signature::Refused(diagnostic)) => diagnostic.message,
            _ => String::new(),
        }
    }

    #[test]
    fn formats_that_are_not_read_are_named_with_a_conversion() {
        for (sample, name, conversion) in [
            (&b"%PDF-1.7\n"[..], "a PDF document", "CSV"),
            (b"\x80\x04\x95\x10", "a Python pickle", "read_pickle"),
            (b"FEA1\0\0\0\0", "a Feather file", "read_feather"),
            (b"\x89PNG\r\n", "a PNG picture", "CSV"),
            (b"<!doctype html>", "an HTML page", "address"),
            (b"\xef\xbb\xbf<?xml version", "an XML document", "read_xml"),
        ] {
            let message = message(sample);
            assert!(message.contains(name) && message.contains(conversion), "{message}");
        }
        let tar = [&[b'a'; 257][..], b"ustar\0"].concat();
        assert!(message(&tar).contains("tar xf"));
    }

    #[test]
    fn text_has_no_signature() {
        for text in ["", "text,label\n", "{\"text\": 1}", "PK is a text", "ORDER;label\n"] {
            assert!(find(text.as_bytes()).is_none(), "{text}");
        }
    }
}
