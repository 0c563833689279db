//! Depth of a Parquet file's schema. The decoder reads the schema recursively and without a limit, so a hostile file would overflow
//! its stack.
//!
//! The footer is a `FileMetaData` in Thrift's compact protocol, and its second field is the list of the schema's elements in
//! depth-first order.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Largest footer: every column and row group has an entry in it.
const MAX_FOOTER_BYTES: u64 = 64 << 20;
/// Deepest nesting of columns; a list takes two levels.
const MAX_DEPTH: usize = 64;
/// Length of the footer and mark at the end of the file.
const TRAILER_BYTES: u64 = 8;

const DAMAGED_FOOTER: &str = "its footer cannot be read";

/// Result of parsing; the error is a reason.
type Parsed<T> = Result<T, &'static str>;

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

fn check_footer(footer: &[u8]) -> Parsed<()> {
    let mut reader = CompactReader(footer);
    let mut field = 0;
    loop {
        let (id, kind) = reader.field_header(&mut field)?.ok_or(DAMAGED_FOOTER)?;
        if id == 2 && kind == LIST {
            return reader.check_schema();
        }
        reader.skip(kind, 0)?;
    }
}

const I32: u8 = 5;
const LIST: u8 = 9;

/// Reader of Thrift's compact protocol.
struct CompactReader<'a>(&'a [u8]);

impl CompactReader<'_> {
    /// Follows the children's counts of the schema's elements.
    fn check_schema(&mut self) -> Parsed<()> {
        let (count, _) = self.list_header()?;
        // Children that are still to come, on each level.
        let mut open: Vec<u64> = Vec::new();
        for _ in 0..count {
            while open.last() == Some(&0) {
                open.pop();
            }
            if let Some(remaining) = open.last_mut() {
                *remaining -= 1;
            }
            let children = self.element_children()?;
            if children > 0 {
                open.push(children);
            }
            if open.len() > MAX_DEPTH {
                return Err("its columns are nested too deeply");
            }
        }
        Ok(())
    }

    /// Reads a schema element and returns the number of its children, which is field 5.
    fn element_children(&mut self) -> Parsed<u64> {
        let (mut field, mut children) = (0, 0);
        while let Some((id, kind)) = self.field_header(&mut field)? {
            if id == 5 && kind == I32 {
                let zigzag = self.varint()?;
                children = if zigzag % 2 == 0 { zigzag / 2 } else { 0 };
            } else {
                self.skip(kind, 0)?;
            }
        }
        Ok(children)
    }

    fn byte(&mut self) -> Parsed<u8> {
        let (first, rest) = self.0.split_first().ok_or(DAMAGED_FOOTER)?;
        self.0 = rest;
        Ok(*first)
    }

    fn varint(&mut self) -> Parsed<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DAMAGED_FOOTER)
    }

    /// Number and type of the next field of a struct; `None` at its end.
    fn field_header(&mut self, last_id: &mut i64) -> Parsed<Option<(i64, u8)>> {
        let byte = self.byte()?;
        if byte == 0 {
            return Ok(None);
        }
        *last_id = match i64::from(byte >> 4) {
            0 => {
                let zigzag = self.varint()?;
                (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
            }
            delta => last_id.checked_add(delta).ok_or(DAMAGED_FOOTER)?,
        };
        Ok(Some((*last_id, byte & 0x0F)))
    }

    /// Number and type of a list's elements.
    fn list_header(&mut self) -> Parsed<(u64, u8)> {
        let byte = self.byte()?;
        let count = match byte >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        Ok((count, byte & 0x0F))
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Parsed<()> {
        if depth > MAX_DEPTH {
            return Err(DAMAGED_FOOTER);
        }
        match kind {
            // Booleans, whose value is their type in a field.
            1 | 2 => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => (0..8).try_for_each(|_| self.byte().map(drop))?,
            8 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                self.0 = self.0.get(length..).ok_or(DAMAGED_FOOTER)?;
            }
            9 | 10 => {
                let (count, kind) = self.list_header()?;
                // In lists, a boolean takes a byte.
                let kind = if kind <= 2 { 3 } else { kind };
                (0..count).try_for_each(|_| self.skip(kind, depth + 1))?;
            }
            12 => {
                let mut field = 0;
                while let Some((_, kind)) = self.field_header(&mut field)? {
                    self.skip(kind, depth + 1)?;
                }
            }
            _ => return Err(DAMAGED_FOOTER),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Footer with a chain of groups, each with one child.
    fn nested_footer(depth: u8) -> Vec<u8> {
        // Version 2, and a list of structs.
        let mut footer = vec![0x15, 4, 0x19, 0xFC, depth];
        for level in 0..depth {
            let children = if level + 1 < depth { 2 } else { 0 };
            // Name (field 4) and number of children (field 5).
            footer.extend([0x48, 1, b'a', 0x15, children, 0]);
        }
        footer.push(0);
        footer
    }

    #[test]
    fn depth_of_the_schema_is_limited() {
        assert_eq!(check_footer(&nested_footer(60)), Ok(()));
        assert_eq!(check_footer(&nested_footer(100)), Err("its columns are nested too deeply"));
    }

    #[test]
    fn damaged_footers_are_refused() {
        let footer = nested_footer(20);
        for length in 0..footer.len() - 1 {
            assert!(check_footer(&footer[..length]).is_err(), "{length}");
        }
        // A list of lists without end.
        assert!(check_footer(&[0x19; 1000].map(|byte| byte)).is_err());
    }
}
