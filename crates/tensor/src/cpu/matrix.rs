//! Matrices in host memory, whose blocks are used again: a training step makes the same few hundred each time, and
//! fresh pages from the operating system would cost more than the arithmetic on small ones.
//!
//! Every block starts on a cache line and has sixteen numbers to spare at its end, so that a row's last lanes may be
//! read, and written, past the row's own end. Knows nothing of what is computed.

use super::huge_page_arena::ArenaSlice;
use super::simd::LANES;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A cache line.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct CacheLine(pub [f32; LANES]);

impl CacheLine {
    pub const ZERO: Self = Self([0.0; LANES]);
}

/// Blocks that nobody uses any more, by their size, on the thread that used them last.
#[derive(Default)]
struct BufferPool {
    free_buffers: BTreeMap<usize, Vec<Vec<CacheLine>>>,
    pooled_lines: usize,
}

/// What a thread keeps at most: 64 MiB.
const MAX_POOLED_LINES: usize = 1 << 20;

thread_local! {
    static BUFFER_POOL: RefCell<BufferPool> = RefCell::default();
}

/// `(rows, width)`, being written by one thread.
#[derive(Debug)]
pub struct MatrixBuf {
    allocation: Allocation,
    rows: usize,
    width: usize,
}

/// `(rows, width)`, row after row, shared and never changed again. A view of some rows costs nothing.
#[derive(Debug, Clone)]
pub struct Matrix {
    allocation: Arc<Allocation>,
    /// First number of the first row.
    offset: usize,
    rows: usize,
    width: usize,
}

#[derive(Debug)]
enum Allocation {
    /// Goes to the shelf when nobody uses it any more.
    Pooled(Vec<CacheLine>),
    /// Of exactly its size, and freed: for what is there for a while.
    Owned(Box<[CacheLine]>),
    Arena(ArenaSlice),
}

impl Allocation {
    fn new(len: usize) -> Self {
        let lines = size_class(len.div_ceil(LANES) + 1);
        let pooled = BUFFER_POOL.try_with(|pool| pool.borrow_mut().acquire(lines)).ok().flatten();
        Self::Pooled(pooled.unwrap_or_else(|| vec![CacheLine::ZERO; lines]))
    }

    fn lines(&self) -> &[CacheLine] {
        match self {
            Self::Pooled(lines) => lines,
            Self::Owned(lines) => lines,
            Self::Arena(lasting) => lasting.lines(),
        }
    }

    fn lines_mut(&mut self) -> &mut [CacheLine] {
        match self {
            Self::Pooled(lines) => lines,
            Self::Owned(lines) => lines,
            Self::Arena(lasting) => lasting.lines_mut(),
        }
    }

    fn as_slice(&self) -> &[f32] {
        let lines = self.lines();
        // SAFETY: a line is sixteen numbers without gaps, all initialised.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES) }
    }

    fn as_mut_slice(&mut self) -> &mut [f32] {
        let lines = self.lines_mut();
        // SAFETY: as above, and nobody else has the block.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        let Self::Pooled(lines) = self else { return };
        let lines = std::mem::take(lines);
        // While a thread ends its shelf may be gone: then the block is freed.
        let _ = BUFFER_POOL.try_with(|pool| pool.borrow_mut().release(lines));
    }
}

/// Rounded up in steps of an eighth, so that micro-batches of nearly the same size share their blocks.
fn size_class(lines: usize) -> usize {
    let step = (lines.next_power_of_two() / 16).max(1);
    lines.next_multiple_of(step)
}

impl BufferPool {
    fn acquire(&mut self, lines: usize) -> Option<Vec<CacheLine>> {
        // One that is a quarter too large will do.
        let buffer = self.free_buffers.range_mut(lines..=lines + lines / 4).find_map(|(_, blocks)| blocks.pop())?;
        self.pooled_lines -= buffer.len();
        Some(buffer)
    }

    fn release(&mut self, buffer: Vec<CacheLine>) {
        if buffer.is_empty() || self.pooled_lines + buffer.len() > MAX_POOLED_LINES {
            return;
        }
        self.pooled_lines += buffer.len();
        self.free_buffers.entry(buffer.len()).or_default().push(buffer);
    }
}

