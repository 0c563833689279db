//! Tests of workbooks, which are written here part by part.

use super::*;
use ::zip::ZipWriter;
use ::zip::write::SimpleFileOptions;
use std::io::Write;

/// Workbook whose sheets have this XML between `<sheetData>` and its end.
fn workbook(sheets: &[(&str, &str)]) -> File {
    workbook_with_part("docProps/app.xml", "<Properties/>", sheets)
}

/// Workbook with one more part.
fn workbook_with_part(name: &str, text: &str, sheets: &[(&str, &str)]) -> File {
    let mut archive = ZipWriter::new(tempfile::tempfile().unwrap());
    let mut part = |name: &str, text: &str| {
        archive.start_file(name, SimpleFileOptions::default()).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    };
    part(name, text);
    part("[Content_Types].xml", "<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\"/>");
    part(
        "_rels/.rels",
        "<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\"><Relationship Id=\"rId1\" \
         Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument\" Target=\"xl/workbook.xml\"/>\
         </Relationships>",
    );
    let (mut entries, mut relations) = (String::new(), String::new());
    for (index, (name, cells)) in sheets.iter().enumerate() {
        entries += &format!("<sheet name=\"{name}\" sheetId=\"{0}\" r:id=\"rId{0}\"/>", index + 1);
        relations += &format!(
            "<Relationship Id=\"rId{0}\" Target=\"worksheets/sheet{0}.xml\" \
             Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet\"/>",
            index + 1
        );
        let sheet = format!(
            "<worksheet xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\"><sheetData>{cells}</sheetData></worksheet>"
        );
        part(&format!("xl/worksheets/sheet{}.xml", index + 1), &sheet);
    }
    part(
        "xl/workbook.xml",
        &format!(
            "<workbook xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\" \
             xmlns:r=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships\"><sheets>{entries}</sheets></workbook>"
        ),
    );
    part(
        "xl/_rels/workbook.xml.rels",
        &format!(
            "<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\">{relations}</Relationships>"
        ),
    );
    archive.finish().unwrap()
}

fn text_cell(reference: &str, text: &str) -> String {
    format!("<c r=\"{reference}\" t=\"inlineStr\"><is><t xml:space=\"preserve\">{text}</t></is></c>")
}

fn converted(file: &File, max_bytes: u64) -> Result<(String, Vec<(u64, Diagnostic)>), Diagnostic> {
    let mut target = tempfile::tempfile().unwrap();
    let warnings = write_first_sheet(file, &target, max_bytes).unwrap()?;
    target.rewind().unwrap();
    Ok((io::read_to_string(target).unwrap(), warnings))
}

#[test]
fn first_sheet_with_cells_is_a_record_per_row() {
    let header = format!("<row r=\"2\">{}{}</row>", text_cell("A2", "text"), text_cell("B2", "label"));
    let rows = format!(
        "<row r=\"3\">{}<c r=\"B3\"><v>1</v></c></row><row r=\"5\"><c r=\"B5\"><v>2.5</v></c></row>\
         <row r=\"6\">{}<c r=\"B6\" t=\"e\"><v>#N/A</v></c></row>",
        text_cell("A3", "a \"b\"\nc"),
        text_cell("A6", "d"),
    );
    let file = workbook(&[("Empty", ""), ("Rows", &(header + &rows)), ("Notes", &text_cell("A1", "x"))]);
    let (text, warnings) = converted(&file, 1 << 16).unwrap();
    assert_eq!(text, "\n\"text\",\"label\"\n\"a \"\"b\"\"\nc\",\"1\"\n\n,\"2.5\"\n\"d\",\"\"\n");
    let warnings: Vec<_> = warnings.iter().map(|(row, warning)| (*row, warning.message.as_str())).collect();
    assert!(warnings[0].0 == 1 && warnings[0].1.contains("\"Notes\""), "{warnings:?}");
    assert!(warnings[1].0 == 6 && warnings[1].1.contains("#N/A"), "{warnings:?}");
}

#[test]
fn workbooks_that_are_empty_damaged_or_too_large_are_refused() {
    assert_eq!(converted(&workbook(&[("Empty", "")]), 1 << 16).unwrap_err().code, "no_usable_row");
    let large = workbook(&[("Rows", &text_cell("A1", &"x".repeat(10_000)))]);
    assert_eq!(converted(&large, 1000).unwrap_err().code, "too_many_bytes");
    let mut damaged = tempfile::tempfile().unwrap();
    damaged.write_all(b"PK\x03\x04 no archive").unwrap();
    assert_eq!(converted(&damaged, 1000).unwrap_err().code, "damaged_file");
}

#[test]
fn row_whose_cells_share_a_long_string_is_refused_before_it_is_built() {
    let strings = format!("<sst><si><t>{}</t></si></sst>", "x".repeat(20_000));
    let cells: String = ["A1", "B1", "C1", "D1"].map(|cell| format!("<c r=\"{cell}\" t=\"s\"><v>0</v></c>")).concat();
    let file = workbook_with_part("xl/sharedStrings.xml", &strings, &[("Rows", &cells)]);
    assert_eq!(converted(&file, 1 << 17).unwrap().0.len(), 4 * 20_003);
    let error = converted(&file, 50_000).unwrap_err();
    assert_eq!(error.code, "too_many_bytes", "{}", error.message);
}

#[test]
fn sheets_beyond_a_number_are_refused() {
    let names: Vec<String> = (0..=MAX_SHEETS).map(|index| format!("S{index}")).collect();
    let sheets: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(converted(&workbook(&sheets[1..]), 1 << 22).unwrap_err().code, "no_usable_row");
    let error = converted(&workbook(&sheets), 1 << 22).unwrap_err();
    assert!(error.code == "unknown_format" && error.message.contains("257 sheets"), "{}", error.message);
    // 16 sheets that might share a part of 10,000 bytes.
    let large = workbook_with_part("docProps/app.xml", &"x".repeat(10_000), &sheets[..16]);
    assert_eq!(converted(&large, 20_000).unwrap_err().code, "no_usable_row");
    assert_eq!(converted(&large, 18_000).unwrap_err().code, "unknown_format");
}
