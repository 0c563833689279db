//! Depth of a Parquet file's schema. The decoder reads the schema recursively and without a limit, so a hostile file would overflow
//! its stack.
//!
//! The footer is a `FileMetaData` in Thrift's compact protocol, and its second field is the list of the schema's elements in
//! depth-first order.

use super::thrift_reader::Type::{Binary, Bool, Byte, Double, Integer, List};
use super::thrift_reader::{CompactReader, Event, Parsed, Struct, Type};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Largest footer: every column and row group has an entry in it.
const MAX_FOOTER_BYTES: u64 = 64 << 20;
/// Deepest nesting of columns; a list takes two levels.
const MAX_DEPTH: usize = 64;
/// Length of the footer and mark at the end of the file.
const TRAILER_BYTES: u64 = 8;

const DAMAGED_FOOTER: &str = "its footer cannot be read";

const ELEMENT: &str = "SchemaElement";
/// Number of an element's children.
const CHILDREN: i64 = 5;

static FOOTER: Struct = Struct {
    name: "FileMetaData",
    fields: &[
        (1, Integer),
        (2, List(&Type::Struct(&SCHEMA_ELEMENT))),
        (3, Integer),
        (4, List(&Type::Struct(&ROW_GROUP))),
        (5, List(&Type::Struct(&KEY_VALUE))),
        (6, Binary),
        (7, List(&Type::Struct(&COLUMN_ORDER))),
    ],
};

static SCHEMA_ELEMENT: Struct = Struct {
    name: ELEMENT,
    fields: &[
        (1, Integer),
        (2, Integer),
        (3, Integer),
        (4, Binary),
        (CHILDREN, Integer),
        (6, Integer),
        (7, Integer),
        (8, Integer),
        (9, Integer),
        (10, Type::Struct(&LOGICAL_TYPE)),
    ],
};

/// A union; types without parameters are empty structs.
static LOGICAL_TYPE: Struct = Struct {
    name: "LogicalType",
    fields: &[
        (1, Type::Struct(&EMPTY)),
        (2, Type::Struct(&EMPTY)),
        (3, Type::Struct(&EMPTY)),
        (4, Type::Struct(&EMPTY)),
        (5, Type::Struct(&Struct { name: "DecimalType", fields: &[(1, Integer), (2, Integer)] })),
        (6, Type::Struct(&EMPTY)),
        (7, Type::Struct(&TIME_TYPE)),
        (8, Type::Struct(&TIME_TYPE)),
        (10, Type::Struct(&Struct { name: "IntType", fields: &[(1, Byte), (2, Bool)] })),
        (11, Type::Struct(&EMPTY)),
        (12, Type::Struct(&EMPTY)),
        (13, Type::Struct(&EMPTY)),
        (14, Type::Struct(&EMPTY)),
        (15, Type::Struct(&EMPTY)),
        (16, Type::Struct(&Struct { name: "VariantType", fields: &[(1, Byte)] })),
        (17, Type::Struct(&Struct { name: "GeometryType", fields: &[(1, Binary)] })),
        (18, Type::Struct(&Struct { name: "GeographyType", fields: &[(1, Binary), (2, Integer)] })),
    ],
};

static TIME_TYPE: Struct = Struct { name: "TimeType", fields: &[(1, Bool), (2, Type::Struct(&TIME_UNIT))] };

static TIME_UNIT: Struct = Struct {
    name: "TimeUnit",
    fields: &[(1, Type::Struct(&EMPTY)), (2, Type::Struct(&EMPTY)), (3, Type::Struct(&EMPTY))],
};

static COLUMN_ORDER: Struct =
    Struct { name: "ColumnOrder", fields: &[(1, Type::Struct(&EMPTY)), (2, Type::Struct(&EMPTY))] };

static EMPTY: Struct = Struct { name: "Empty", fields: &[] };

static KEY_VALUE: Struct = Struct { name: "KeyValue", fields: &[(1, Binary), (2, Binary)] };

static ROW_GROUP: Struct = Struct {
    name: "RowGroup",
    fields: &[
        (1, List(&Type::Struct(&COLUMN_CHUNK))),
        (2, Integer),
        (3, Integer),
        (4, List(&Type::Struct(&SORTING_COLUMN))),
        (5, Integer),
        (6, Integer),
        (7, Integer),
    ],
};

static SORTING_COLUMN: Struct = Struct { name: "SortingColumn", fields: &[(1, Integer), (2, Bool), (3, Bool)] };

static COLUMN_CHUNK: Struct = Struct {
    name: "ColumnChunk",
    fields: &[
        (1, Binary),
        (2, Integer),
        (3, Type::Struct(&COLUMN_METADATA)),
        (4, Integer),
        (5, Integer),
        (6, Integer),
        (7, Integer),
    ],
};

