//! Tests of the rows of Parquet files, which the `parquet` crate writes.

use super::*;
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::sync::Arc;

const LIMITS: Limits = Limits { max_bytes: 1 << 20, max_rows: 1000, max_record_bytes: 200, max_labels: 10 };

/// File with the columns `text`, `label`, `tags` (a list) and `score`.
fn parquet_file(rows: &[(&str, i64, &[i64], f64)], compression: Compression) -> File {
    let schema = "message rows {
        required binary text (UTF8);
        optional int64 label;
        required group tags (LIST) { repeated group list { required int64 element; } }
        required double score;
    }";
    let features = r#"{"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"},
        "tags": {"feature": {"names": ["O", "B-x"], "_type": "ClassLabel"}, "_type": "Sequence"},
        "text": {"dtype": "string", "_type": "Value"}}}}"#;
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_key_value_metadata(Some(vec![KeyValue::new("huggingface".to_string(), features.to_string())]))
        .build();
    let file = tempfile::tempfile().unwrap();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(file.try_clone().unwrap(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let texts: Vec<ByteArray> = rows.iter().map(|row| row.0.into()).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
    column.close().unwrap();
    let labels: Vec<i64> = rows.iter().map(|row| row.1).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&labels, Some(&vec![1; rows.len()]), None).unwrap();
    column.close().unwrap();
    let tags: Vec<i64> = rows.iter().flat_map(|row| row.2).copied().collect();
    let repetitions: Vec<i16> =
        rows.iter().flat_map(|row| (0..row.2.len()).map(|index| i16::from(index > 0))).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&tags, Some(&vec![1; tags.len()]), Some(&repetitions)).unwrap();
    column.close().unwrap();
    let scores: Vec<f64> = rows.iter().map(|row| row.3).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<DoubleType>().write_batch(&scores, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    file
}

/// Texts of the rows and codes of their errors, and the code of the file's error.
fn read(file: File, limits: &Limits) -> (Vec<Result<String, &'static str>>, Option<&'static str>) {
    let mut rows = match ParquetRows::open(file, limits).unwrap() {
        Ok(rows) => rows,
        Err(diagnostic) => return (Vec::new(), Some(diagnostic.code)),
    };
    let mut texts = Vec::new();
    while let Some(object) = rows.next_object().unwrap() {
        assert_eq!(object.line, texts.len() as u64 + 1);
        texts.push(object.text.map(Cow::into_owned).map_err(|diagnostic| diagnostic.code));
    }
    (texts, rows.take_file_error().map(|diagnostic| diagnostic.code))
}

#[test]
fn rows_are_json_objects_with_the_names_of_their_classes() {
    let rows: [(&str, i64, &[i64], f64); 3] =
        [("a \"b\"\n", 1, &[0, 1], 0.5), ("c", -1, &[0], f64::NAN), ("d", 7, &[1], 3.0)];
    for compression in [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::GZIP(Default::default()),
        Compression::ZSTD(Default::default()),
    ] {
        let expected = [
            r#"{"text":"a \"b\"\n","label":"pos","tags":["O","B-x"],"score":0.5}"#,
            r#"{"text":"c","label":null,"tags":["O"],"score":null}"#,
            r#"{"text":"d","label":7,"tags":["B-x"],"score":3}"#,
        ];
        assert_eq!(
            read(parquet_file(&rows, compression), &LIMITS),
            (expected.map(|text| Ok(text.to_string())).to_vec(), None)
        );
    }
    let warnings =
        ParquetRows::open(parquet_file(&rows, Compression::SNAPPY), &LIMITS).unwrap().unwrap().take_warnings();
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].1.message.contains("\"neg\", \"pos\""), "{}", warnings[0].1.message);
}

#[test]
fn long_rows_are_errors_and_too_many_bytes_end_the_file() {
    let long = "x".repeat(300);
    let rows: Vec<(&str, i64, &[i64], f64)> = vec![("a", 0, &[0], 1.0), (&long, 0, &[0], 1.0), ("b", 0, &[0], 1.0)];
    let (texts, error) = read(parquet_file(&rows, Compression::SNAPPY), &LIMITS);
    assert_eq!((texts.len(), texts[1].clone(), error), (3, Err("record_too_long"), None));
    let limits = Limits { max_bytes: 300, ..LIMITS };
    assert_eq!(read(parquet_file(&rows, Compression::SNAPPY), &limits).1, Some("too_many_bytes"));
}

#[test]
fn damaged_files_are_refused() {
    use std::io::{Read, Seek, Write};
    let mut bytes = Vec::new();
    let mut file = parquet_file(&[("a text", 1, &[0, 1], 0.5)], Compression::UNCOMPRESSED);
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let with_bytes = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        read(file, &LIMITS)
    };
    for length in [0, 4, 7, 12, bytes.len() / 2, bytes.len() - 1] {
        assert_eq!(with_bytes(&bytes[..length]).1, Some("damaged_file"), "{length}");
    }
    // Every single damaged byte is survived.
    for index in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[index] ^= 0x5A;
        with_bytes(&damaged);
    }
}

#[test]
fn list_that_is_longer_than_a_record_ends_the_file_before_it_is_decoded() {
    let rows: Vec<(&str, i64, &[i64], f64)> = vec![("a", 0, &[0], 1.0), ("b", 0, &[0; 100], 1.0)];
    let (texts, error) = read(parquet_file(&rows, Compression::SNAPPY), &LIMITS);
    let first = r#"{"text":"a","label":"neg","tags":["O"],"score":1}"#.to_string();
    assert_eq!((texts, error), (vec![Ok(first), Err("record_too_long")], None));
    let rows: Vec<(&str, i64, &[i64], f64)> = vec![("a", 0, &[0], 1.0), ("b", 0, &[0; 101], 1.0)];
    let (texts, error) = read(parquet_file(&rows, Compression::SNAPPY), &LIMITS);
    assert_eq!((texts.len(), error), (0, Some("record_too_long")));
}
