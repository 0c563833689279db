//! A frozen weight `(output, input)` in memory, in strips of columns, written and read row by row.
//!
//! Knows nothing of products: only where each number lies.

use super::blocks::Block;
use super::forms::{BLOCK, Form, STRIP};
use crate::cpu::lasting::Lasting;
use crate::cpu::memory::Line;
use half::f16;

/// `(output, input)`, never changed once it is filled. Columns that no row fills are 0.
#[derive(Debug)]
pub struct Reduced {
    form: Form,
    output: usize,
    input: usize,
    strips: Lasting,
}

impl Reduced {
    /// Zeros, to be filled row by row.
    pub fn new(form: Form, output: usize, input: usize) -> Self {
        let bytes = output.div_ceil(STRIP) * strip_bytes(form, input);
        Self { form, output, input, strips: Lasting::zeros(bytes.div_ceil(size_of::<Line>())) }
    }

    /// Rounded, from the rows of a matrix.
    pub fn round(form: Form, weight: &[f32], output: usize, input: usize) -> Self {
        assert_eq!(weight.len(), output * input, "a weight has all its rows");
        let mut reduced = Self::new(form, output, input);
        weight.chunks_exact(input).enumerate().for_each(|(row, numbers)| reduced.round_row(row, numbers));
        reduced
    }

    /// Rounded to this form.
    pub fn round_row(&mut self, row: usize, numbers: &[f32]) {
        assert_eq!(numbers.len(), self.input, "a row has its input's width");
        for (index, numbers) in numbers.chunks(BLOCK).enumerate() {
            self.put(row, index, &Block::round(self.form, numbers));
        }
    }

    /// As a file has it, without loss: the row's blocks of 32 (GGUF's, or numbers of 16 bits), little-endian.
    pub fn copy_row(&mut self, row: usize, bytes: &[u8]) {
        let block = self.form.file_bytes();
        assert!(self.input.is_multiple_of(BLOCK), "rows of a file are whole blocks");
        assert_eq!(bytes.len(), self.input / BLOCK * block, "a row has all its blocks");
        for (index, bytes) in bytes.chunks_exact(block).enumerate() {
            self.put(row, index, &Block::parse(self.form, bytes));
        }
    }

    /// A row of the weight, as products see it: a table's entry.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.input, "a row has its input's width");
        for (index, out) in out.chunks_mut(BLOCK).enumerate() {
            out.copy_from_slice(&self.block(row, index).widened(self.form)[..out.len()]);
        }
    }

    pub fn form(&self) -> Form {
        self.form
    }

    pub fn output(&self) -> usize {
        self.output
    }

    pub fn input(&self) -> usize {
        self.input
    }

    /// Strips of 32 columns of a product.
    pub fn strips(&self) -> usize {
        self.output.div_ceil(STRIP)
    }

    /// From one strip to the next.
    pub(super) fn strip_bytes(&self) -> usize {
        strip_bytes(self.form, self.input)
    }

    /// All strips, whole blocks each; for hashing, too.
    pub fn bytes(&self) -> &[u8] {
        let lines = self.strips.lines();
        // SAFETY: lines are plain memory without gaps, all of it initialised.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let lines = self.strips.lines_mut();
        // SAFETY: as above; any bits are a number, and nobody else has the lines.
        unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), size_of_val(lines)) }
    }

    /// Where the block lies that has these 32 weights of a row.
    fn start(&self, row: usize, index: usize) -> usize {
        assert!(row < self.output, "a row lies within its weight");
        row / STRIP * self.strip_bytes() + index * self.form.block_bytes()
    }

    fn put(&mut self, row: usize, index: usize, block: &Block) {
        let (form, start, column) = (self.form, self.start(row, index), row % STRIP);
        let bytes = &mut self.bytes_mut()[start..start + form.block_bytes()];
        let [scales, minima] = form.heads();
        let heads = block.scales[..scales].iter().chain(&block.minima[..minima]);
        for (index, head) in heads.enumerate() {
            let at = form.head(column, index);
            match form.head_bytes() {
                2 => bytes[at..at + 2].copy_from_slice(&f16::from_f32(*head).to_le_bytes()),
                _ => bytes[at..at + 4].copy_from_slice(&head.to_le_bytes()),
            }
        }
        for (depth, code) in block.codes.into_iter().enumerate() {
            let (at, bit) = (form.place(column, depth) / 8, form.place(column, depth) % 8);
            match form.code_bits() {
                16 => bytes[at..at + 2].copy_from_slice(&code.to_le_bytes()),
                8 => bytes[at] = code as u8,
                _ => bytes[at] = bytes[at] & (0xf0 >> bit) | (code as u8) << bit,
            }
        }
    }

    fn block(&self, row: usize, index: usize) -> Block {
        let (form, start, column) = (self.form, self.start(row, index), row % STRIP);
        let bytes = &self.bytes()[start..start + form.block_bytes()];
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let [scales, minima] = form.heads();
        let head = |index: usize| {
            let at = form.head(column, index);
            match form.head_bytes() {
                2 => f16::from_bits(word(at)).to_f32(),
                _ => f32::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte])),
            }
        };
        let some = |first: usize, count: usize| {
            std::array::from_fn(|index| if index < count { head(first + index) } else { 0.0 })
        };
        let codes = std::array::from_fn(|depth| {
            let (at, bit) = (form.place(column, depth) / 8, form.place(column, depth) % 8);
            match form.code_bits() {
                16 => word(at),
                8 => u16::from(bytes[at]),
                _ => u16::from(bytes[at] >> bit & 15),
            }
        });
        Block { scales: some(0, scales), minima: some(scales, minima), codes }
    }
}

impl Form {
    /// A row's numbers from its blocks as a file has them.
    pub fn widen(self, bytes: &[u8], out: &mut [f32]) {
        for (out, bytes) in out.chunks_mut(BLOCK).zip(bytes.chunks_exact(self.file_bytes())) {
            out.copy_from_slice(&Block::parse(self, bytes).widened(self)[..out.len()]);
        }
    }
}

fn strip_bytes(form: Form, input: usize) -> usize {
    input.div_ceil(BLOCK) * form.block_bytes()
}
