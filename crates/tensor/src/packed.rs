//! The packed layout: the tokens of all sequences end to end, no padding.

use std::ops::Range;

/// Which rows belong to which sequence: sequence `i` owns the rows `starts[i]..starts[i + 1]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    starts: Vec<usize>,
    /// How many of a sequence's first rows are virtual tokens; empty where none are.
    fronts: Vec<usize>,
}

impl Packed {
    pub fn from_lengths(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut starts = vec![0];
        let mut end = 0;
        for length in lengths {
            end += length;
            starts.push(end);
        }
        Self { starts, fronts: Vec::new() }
    }

    /// One row per sequence: what pooling leaves.
    pub fn single_rows(sequences: usize) -> Self {
        Self { starts: (0..=sequences).collect(), fronts: Vec::new() }
    }

    pub fn sequences(&self) -> usize {
        self.starts.len() - 1
    }

    pub fn rows(&self) -> usize {
        self.starts[self.starts.len() - 1]
    }

    pub fn range(&self, sequence: usize) -> Range<usize> {
        self.starts[sequence]..self.starts[sequence + 1]
    }

    pub fn length(&self, sequence: usize) -> usize {
        self.range(sequence).len()
    }

    pub fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.starts.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// With so many more rows in front of each sequence.
    pub fn behind(&self, fronts: impl IntoIterator<Item = usize>) -> Self {
        let fronts: Vec<usize> = fronts.into_iter().collect();
        assert_eq!(fronts.len(), self.sequences(), "every sequence has its front, if only of 0 rows");
        let lengths = self.ranges().zip(&fronts).map(|(range, front)| range.len() + front);
        Self { fronts: fronts.clone(), ..Self::from_lengths(lengths) }
    }

    /// A sequence's rows without the virtual ones in front.
    pub fn real(&self, sequence: usize) -> Range<usize> {
        let range = self.range(sequence);
        range.start + self.fronts.get(sequence).copied().unwrap_or(0)..range.end
    }

    /// The rows of a range of sequences.
    pub fn rows_of(&self, sequences: &Range<usize>) -> Range<usize> {
        self.starts[sequences.start]..self.starts[sequences.end]
    }

    /// The layout of a range of sequences by themselves.
    pub fn slice(&self, sequences: &Range<usize>) -> Self {
        let first = self.starts[sequences.start];
        let starts = self.starts[sequences.start..=sequences.end].iter().map(|start| start - first).collect();
        let fronts = if self.fronts.is_empty() { Vec::new() } else { self.fronts[sequences.clone()].to_vec() };
        Self { starts, fronts }
    }
}
