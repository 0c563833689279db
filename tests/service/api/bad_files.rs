//! Tests of invalid dataset files: errors name their line on every endpoint.

use crate::api::error_cases::{ErrorCase, check_cases, error_case};
use crate::api::request::{bytes, form};
use crate::api::server_process::{ServerConfig, ServerProcess};
use serde_json::{Value, json};

const GOOD: &str = "text,label\nwhere is it,arrival\nwhy a fee,fee\nhow do I,help\nwhen will it,arrival\n";

/// Name, file name, content, line of the first error, and text in its message (in the detail if there is no line).
type File = (&'static str, &'static str, Vec<u8>, Option<u64>, &'static str);

fn tables() -> Vec<File> {
    let csv = |name, text: &str, line, expected| (name, "rows.csv", text.as_bytes().to_vec(), Some(line), expected);
    let whole = |name, text: &str, expected| (name, "rows.csv", text.as_bytes().to_vec(), None, expected);
    let raw = |name, bytes: &[u8], line, expected| (name, "rows.csv", bytes.to_vec(), Some(line), expected);
    let long = format!("text,label\na,x\n{},y\nb,y\n", "long ".repeat(500));
    let labels: String = (0..9).map(|label| format!("text {label},label {label}\n")).collect();
    vec![
        whole("an empty file", "", "is empty"),
        whole("a file of blank lines", "\n\n  \n", "is empty"),
        whole("a header alone", "text,label\n", "no rows"),
        whole("one label", "text,label\na,x\nb,x\n", "at least two labels"),
        whole("too many labels", &format!("text,label\n{labels}"), "more than the 6 labels"),
        whole("too many rows", &format!("{GOOD}{}", &GOOD[11..].repeat(10)), "more than the 12 rows"),
        whole("no row that can be used", "text,label\n,x\n,y\n", "none of the 2 rows"),
        csv("no header", "where is it,arrival\nwhy a fee,fee\n", 1, "has no column \"text\""),
        csv("no label column", "text,kind\na,x\nb,y\n", 1, "its columns are \"text\", \"kind\""),
        csv("a column twice", "text,label,text\na,x,b\nc,y,d\n", 1, "called \"text\""),
        csv("a broken header", "text,\"label\na,x\nb,y\n", 1, "never closes"),
        csv("a quote that never closes", "text,label\na,x\n\"b,y\nc,y\n", 3, "never closes"),
        csv("text behind a quote", "text,label\na,x\n\"b\" c,y\nd,y\n", 3, "follows a closing quote"),
        csv("a record of two lines before the error", "text,label\n\"a\nb\",x\nc\nd,y\n", 4, "1 field,"),
        csv("too many fields", "text,label\na,x\nb, c,y\nd,y\n", 3, "double quotes"),
        csv("an empty text", "text,label\na,x\n,y\nb,y\n", 3, "text is empty"),
        csv("an empty label", "text,label\na,x\nb,\nc,y\n", 3, "label is empty"),
        csv("a long label", &format!("text,label\na,x\nb,{}\nc,y\n", "y".repeat(1001)), 3, "label is longer"),
        csv("a record too long", &long, 3, "longer than the 2000 bytes"),
        raw("Latin-1", b"text,label\na,x\ncaf\xe9,y\nb,y\n", 3, "byte 4 of line 3 (0xE9)"),
        raw("Latin-1 in the header", b"text,l\xe4bel\na,x\nb,y\n", 1, "is not UTF-8"),
        raw("a NUL", b"text,label\na,x\nb\0,y\nc,y\n", 3, "U+0000"),
        ("TSV with too few fields", "rows.tab", b"text\tlabel\na\tx\nb,y\nc\ty\n".to_vec(), Some(3), "1 field,"),
    ]
}

fn lines() -> Vec<File> {
    let good = "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": \"y\"}\n";
    let second = |name, line: &[u8], expected| {
        let content = [good.as_bytes(), line, b"\n"].concat();
        (name, "rows.jsonl", content, Some(3), expected)
    };
    let long = format!("{{\"text\": \"{}\", \"label\": \"x\"}}", "long ".repeat(500));
    vec![
        ("an empty JSONL", "rows.jsonl", Vec::new(), None, "no rows"),
        (
            "a JSON list",
            "rows.jsonl",
            format!("[{}]", good.lines().next().unwrap()).into_bytes(),
            None,
            "at least two labels",
        ),
        second("no JSON", b"text: a", "is not a JSON object"),
        second("cut off", b"{\"text\": \"a\", \"label\"", "is not valid JSON"),
        second("half a character", br#"{"text": "\ud800", "label": "x"}"#, "is not valid JSON"),
        second("not UTF-8", b"{\"text\": \"\xff\", \"label\": \"x\"}", "is not UTF-8"),
        second("no text", br#"{"label": "x"}"#, "has no \"text\""),
        second("a null label", br#"{"text": "a", "label": null}"#, "the field \"label\" is null"),
        second("a number for a text", br#"{"text": 3, "label": "x"}"#, "is a number"),
        second("an object for a label", br#"{"text": "a", "label": {}}"#, "is an object"),
        second("a list for a pair", br#"{"text": "a", "text_pair": [], "label": "x"}"#, "is a list"),
        second("a blank text", br#"{"text": " \t", "label": "x"}"#, "text is empty"),
        second("a line too long", long.as_bytes(), "longer than the 2000 bytes"),
    ]
}

/// Sends the file in a job form, in a dataset form, and as the request body.
fn upload_through_every_endpoint(app: &ServerProcess, files: Vec<File>) -> usize {
    let mut cases: Vec<ErrorCase> = Vec::new();
    for (name, file, content, line, expected) in files {
        let endpoints = [
            form("/jobs", ("job", &json!({"name": "never"})), ("dataset", file, &content)),
            form("/datasets", ("options", &json!({})), ("dataset", file, &content)),
            bytes(format!("/datasets?file_name={file}"), "application/octet-stream", content.clone()),
        ];
        for (endpoint, request) in endpoints.into_iter().enumerate() {
            let refused = error_case(format!("{name} ({endpoint})"), request, 422, "invalid_dataset", "");
            cases.push(refused.with_line(line, expected));
        }
    }
    check_cases(app, cases)
}

#[test]
fn file_errors_name_their_line_on_every_endpoint() {
    let limits = ["--max-rows", "12", "--max-labels", "6", "--max-record", "2000"];
    let app = ServerConfig::new().with_arguments(&limits).start();
    assert_eq!(upload_through_every_endpoint(&app, tables()) + upload_through_every_endpoint(&app, lines()), 3 * 36);
}

#[test]
fn file_with_wrong_format_or_size_is_rejected() {
    let app = ServerConfig::new().with_arguments(&["--max-dataset", "300"]).start();
    let job = |name: &str, options: Value, file: &str| {
        (name.to_string(), form("/jobs", ("job", &options), ("dataset", file, GOOD.as_bytes())))
    };
    let file = |name: &str, content: &[u8]| {
        (name.to_string(), form("/jobs", ("job", &json!({})), ("dataset", "rows", content)))
    };
    let mapped = |columns: Value| json!({"columns": columns});
    let large = format!("{GOOD}{}", &GOOD[11..].repeat(5));
    let refused = |(name, request), code, expected: &str| error_case(name, request, 422, code, expected);
    check_cases(
        &app,
        vec![
            refused(
                file("a text that nothing names", b"once upon a time\nthere was\n"),
                "unknown_format",
                "\"format\"",
            ),
            refused(file("a workbook", b"PK\x03\x04\x14\0\0\0\x08\0"), "damaged_file", "cannot be unpacked"),
            refused(
                file("a picture in a form", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0"),
                "unknown_format",
                "a PNG picture",
            ),
            refused(job("CSV as JSONL", json!({"format": "jsonl"}), "rows.csv"), "invalid_dataset", "5 errors"),
            refused(
                job("a column that is missing", mapped(json!({"label": "category"})), "rows.csv"),
                "invalid_dataset",
                "",
            )
            .with_line(Some(1), "no column \"category\""),
            refused(
                job("a pair that is missing", mapped(json!({"text_pair": "other"})), "rows.csv"),
                "invalid_dataset",
                "",
            )
            .with_line(Some(1), "no column \"other\""),
            refused(
                job("an unknown field", mapped(json!({"sentence": "text"})), "rows.csv"),
                "invalid_dataset",
                "\"text_pair\"",
            ),
            refused(
                job("one column for two", mapped(json!({"label": "text"})), "rows.csv"),
                "invalid_dataset",
                "its own column",
            ),
            error_case("a picture", bytes("/datasets", "image/png", "x"), 422, "unknown_format", "\"csv\""),
            error_case(
                "JSON columns",
                bytes("/datasets", "application/json", "{\"text\": {\"0\": \"a\"}, \"label\": {\"0\": \"x\"}}"),
                422,
                "unknown_format",
                "read_json",
            ),
            error_case(
                "a separator for JSON",
                bytes("/datasets?separator=%3B", "text/csv", "{\"text\": \"a\", \"label\": \"x\"}"),
                422,
                "unknown_format",
                "`separator`",
            ),
            error_case(
                "a format of ours",
                bytes("/datasets?format=xml", "text/csv", GOOD),
                422,
                "invalid_query",
                "`csv`",
            ),
            error_case(
                "too large in a form",
                form("/jobs", ("job", &json!({})), ("dataset", "rows.csv", large.as_bytes())),
                413,
                "too_large",
                "300 bytes",
            ),
            error_case("too large as a body", bytes("/datasets", "text/csv", large), 413, "too_large", "300 bytes"),
        ],
    );
}
