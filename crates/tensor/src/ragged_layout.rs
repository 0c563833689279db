//! Layout of a ragged batch: the rows of all sequences end to end, without padding (`cu_seqlens`).

use std::ops::Range;

/// Sequence `i` owns the rows `offsets[i]..offsets[i + 1]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaggedLayout {
    offsets: Vec<usize>,
    /// Number of virtual tokens at the start of each sequence; empty if there are none.
    prefix_lengths: Vec<usize>,
}

impl RaggedLayout {
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        for length in lengths {
            end += length;
            offsets.push(end);
        }
        Self { offsets, prefix_lengths: Vec::new() }
    }

    /// One row per sequence, as after pooling.
    pub fn one_row_per_sequence(num_sequences: usize) -> Self {
        Self { offsets: (0..=num_sequences).collect(), prefix_lengths: Vec::new() }
    }

    pub fn num_sequences(&self) -> usize {
        self.offsets.len() - 1
    }

    pub fn num_rows(&self) -> usize {
        self.offsets[self.offsets.len() - 1]
    }

    pub fn row_range(&self, sequence: usize) -> Range<usize> {
        self.offsets[sequence]..self.offsets[sequence + 1]
    }

    pub fn length(&self, sequence: usize) -> usize {
        self.row_range(sequence).len()
    }

    pub fn row_ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.offsets.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// Layout with `prefix_lengths` more rows at the start of each sequence.
    pub fn with_prefix(&self, prefix_lengths: impl IntoIterator<Item = usize>) -> Self {
        let prefix_lengths: Vec<usize> = prefix_lengths.into_iter().collect();
        assert_eq!(prefix_lengths.len(), self.num_sequences(), "there is one prefix length for every sequence");
        let lengths = self.row_ranges().zip(&prefix_lengths).map(|(range, prefix)| range.len() + prefix);
        Self { prefix_lengths: prefix_lengths.clone(), ..Self::from_lengths(lengths) }
    }

    /// Rows of a sequence without its virtual tokens.
    pub fn real_rows(&self, sequence: usize) -> Range<usize> {
        let range = self.row_range(sequence);
        range.start + self.prefix_lengths.get(sequence).copied().unwrap_or(0)..range.end
    }

    /// Rows of a range of sequences.
    pub fn rows_of_sequences(&self, sequences: &Range<usize>) -> Range<usize> {
        self.offsets[sequences.start]..self.offsets[sequences.end]
    }

    /// Layout of a range of sequences alone.
    pub fn slice_sequences(&self, sequences: &Range<usize>) -> Self {
        let base = self.offsets[sequences.start];
        let starts = self.offsets[sequences.start..=sequences.end].iter().map(|start| start - base).collect();
        let prefix_lengths =
            if self.prefix_lengths.is_empty() { Vec::new() } else { self.prefix_lengths[sequences.clone()].to_vec() };
        Self { offsets: starts, prefix_lengths }
    }
}
