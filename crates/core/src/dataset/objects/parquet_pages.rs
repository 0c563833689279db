//! Reader of a Parquet file whose pages are checked before their values are decoded. The decoder allocates as many values as a page
//! declares, and all values of a row's list at once, so a file of a few hundred bytes could take all memory.

use super::parquet_levels::{LongestList, check_deltas};
use super::parquet_page_headers::check_page_headers;
use crate::dataset::options::Limits;
use parquet::basic::{Encoding, Type as PhysicalType};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::{ColumnDescPtr, Type};
use std::fs::File;

/// Bytes that a value takes at least in the text of its row.
const MIN_VALUE_TEXT: u64 = 2;

pub(super) struct CheckedFile {
    reader: SerializedFileReader<File>,
    file: File,
    limits: Limits,
}

impl CheckedFile {
    pub fn open(file: File, limits: &Limits) -> Result<Self> {
        let reader = SerializedFileReader::new(file.try_clone()?)?;
        Ok(Self { reader, file, limits: limits.clone() })
    }

    /// Whether a column has several values per row.
    pub fn has_lists(&self) -> bool {
        let columns = self.metadata().file_metadata().schema_descr().columns();
        columns.iter().any(|column| column.max_rep_level() > 0)
    }
}

impl FileReader for CheckedFile {
    fn metadata(&self) -> &ParquetMetaData {
        self.reader.metadata()
    }

    fn num_row_groups(&self) -> usize {
        self.reader.num_row_groups()
    }

    fn get_row_group(&self, index: usize) -> Result<Box<dyn RowGroupReader + '_>> {
        let row_group = self.reader.get_row_group(index)?;
        Ok(Box::new(CheckedRowGroup { row_group, file: &self.file, limits: &self.limits }))
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_file(projection, self)
    }
}

struct CheckedRowGroup<'a> {
    row_group: Box<dyn RowGroupReader + 'a>,
    file: &'a File,
    limits: &'a Limits,
}

impl RowGroupReader for CheckedRowGroup<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.row_group.metadata()
    }

    fn num_columns(&self) -> usize {
        self.row_group.num_columns()
    }

    fn get_column_page_reader(&self, index: usize) -> Result<Box<dyn PageReader>> {
        let chunk = self.metadata().column(index);
        let column = chunk.column_descr_ptr();
        check_page_headers(self.file, chunk, self.limits.max_bytes)?;
        let pages = self.row_group.get_column_page_reader(index)?;
        let max_values = self.limits.max_record_bytes as u64 / MIN_VALUE_TEXT;
        let lists = LongestList::new(column.max_rep_level(), max_values);
        Ok(Box::new(CheckedPages { pages, lists, column }))
    }

    fn get_column_bloom_filter(&self, index: usize) -> Option<&Sbbf> {
        self.row_group.get_column_bloom_filter(index)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>> {
        RowIter::from_row_group(projection, self)
    }
}

struct CheckedPages {
    pages: Box<dyn PageReader>,
    column: ColumnDescPtr,
    lists: LongestList,
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl CheckedPages {
    fn check(&mut self, page: &Page) -> Result<()> {
        let (repetition_levels, values, encoding) = match page {
            Page::DictionaryPage { .. } => return Ok(()),
            Page::DataPage { buf, encoding, def_level_encoding, rep_level_encoding, .. } => {
                let (repetition, rest) = split_levels(buf, self.column.max_rep_level(), *rep_level_encoding)?;
                let (_, values) = split_levels(rest, self.column.max_def_level(), *def_level_encoding)?;
                (repetition, values, *encoding)
            }
            Page::DataPageV2 { buf, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let (repetition, rest) = split(buf, *rep_levels_byte_len as usize)?;
                let (_, values) = split(rest, *def_levels_byte_len as usize)?;
                (repetition, values, *encoding)
            }
        };
        let value_count = u64::from(page.num_values());
        if self.column.max_rep_level() > 0 {
            self.lists.check(repetition_levels, value_count)?;
        }
        let is_text =
            matches!(self.column.physical_type(), PhysicalType::BYTE_ARRAY | PhysicalType::FIXED_LEN_BYTE_ARRAY);
        match encoding {
            Encoding::DELTA_LENGTH_BYTE_ARRAY if is_text => check_deltas(values, value_count, 1),
            Encoding::DELTA_BYTE_ARRAY if is_text => check_deltas(values, value_count, 2),
            _ => Ok(()),
        }
    }
}

/// Levels of a page of version 1 and what follows them; a column without levels has none.
fn split_levels(page: &[u8], max_level: i16, encoding: Encoding) -> Result<(&[u8], &[u8])> {
    if max_level == 0 {
        return Ok((&[], page));
    }
    match (encoding, page.split_first_chunk::<4>()) {
        (Encoding::RLE, Some((length, rest))) => split(rest, u32::from_le_bytes(*length) as usize),
        (Encoding::RLE, None) => Err(ParquetError::EOF("a page ends in its levels".to_string())),
        (other, _) => Err(ParquetError::NYI(format!("levels in the encoding {other}"))),
    }
}

fn split(page: &[u8], length: usize) -> Result<(&[u8], &[u8])> {
    page.split_at_checked(length).ok_or_else(|| ParquetError::EOF("a page ends in its levels".to_string()))
}
