//! Counts of values in the pages of a Parquet file: those of a row's list, in the repetition levels, and those of texts that are
//! written as differences.

use super::thrift_reader::{CompactReader, Parsed};
use parquet::errors::{ParquetError, Result};
use std::fmt;

/// Largest block of differences; usual writers take 128.
const MAX_BLOCK_VALUES: u64 = 1 << 20;

/// Counts the values of the longest list. A repetition level of 0 begins a row.
pub(super) struct LongestList {
    level_bits: u32,
    /// Values of the row so far.
    values: u64,
    max_values: u64,
}

/// Error for a row with too many values.
#[derive(Debug)]
pub(super) struct LongList {
    max_values: u64,
}

impl fmt::Display for LongList {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a row has a list of more than {} values: shorten it", self.max_values)
    }
}

impl std::error::Error for LongList {}

impl LongestList {
    pub fn new(max_level: i16, max_values: u64) -> Self {
        let level_bits = u16::BITS - max_level.unsigned_abs().leading_zeros();
        Self { level_bits, values: 0, max_values }
    }

    /// Reads the levels of a page, which are runs of one level and groups of 8 packed levels in turn.
    ///
    /// # Errors
    /// [`LongList`].
    pub fn check(&mut self, levels: &[u8], count: u64) -> Result<()> {
        let mut reader = CompactReader(levels);
        let mut remaining = count;
        while remaining > 0 && !reader.0.is_empty() {
            let read = self.read_run(&mut reader, remaining).map_err(|reason| ParquetError::EOF(reason.to_string()))?;
            remaining -= read;
            if self.values > self.max_values {
                return Err(ParquetError::External(Box::new(LongList { max_values: self.max_values })));
            }
        }
        Ok(())
    }

    /// Reads a run of at most `remaining` levels and returns their number.
    fn read_run(&mut self, reader: &mut CompactReader<'_>, remaining: u64) -> Parsed<u64> {
        let header = reader.varint()?;
        let levels = reader.0;
        if header & 1 == 0 {
            let bytes = self.level_bits.div_ceil(8) as usize;
            reader.skip_bytes(bytes as u64)?;
            let count = (header >> 1).min(remaining);
            if levels[..bytes].iter().any(|byte| *byte != 0) {
                self.values += count;
            } else if count > 0 {
                self.values = 1;
            }
            return Ok(count);
        }
        let bits = u64::from(self.level_bits);
        let available = (levels.len() as u64 * 8) / bits.max(1);
        let count = (header >> 1).saturating_mul(8).min(remaining).min(available);
        for index in 0..count {
            let is_zero =
                (index * bits..(index + 1) * bits).all(|bit| levels[(bit / 8) as usize] >> (bit % 8) & 1 == 0);
            self.values = if is_zero { 1 } else { self.values + 1 };
            if self.values > self.max_values {
                break;
            }
        }
        reader.skip_bytes((header >> 1).saturating_mul(bits).min(levels.len() as u64))?;
        Ok(count)
    }
}

/// Checks that a page of texts declares no more lengths than it has values. Pages whose texts share prefixes begin with two sequences
/// of lengths.
pub(super) fn check_deltas(values: &[u8], count: u64, sequences: usize) -> Result<()> {
    let mut reader = CompactReader(values);
    (0..sequences)
        .try_for_each(|_| skip_deltas(&mut reader, count))
        .map_err(|reason| ParquetError::General(reason.to_string()))
}

/// Skips numbers in the encoding DELTA_BINARY_PACKED.
fn skip_deltas(reader: &mut CompactReader<'_>, max_count: u64) -> Parsed<()> {
    let (block, blocks, count) = (reader.varint()?, reader.varint()?, reader.varint()?);
    reader.varint()?;
    if count > max_count {
        return Err("a page declares more lengths than it has values");
    }
    if blocks == 0 || block > MAX_BLOCK_VALUES || block % 128 != 0 || block % blocks != 0 || (block / blocks) % 32 != 0
    {
        return Err("a page has blocks of a wrong size");
    }
    let block_values = block / blocks;
    let mut remaining = count.saturating_sub(1);
    while remaining > 0 {
        reader.varint()?;
        let widths = reader.0;
        reader.skip_bytes(blocks)?;
        for width in widths.iter().take(blocks as usize) {
            if remaining == 0 {
                break;
            }
            remaining = remaining.saturating_sub(block_values);
            reader.skip_bytes(u64::from(*width) * block_values / 8)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(pages: &[(&[u8], u64)], max_values: u64) -> bool {
        let mut lists = LongestList::new(1, max_values);
        pages.iter().try_for_each(|(levels, count)| lists.check(levels, *count)).is_ok()
    }

    #[test]
    fn values_of_a_list_are_counted_over_runs_and_pages() {
        // A run of 3 zeros, then one of 1,000 ones: the last row has 1,001 values.
        let levels = [6, 0, 0xD0, 0x0F, 1];
        assert!(longest(&[(&levels, 1003)], 1001) && !longest(&[(&levels, 1003)], 1000));
        assert!(!longest(&[(&levels, 503), (&[0xD0, 0x0F, 1], 1000)], 1000));
        // Eight packed levels: 0 1 1 0 1 1 1 1.
        assert!(longest(&[(&[3, 0b1111_0110], 8)], 5) && !longest(&[(&[3, 0b1111_0110], 8)], 4));
        assert!(longest(&[(&[3, 0b1111_0110], 7)], 4));
        // A run of 2^40 ones in a page with 10 values, groups that end early, and runs without levels.
        assert!(longest(&[(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 1], 10)], 10));
        assert!(longest(&[(&[0xFF, 0xFF, 0x03, 0], 1000), (&[0, 1, 0, 1], 5)], 8));
        assert!(!longest(&[(&[6], 10)], 10));
    }

    #[test]
    fn lengths_are_no_more_than_values() {
        // Blocks of 128 in 4 parts; 3 values from 2 on, in a block of widths 1, 0, 0 and 0.
        let deltas = [0x80, 1, 4, 3, 4, 0, 1, 0, 0, 0, 0b10, 0, 0, 0];
        assert!(check_deltas(&deltas, 3, 1).is_ok());
        assert!(check_deltas(&deltas, 2, 1).is_err());
        assert!(check_deltas(&deltas, 3, 2).is_err());
        assert!(check_deltas(&[deltas, deltas].concat(), 3, 2).is_ok());
        let many = [0x80, 1, 4, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 4];
        assert!(check_deltas(&[&deltas, many.as_slice()].concat(), 3, 2).is_err());
        assert!(check_deltas(&[0x80, 1, 0, 3, 4], 3, 1).is_err());
        assert!(check_deltas(&deltas[..9], 3, 1).is_err());
    }
}
