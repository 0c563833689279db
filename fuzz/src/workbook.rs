//! Workbooks whose parts are stored without compression, so that mutations reach the reader of XML.

use std::io::{Cursor, Write};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Parts in the order in which an input gives them, separated by zero bytes.
const PARTS: [&str; 6] = [
    "xl/workbook.xml",
    "xl/_rels/workbook.xml.rels",
    "xl/worksheets/sheet1.xml",
    "xl/sharedStrings.xml",
    "xl/styles.xml",
    "xl/worksheets/sheet2.xml",
];

/// Part that names the workbook's part.
const PACKAGE: (&str, &[u8]) = (
    "_rels/.rels",
    b"<Relationships><Relationship Id=\"rId1\" Target=\"xl/workbook.xml\" \
      Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument\"/></Relationships>",
);

pub fn pack(input: &[u8]) -> Option<Vec<u8>> {
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let parts = PARTS.into_iter().zip(input.split(|byte| *byte == 0));
    for (name, part) in std::iter::once(PACKAGE).chain(parts) {
        writer.start_file(name, options).ok()?;
        writer.write_all(part).ok()?;
    }
    Some(writer.finish().ok()?.into_inner())
}