impl MatrixBuf {
    /// Whatever it was used for before is still in it.
    pub fn new(rows: usize, width: usize) -> Self {
        Self { allocation: Allocation::new(rows * width), rows, width }
    }

    /// Zeros in a block of its own, no larger than it must be: for what stays a while.
    pub fn zeros_exact_size(rows: usize, width: usize) -> Self {
        let lines = vec![CacheLine::ZERO; (rows * width).div_ceil(LANES) + 1];
        Self { allocation: Allocation::Owned(lines.into()), rows, width }
    }

    /// Zeros among the frozen weights: for what stays as long as the base.
    pub fn zeros_in_arena(rows: usize, width: usize) -> Self {
        let lines = (rows * width).div_ceil(LANES) + 1;
        Self { allocation: Allocation::Arena(ArenaSlice::zeros(lines)), rows, width }
    }

    pub fn zeros(rows: usize, width: usize) -> Self {
        let mut buf = Self::new(rows, width);
        buf.as_mut_slice().fill(0.0);
        buf
    }

    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        let len = self.rows * self.width;
        &mut self.allocation.as_mut_slice()[..len]
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// All that has been written, and the numbers to spare.
    pub fn as_padded_slice(&self) -> &[f32] {
        self.allocation.as_slice()
    }

    /// With the numbers to spare at its end.
    pub fn as_mut_padded_slice(&mut self) -> &mut [f32] {
        self.allocation.as_mut_slice()
    }

    pub fn freeze(self) -> Matrix {
        Matrix { allocation: Arc::new(self.allocation), offset: 0, rows: self.rows, width: self.width }
    }
}

impl Matrix {
    pub fn from_slice(rows: usize, width: usize, values: &[f32]) -> Self {
        let mut buf = MatrixBuf::new(rows, width);
        buf.as_mut_slice().copy_from_slice(values);
        buf.freeze()
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn as_slice(&self) -> &[f32] {
        &self.allocation.as_slice()[self.offset..self.offset + self.rows * self.width]
    }

    /// From the first row on, with what follows it in the block: at least sixteen numbers beyond the last row.
    pub fn as_padded_slice(&self) -> &[f32] {
        &self.allocation.as_slice()[self.offset..]
    }

    pub fn row(&self, row: usize) -> &[f32] {
        &self.as_slice()[row * self.width..(row + 1) * self.width]
    }

    /// To be written on: in place where nobody else has the block, else a copy.
    pub fn into_buf(self) -> MatrixBuf {
        let (rows, width, offset) = (self.rows, self.width, self.offset);
        match Arc::try_unwrap(self.allocation) {
            Ok(block) if offset == 0 => MatrixBuf { allocation: block, rows, width },
            Ok(block) => Self { allocation: Arc::new(block), offset, rows, width }.to_buf(),
            Err(block) => Self { allocation: block, offset, rows, width }.to_buf(),
        }
    }

    /// `(rows, width)` from the number `first` of a single row on.
    pub fn slice_flat(&self, offset: usize, rows: usize, width: usize) -> Self {
        assert!(offset + rows * width <= self.width, "a part lies within its row");
        Self { allocation: Arc::clone(&self.allocation), offset: self.offset + offset, rows, width }
    }

    fn to_buf(&self) -> MatrixBuf {
        let mut buf = MatrixBuf::new(self.rows, self.width);
        buf.as_mut_slice().copy_from_slice(self.as_slice());
        buf
    }

    /// The same numbers in rows of another width.
    pub fn reshaped(&self, width: usize) -> Self {
        let len = self.rows * self.width;
        assert!(len.is_multiple_of(width), "rows fold into whole rows");
        Self { allocation: Arc::clone(&self.allocation), offset: self.offset, rows: len / width, width }
    }

    /// `count` rows from `first` on.
    pub fn slice_rows(&self, first_row: usize, row_count: usize) -> Self {
        assert!(first_row + row_count <= self.rows, "a view lies within its matrix");
        Self {
            allocation: Arc::clone(&self.allocation),
            offset: self.offset + first_row * self.width,
            rows: row_count,
            width: self.width,
        }
    }
}
