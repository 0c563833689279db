//! Properties of the validation of arbitrary files.

use crate::dataset::support::{File, csv, tsv};
use espalier_core::dataset::Format;
use proptest::prelude::*;
use std::io::Write;

const STRUCTURE: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"\r",
    b",",
    b"\t",
    b"\"",
    b"\"\"",
    b"a",
    b" ",
    b"x,y\n",
    b"{\"text\":\"a\",\"label\":1}\n",
    b"{",
    b"\\u",
    b"\xff",
    b"\xc3\xa9",
    b"\xe2\x82",
    b"\0",
    b"\"a\",\"b\"\n",
    b"[",
    b"null",
];
const HEADERS: &[&[u8]] = &[b"", b"text,label\n", b"\xef\xbb\xbftext\tlabel\r\n", b"text,text_pair,label\n"];

/// Random files with many structural bytes and often a valid header.
fn awkward_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => prop::sample::select(STRUCTURE).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    (prop::sample::select(HEADERS), prop::collection::vec(piece, 0..60))
        .prop_map(|(header, pieces)| [header.to_vec(), pieces.concat()].concat())
}

fn any_format() -> impl Strategy<Value = Format> {
    prop::sample::select(&[Format::Csv, Format::Tsv, Format::Jsonl])
}

proptest! {
    #[test]
    fn arbitrary_bytes_give_diagnostics_on_lines_of_the_file(
        bytes in awkward_bytes(),
        format in any_format(),
        limit in prop::sample::select(&[1usize, 12, 40, 1 << 16]),
        skip in any::<bool>(),
    ) {
        let file = File::new(format, &bytes).with_limits(|limits| limits.max_record_bytes = limit);
        let file = if skip { file.skip_bad_rows() } else { file };
        let checked = file.check();
        let lines = 1 + bytes.iter().filter(|byte| [b'\n', b'\r'].contains(byte)).count() as u64;
        for diagnostic in checked.report.errors.iter().chain(&checked.report.warnings) {
            prop_assert!(diagnostic.line.is_none_or(|line| (1..=lines).contains(&line)), "{diagnostic:?}");
        }
        prop_assert!(checked.report.errors.is_sorted_by_key(|diagnostic| diagnostic.line));
        prop_assert!(checked.report.warnings.is_sorted_by_key(|diagnostic| diagnostic.line));
        prop_assert!(checked.examples.is_sorted_by_key(|example| example.line));
        prop_assert_eq!(checked.report.examples, checked.examples.len() as u64);
        prop_assert!(checked.report.rows >= checked.report.examples);
        prop_assert_eq!(checked.report.to_error().is_some(), checked.report.error_count > 0);
    }

    #[test]
    fn table_written_by_the_csv_crate_is_read_exactly(
        cells in prop::collection::vec(("[a-z\",\t\r\n é]{0,12}[a-z\"]", "[a-c\",\n]{0,3}[a-c]"), 2..30),
        tabs in any::<bool>(),
        windows in any::<bool>(),
    ) {
        let (bytes, lines) = write_table(&cells, if tabs { b'\t' } else { b',' }, windows);
        let file = if tabs { tsv(&bytes) } else { csv(&bytes) };
        let expected: Vec<_> = cells.iter().zip(lines)
            .map(|((text, label), line)| (line, text.trim().to_string(), label.trim().to_string())).collect();
        prop_assert_eq!(file.examples(), expected);
        prop_assert_eq!(file.check().report.rows, cells.len() as u64);
    }
}

/// Writes the table with the `csv` crate. Returns its bytes and the first line of each record.
fn write_table(cells: &[(String, String)], separator: u8, windows: bool) -> (Vec<u8>, Vec<u64>) {
    let terminator = if windows { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
    let mut writer = csv::WriterBuilder::new().delimiter(separator).terminator(terminator).from_writer(Vec::new());
    writer.write_record(["text", "label"]).unwrap();
    let mut lines = Vec::new();
    let mut bytes = Vec::new();
    for (text, label) in cells {
        writer.flush().unwrap();
        bytes.write_all(writer.get_ref().get(bytes.len()..).unwrap()).unwrap();
        lines.push(1 + bytes.iter().filter(|byte| **byte == b'\n').count() as u64);
        writer.write_record([text, label]).unwrap();
    }
    (writer.into_inner().unwrap(), lines)
}
