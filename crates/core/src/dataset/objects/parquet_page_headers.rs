//! Headers of a Parquet file's pages, which are checked before the pages are decoded: the decoder allocates the bytes and values that
//! they declare.

use super::parquet_schema::STATISTICS;
use super::thrift_reader::Type::{Bool, Integer};
use super::thrift_reader::{CompactReader, Event, Parsed, Struct, Type};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Largest page; usual writers begin another one after 1 MiB.
const MAX_PAGE_BYTES: u64 = 128 << 20;
/// Most bytes that a value of one byte in the text of its row has in a page.
const MAX_VALUE_BYTES: u64 = 8;
/// Values of a page, and of a dictionary.
const MAX_VALUES: i64 = 1 << 24;
const MAX_DICTIONARY_VALUES: i64 = 1 << 22;
/// Bytes that are read for a header. One with long statistics is read again, whole.
const HEADER_BYTES: u64 = 1 << 12;
const MAX_HEADER_BYTES: u64 = 1 << 24;
/// Shortest value of a dictionary, which is an integer of 32 bits or a text without bytes.
const MIN_VALUE_BYTES: i64 = 4;

static PAGE: Struct = Struct {
    name: "PageHeader",
    fields: &[
        (1, Integer),
        (2, Integer),
        (3, Integer),
        (4, Integer),
        (5, Type::Struct(&DATA_PAGE)),
        (6, Type::Struct(&Struct { name: "IndexPageHeader", fields: &[] })),
        (7, Type::Struct(&DICTIONARY_PAGE)),
        (8, Type::Struct(&DATA_PAGE_V2)),
    ],
};

static DATA_PAGE: Struct = Struct {
    name: "DataPageHeader",
    fields: &[(1, Integer), (2, Integer), (3, Integer), (4, Integer), (5, Type::Struct(&STATISTICS))],
};

static DICTIONARY_PAGE: Struct =
    Struct { name: "DictionaryPageHeader", fields: &[(1, Integer), (2, Integer), (3, Bool)] };

static DATA_PAGE_V2: Struct = Struct {
    name: "DataPageHeaderV2",
    fields: &[
        (1, Integer),
        (2, Integer),
        (3, Integer),
        (4, Integer),
        (5, Integer),
        (6, Integer),
        (7, Bool),
        (8, Type::Struct(&STATISTICS)),
    ],
};

/// What the header of a page declares.
#[derive(Debug, Default, PartialEq, Eq)]
struct PageSizes {
    header_bytes: u64,
    compressed_bytes: i64,
    uncompressed_bytes: i64,
    /// Values of a page that is a dictionary.
    dictionary_values: i64,
    /// Values of another page.
    values: i64,
}

/// Checks the headers of a column chunk.
pub(super) fn check_page_headers(file: &File, chunk: &ColumnChunkMetaData, max_text_bytes: u64) -> Result<()> {
    let max_page_bytes = MAX_PAGE_BYTES.min(max_text_bytes.saturating_mul(MAX_VALUE_BYTES)) as i64;
    let damaged = |reason: &str| ParquetError::General(reason.to_string());
    let (mut offset, length) = chunk.byte_range();
    let end = offset.checked_add(length).ok_or_else(|| damaged("a column has no end"))?;
    while offset < end {
        let sizes = read_header(file, offset, end - offset)?;
        let PageSizes { compressed_bytes, uncompressed_bytes, dictionary_values, values, .. } = sizes;
        if compressed_bytes < 0 || uncompressed_bytes < 0 || dictionary_values < 0 || values < 0 {
            return Err(damaged("a page has a negative size"));
        }
        if uncompressed_bytes > max_page_bytes || compressed_bytes > max_page_bytes {
            return Err(ParquetError::NYI(format!("pages of more than {max_page_bytes} bytes")));
        }
        if dictionary_values > uncompressed_bytes / MIN_VALUE_BYTES {
            return Err(damaged("a dictionary declares more values than it has bytes for"));
        }
        if values > MAX_VALUES || dictionary_values > MAX_DICTIONARY_VALUES {
            let reason =
                format!("pages of more than {MAX_VALUES} values, dictionaries of more than {MAX_DICTIONARY_VALUES}");
            return Err(ParquetError::NYI(reason));
        }
        offset += sizes.header_bytes + compressed_bytes as u64;
    }
    Ok(())
}

