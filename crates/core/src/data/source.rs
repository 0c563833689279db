//! The file's bytes, line by line, with their places. Knows nothing of what a line means.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// A long line comes in pieces of this size.
const PIECE_BYTES: u64 = 64 * 1024;
const BYTE_ORDER_MARK: [u8; 3] = [0xEF, 0xBB, 0xBF];

/// A place to read on from: the start of a line, or inside a long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub offset: u64,
    pub line: u64,
}

/// A file with UTF-8's byte order mark taken off.
pub(super) struct Source {
    reader: BufReader<File>,
    place: Place,
    bytes: u64,
    /// Bytes of the mark: columns of the first line are counted with it.
    mark: usize,
}

impl Source {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut source = Self { reader: BufReader::new(file), place: Place { offset: 0, line: 1 }, bytes, mark: 0 };
        let start = source.start()?;
        if start == BYTE_ORDER_MARK {
            source.mark = start.len();
            source.go_to(Place { offset: start.len() as u64, line: 1 })?;
        }
        Ok(source)
    }

    /// The size of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn place(&self) -> Place {
        self.place
    }

    /// Whether the file begins with the byte order mark of UTF-16.
    pub fn is_utf16(&mut self) -> io::Result<bool> {
        let here = self.place;
        let start = self.start()?;
        self.go_to(here)?;
        Ok(start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]))
    }

    /// Appends the rest of the line with its end, or a piece of it where it is long. Answers how many bytes came: none
    /// at the end of the file.
    pub fn piece(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        let count = self.reader.by_ref().take(PIECE_BYTES).read_until(b'\n', into)?;
        self.place.offset += count as u64;
        if count > 0 && into.last() == Some(&b'\n') {
            self.place.line += 1;
        }
        Ok(count)
    }

    /// Leaves the rest of the line unread.
    pub fn skip_line(&mut self) -> io::Result<()> {
        let count = self.reader.skip_until(b'\n')?;
        self.place.offset += count as u64;
        if count > 0 {
            self.place.line += 1;
        }
        Ok(())
    }

    pub fn go_to(&mut self, place: Place) -> io::Result<()> {
        self.reader.seek(SeekFrom::Start(place.offset))?;
        self.place = place;
        Ok(())
    }

    /// The number, from 1, of the byte at `index` of a line whose content was read from its beginning.
    pub fn column(&self, line: u64, index: usize) -> usize {
        index + 1 + if line == 1 { self.mark } else { 0 }
    }

    /// The file's first three bytes; the place is the file's start afterwards.
    fn start(&mut self) -> io::Result<Vec<u8>> {
        let beginning = Place { offset: 0, line: 1 };
        self.go_to(beginning)?;
        let mut start = Vec::with_capacity(BYTE_ORDER_MARK.len());
        self.reader.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut start)?;
        self.go_to(beginning)?;
        Ok(start)
    }
}

/// Cuts the line's end off: `\n` or `\r\n`, or a last `\r` at the end of the file.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
