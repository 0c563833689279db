//! Matrices in host memory, whose blocks are used again: a training step makes the same few hundred each time, and
//! fresh pages from the operating system would cost more than the arithmetic on small ones.
//!
//! Every block starts on a cache line and has sixteen numbers to spare at its end, so that a row's last lanes may be
//! read, and written, past the row's own end. Knows nothing of what is computed.

use super::lanes::LANES;
use super::lasting::Lasting;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A cache line.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub struct Line(pub [f32; LANES]);

impl Line {
    pub const ZERO: Self = Self([0.0; LANES]);
}

/// Blocks that nobody uses any more, by their size, on the thread that used them last.
#[derive(Default)]
struct Shelf {
    blocks: BTreeMap<usize, Vec<Vec<Line>>>,
    lines: usize,
}

/// What a thread keeps at most: 64 MiB.
const KEPT_LINES: usize = 1 << 20;

thread_local! {
    static SHELF: RefCell<Shelf> = RefCell::default();
}

/// `(rows, width)`, being written by one thread.
#[derive(Debug)]
pub struct Draft {
    block: Block,
    rows: usize,
    width: usize,
}

/// `(rows, width)`, row after row, shared and never changed again. A view of some rows costs nothing.
#[derive(Debug, Clone)]
pub struct Matrix {
    block: Arc<Block>,
    /// First number of the first row.
    start: usize,
    rows: usize,
    width: usize,
}

#[derive(Debug)]
enum Block {
    /// Goes to the shelf when nobody uses it any more.
    Passing(Vec<Line>),
    /// Of exactly its size, and freed: for what is there for a while.
    Exact(Box<[Line]>),
    Lasting(Lasting),
}

impl Block {
    fn new(numbers: usize) -> Self {
        let lines = size_class(numbers.div_ceil(LANES) + 1);
        let kept = SHELF.try_with(|shelf| shelf.borrow_mut().take(lines)).ok().flatten();
        Self::Passing(kept.unwrap_or_else(|| vec![Line::ZERO; lines]))
    }

    fn lines(&self) -> &[Line] {
        match self {
            Self::Passing(lines) => lines,
            Self::Exact(lines) => lines,
            Self::Lasting(lasting) => lasting.lines(),
        }
    }

    fn lines_mut(&mut self) -> &mut [Line] {
        match self {
            Self::Passing(lines) => lines,
            Self::Exact(lines) => lines,
            Self::Lasting(lasting) => lasting.lines_mut(),
        }
    }

    fn numbers(&self) -> &[f32] {
        let lines = self.lines();
        // SAFETY: a line is sixteen numbers without gaps, all initialised.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LANES) }
    }

    fn numbers_mut(&mut self) -> &mut [f32] {
        let lines = self.lines_mut();
        // SAFETY: as above, and nobody else has the block.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * LANES) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Self::Passing(lines) = self else { return };
        let lines = std::mem::take(lines);
        // While a thread ends its shelf may be gone: then the block is freed.
        let _ = SHELF.try_with(|shelf| shelf.borrow_mut().keep(lines));
    }
}

/// Rounded up in steps of an eighth, so that micro-batches of nearly the same size share their blocks.
fn size_class(lines: usize) -> usize {
    let step = (lines.next_power_of_two() / 16).max(1);
    lines.next_multiple_of(step)
}

impl Shelf {
    fn take(&mut self, lines: usize) -> Option<Vec<Line>> {
        // One that is a quarter too large will do.
        let block = self.blocks.range_mut(lines..=lines + lines / 4).find_map(|(_, blocks)| blocks.pop())?;
        self.lines -= block.len();
        Some(block)
    }

    fn keep(&mut self, block: Vec<Line>) {
        if block.is_empty() || self.lines + block.len() > KEPT_LINES {
            return;
        }
        self.lines += block.len();
        self.blocks.entry(block.len()).or_default().push(block);
    }
}

impl Draft {
    /// Whatever it was used for before is still in it.
    pub fn new(rows: usize, width: usize) -> Self {
        Self { block: Block::new(rows * width), rows, width }
    }

    /// Zeros in a block of its own, no larger than it must be: for what stays a while.
    pub fn exact(rows: usize, width: usize) -> Self {
        let lines = vec![Line::ZERO; (rows * width).div_ceil(LANES) + 1];
        Self { block: Block::Exact(lines.into()), rows, width }
    }

    /// Zeros among the frozen weights: for what stays as long as the base.
    pub fn lasting(rows: usize, width: usize) -> Self {
        let lines = (rows * width).div_ceil(LANES) + 1;
        Self { block: Block::Lasting(Lasting::zeros(lines)), rows, width }
    }

    pub fn zeros(rows: usize, width: usize) -> Self {
        let mut draft = Self::new(rows, width);
        draft.values().fill(0.0);
        draft
    }

    pub fn values(&mut self) -> &mut [f32] {
        let numbers = self.rows * self.width;
        &mut self.block.numbers_mut()[..numbers]
    }

    pub fn width(&self) -> usize {
        self.width
    }

    /// All that has been written, and the numbers to spare.
    pub fn all(&self) -> &[f32] {
        self.block.numbers()
    }

    /// With the numbers to spare at its end.
    pub fn spacious(&mut self) -> &mut [f32] {
        self.block.numbers_mut()
    }

    pub fn done(self) -> Matrix {
        Matrix { block: Arc::new(self.block), start: 0, rows: self.rows, width: self.width }
    }
}

impl Matrix {
    pub fn copied(rows: usize, width: usize, values: &[f32]) -> Self {
        let mut draft = Draft::new(rows, width);
        draft.values().copy_from_slice(values);
        draft.done()
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn width(&self) -> usize {
        self.width
    }

    pub fn values(&self) -> &[f32] {
        &self.block.numbers()[self.start..self.start + self.rows * self.width]
    }

    /// From the first row on, with what follows it in the block: at least sixteen numbers beyond the last row.
    pub fn spacious(&self) -> &[f32] {
        &self.block.numbers()[self.start..]
    }

    pub fn row(&self, row: usize) -> &[f32] {
        &self.values()[row * self.width..(row + 1) * self.width]
    }

    /// To be written on: in place where nobody else has the block, else a copy.
    pub fn into_draft(self) -> Draft {
        let (rows, width, start) = (self.rows, self.width, self.start);
        match Arc::try_unwrap(self.block) {
            Ok(block) if start == 0 => Draft { block, rows, width },
            Ok(block) => Self { block: Arc::new(block), start, rows, width }.copy(),
            Err(block) => Self { block, start, rows, width }.copy(),
        }
    }

    /// `(rows, width)` from the number `first` of a single row on.
    pub fn part(&self, first: usize, rows: usize, width: usize) -> Self {
        assert!(first + rows * width <= self.width, "a part lies within its row");
        Self { block: Arc::clone(&self.block), start: self.start + first, rows, width }
    }

    fn copy(&self) -> Draft {
        let mut draft = Draft::new(self.rows, self.width);
        draft.values().copy_from_slice(self.values());
        draft
    }

    /// The same numbers in rows of another width.
    pub fn folded(&self, width: usize) -> Self {
        let numbers = self.rows * self.width;
        assert!(numbers.is_multiple_of(width), "rows fold into whole rows");
        Self { block: Arc::clone(&self.block), start: self.start, rows: numbers / width, width }
    }

    /// `count` rows from `first` on.
    pub fn view(&self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.rows, "a view lies within its matrix");
        Self { block: Arc::clone(&self.block), start: self.start + first * self.width, rows: count, width: self.width }
    }
}