fn read_header(file: &File, offset: u64, remaining: u64) -> Result<PageSizes> {
    let mut header = vec![0; remaining.min(HEADER_BYTES) as usize];
    let count = read_at(file, &mut header, offset)?;
    if let Ok(sizes) = parse_header(&header[..count]) {
        return Ok(sizes);
    }
    header.resize(remaining.min(MAX_HEADER_BYTES) as usize, 0);
    let count = read_at(file, &mut header, offset)?;
    parse_header(&header[..count]).map_err(|reason| ParquetError::General(reason.to_string()))
}

/// Reads as many bytes as the file has.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match file.read_at(&mut buffer[count..], offset + count as u64)? {
            0 => break,
            read => count += read,
        }
    }
    Ok(count)
}

fn parse_header(header: &[u8]) -> Parsed<PageSizes> {
    let mut sizes = PageSizes::default();
    let mut reader = CompactReader(header);
    reader.read_struct(&PAGE, &mut |name, event| {
        match (name, event) {
            ("PageHeader", Event::Integer(2, bytes)) => sizes.uncompressed_bytes = bytes,
            ("PageHeader", Event::Integer(3, bytes)) => sizes.compressed_bytes = bytes,
            ("DictionaryPageHeader", Event::Integer(1, values)) => sizes.dictionary_values = values,
            ("DataPageHeader" | "DataPageHeaderV2", Event::Integer(1, values)) => {
                sizes.values = sizes.values.max(values);
            }
            _ => {}
        }
        Ok(())
    })?;
    sizes.header_bytes = (header.len() - reader.0.len()) as u64;
    Ok(sizes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::schema::parser::parse_message_type;
    use parquet::schema::types::SchemaDescriptor;
    use std::io::Write;
    use std::sync::Arc;

    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        bytes.push(value as u8);
        bytes
    }

    /// Header of a page without content: its type, its size, and the header of this field with its values.
    fn page(kind: u64, uncompressed_bytes: u64, field: u8, values: u64) -> Vec<u8> {
        let mut header = vec![0x15, 2 * kind as u8, 0x15];
        header.extend(varint(2 * uncompressed_bytes));
        // No compressed bytes; then the struct, with its first field.
        header.extend([0x15, 0, (field - 3) << 4 | 0x0C, 0x15]);
        header.extend(varint(2 * values));
        header.extend([0, 0]);
        header
    }

    fn check(bytes: &[u8]) -> Result<()> {
        check_within(bytes, 1 << 40)
    }

    fn check_within(bytes: &[u8], max_text_bytes: u64) -> Result<()> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let schema = parse_message_type("message rows { required binary text; }").unwrap();
        let column = SchemaDescriptor::new(Arc::new(schema)).column(0);
        let chunk = ColumnChunkMetaData::builder(column).set_total_compressed_size(bytes.len() as i64).build().unwrap();
        check_page_headers(&file, &chunk, max_text_bytes)
    }

    #[test]
    fn sizes_that_no_page_has_are_refused() {
        assert!(check(&[page(2, 40, 7, 10), page(0, 100, 5, 1000)].concat()).is_ok());
        for (page, reason) in [
            (page(0, 1 << 30, 5, 10), "134217728 bytes"),
            (page(0, 100, 5, 1 << 30), "16777216 values"),
            (page(3, 100, 8, 1 << 30), "16777216 values"),
            (page(2, 40, 7, 11), "more values than it has bytes"),
            (page(2, 100 << 20, 7, 5 << 20), "dictionaries of more than"),
            // An uncompressed size of -1.
            (vec![0x15, 0, 0x15, 1, 0x15, 0, 0], "negative"),
        ] {
            let error = check(&page).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn page_is_no_longer_than_the_text_of_its_values_allows() {
        assert!(check_within(&page(0, 800, 5, 10), 100).is_ok());
        assert!(check_within(&page(0, 801, 5, 10), 100).unwrap_err().to_string().contains("800 bytes"));
    }

    #[test]
    fn headers_may_be_long_and_must_be_whole() {
        let mut long = page(0, 100, 5, 10);
        long.truncate(long.len() - 2);
        // Statistics (field 5) with a long largest value.
        long.extend([0x4C, 0x18]);
        long.extend(varint(10_000));
        long.extend([b'a'; 10_000]);
        long.extend([0, 0, 0]);
        assert_eq!(parse_header(&long).unwrap().header_bytes, long.len() as u64);
        assert!(check(&long).is_ok());
        assert!(check(&long[..9000]).is_err());
    }
}