static COLUMN_METADATA: Struct = Struct {
    name: "ColumnMetaData",
    fields: &[
        (1, Integer),
        (2, List(&Integer)),
        (3, List(&Binary)),
        (4, Integer),
        (5, Integer),
        (6, Integer),
        (7, Integer),
        (8, List(&Type::Struct(&KEY_VALUE))),
        (9, Integer),
        (10, Integer),
        (11, Integer),
        (12, Type::Struct(&STATISTICS)),
        (13, List(&Type::Struct(&ENCODING_STATISTICS))),
        (14, Integer),
        (15, Integer),
        (16, Type::Struct(&SIZE_STATISTICS)),
        (17, Type::Struct(&GEOSPATIAL_STATISTICS)),
    ],
};

/// Statistics of a column chunk, and of a page.
pub(super) static STATISTICS: Struct = Struct {
    name: "Statistics",
    fields: &[
        (1, Binary),
        (2, Binary),
        (3, Integer),
        (4, Integer),
        (5, Binary),
        (6, Binary),
        (7, Bool),
        (8, Bool),
        (9, Integer),
    ],
};

static ENCODING_STATISTICS: Struct =
    Struct { name: "PageEncodingStats", fields: &[(1, Integer), (2, Integer), (3, Integer)] };

static SIZE_STATISTICS: Struct =
    Struct { name: "SizeStatistics", fields: &[(1, Integer), (2, List(&Integer)), (3, List(&Integer))] };

static GEOSPATIAL_STATISTICS: Struct =
    Struct { name: "GeospatialStatistics", fields: &[(1, Type::Struct(&BOUNDING_BOX)), (2, List(&Integer))] };

static BOUNDING_BOX: Struct = Struct {
    name: "BoundingBox",
    fields: &[(1, Double), (2, Double), (3, Double), (4, Double), (5, Double), (6, Double), (7, Double), (8, Double)],
};

/// Checks the depth of the schema; the inner error is the reason why the file is refused.
pub(super) fn check_schema_depth(file: &File) -> io::Result<Parsed<()>> {
    let mut file = file;
    let file_bytes = file.seek(SeekFrom::End(0))?;
    if file_bytes < TRAILER_BYTES {
        return Ok(Err("it is too short"));
    }
    file.seek(SeekFrom::End(-(TRAILER_BYTES as i64)))?;
    let mut trailer = [0; TRAILER_BYTES as usize];
    file.read_exact(&mut trailer)?;
    let [a, b, c, d, mark @ ..] = trailer;
    let footer_bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
    if mark != *b"PAR1" {
        return Ok(Err("its end is missing"));
    }
    if footer_bytes > MAX_FOOTER_BYTES.min(file_bytes - TRAILER_BYTES) {
        return Ok(Err(DAMAGED_FOOTER));
    }
    file.seek(SeekFrom::Start(file_bytes - TRAILER_BYTES - footer_bytes))?;
    let mut footer = Vec::new();
    file.take(footer_bytes).read_to_end(&mut footer)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(check_footer(&footer))
}

/// Follows the children's counts of the schema's elements.
fn check_footer(footer: &[u8]) -> Parsed<()> {
    // Children that are still to come, on each level.
    let mut open: Vec<i64> = Vec::new();
    let mut children = 0;
    CompactReader(footer).read_struct(&FOOTER, &mut |name, event| {
        match event {
            Event::Integer(CHILDREN, count) if name == ELEMENT => children = count,
            Event::End if name == ELEMENT => {
                while open.last() == Some(&0) {
                    open.pop();
                }
                if let Some(remaining) = open.last_mut() {
                    *remaining -= 1;
                }
                if children > 0 {
                    open.push(children);
                }
                children = 0;
            }
            Event::Integer(..) | Event::End => {}
        }
        if open.len() > MAX_DEPTH { Err("its columns are nested too deeply") } else { Ok(()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Footer with a chain of groups, each with one child. `children` is the type of the children's count.
    fn nested_footer(depth: u8, children: u8) -> Vec<u8> {
        // Version 2, and a list of structs.
        let mut footer = vec![0x15, 4, 0x19, 0xFC, depth];
        for level in 0..depth {
            let count = if level + 1 < depth { 2 } else { 0 };
            // Name (field 4) and number of children (field 5).
            footer.extend([0x48, 1, b'a', 0x10 | children, count, 0]);
        }
        footer.push(0);
        footer
    }

    #[test]
    fn depth_of_the_schema_is_limited() {
        assert_eq!(check_footer(&nested_footer(60, 5)), Ok(()));
        assert_eq!(check_footer(&nested_footer(100, 5)), Err("its columns are nested too deeply"));
        // The decoder takes every type of integer for the count, and would read other types as one.
        assert_eq!(check_footer(&nested_footer(100, 6)), Err("its columns are nested too deeply"));
        assert!(check_footer(&nested_footer(100, 3)).is_err());
        // A second schema after the first.
        let mut second = nested_footer(1, 5);
        second.pop();
        second.extend([0x09, 4]);
        second.extend(&nested_footer(100, 5)[3..]);
        assert!(check_footer(&second).is_err());
    }

    #[test]
    fn damaged_footers_are_refused() {
        let footer = nested_footer(20, 5);
        for length in 0..footer.len() - 1 {
            assert!(check_footer(&footer[..length]).is_err(), "{length}");
        }
    }
}
