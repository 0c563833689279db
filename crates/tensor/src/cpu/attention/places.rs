//! What attention is computed for, piece by piece: a sequence's rows of one head, and of those the rows that see the same keys.

use crate::Packed;
use crate::cpu::lanes::LANES;
use crate::cpu::memory::Matrix;
use crate::cpu::shade::Shade;
use crate::cpu::softmax::stride;
use crate::distance::Near;
use std::ops::Range;

/// Longer sequences' probabilities are not kept for the backward pass, but computed once more.
const KEPT_LENGTH: usize = 256;
/// Rows that look at the same keys, where not all look at all: whole tiles, and few enough to see little of what is hidden.
const ROWS: usize = 48;

#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// `(rows, heads · head width)`
    pub query: &'a Matrix,
    /// Each with as many heads, or fewer: a head's queries then share keys and values with those beside it.
    pub key: &'a Matrix,
    pub value: &'a Matrix,
    /// The sequences' rows in `query`.
    pub asking: &'a Packed,
    /// Their rows in `key` and `value`.
    pub layout: &'a Packed,
    pub heads: usize,
    pub near: Option<Near<'a>>,
}

/// A sequence's rows of one head.
#[derive(Clone)]
pub struct Place {
    pub asking: Range<usize>,
    pub asked: Range<usize>,
    pub head: usize,
    /// First column of the queries, and of the keys and values.
    pub column: usize,
    pub shared: usize,
    /// Whether it is the first that reads these keys and values.
    pub leads: bool,
    /// Keys in front of the sequence's own, where distances count, and the place of the first row that asks.
    pub front: usize,
    pub first: usize,
    /// Where the probabilities are kept; `None` where they are not.
    pub kept: Option<usize>,
}

impl<'a> Inputs<'a> {
    pub fn head_width(&self) -> usize {
        self.query.width() / self.heads
    }

    pub fn scale(&self) -> f32 {
        1.0 / (self.head_width() as f32).sqrt()
    }

    /// Heads of queries that share one of keys and values (Ainslie et al. 2023).
    fn group(&self) -> usize {
        self.query.width() / self.key.width()
    }

    pub fn places(&self) -> impl Iterator<Item = Place> {
        let (width, group) = (self.head_width(), self.group());
        let mut end = 0;
        let heads = self.heads;
        let near = self.near;
        self.asking.ranges().zip(self.layout.ranges()).enumerate().flat_map(move |(sequence, (asking, asked))| {
            let own = near.map_or(asked.len(), |near| near.own.length(sequence));
            let front = asked.len() - own;
            let first = near.map_or(0, |near| near.distance.first_asking(asking.len(), own));
            let (start, one) = (end, kept(&asking, &asked));
            end += heads * one.unwrap_or(0);
            (0..heads).map(move |head| Place {
                asking: asking.clone(),
                asked: asked.clone(),
                head,
                column: head * width,
                shared: head / group * width,
                leads: head % group == 0,
                front,
                first,
                kept: one.map(|one| start + head * one),
            })
        })
    }

    /// How many probabilities are kept.
    pub fn kept(&self) -> usize {
        let all = self.asking.ranges().zip(self.layout.ranges());
        all.filter_map(|(asking, asked)| kept(&asking, &asked)).map(|one| self.heads * one).sum()
    }

    /// What distances do to the scores of some rows of a place.
    pub fn shade(&self, place: &Place, block: &Block) -> Option<Shade<'a>> {
        let near = self.near?;
        let first = place.first + block.rows.start;
        Some(Shade::new(near.distance, place.head, (place.front, first), self.scale()).from(block.keys.start))
    }

    /// All rows of a place, with the keys that they look at.
    pub fn blocks(&self, place: &Place) -> impl Iterator<Item = Block> + use<'a> {
        let (count, front, first, keys) = (place.asking.len(), place.front, place.first, place.asked.len());
        let hiding = self.near.map(|near| near.distance).filter(|distance| distance.hides());
        let most = if hiding.is_some() { ROWS } else { count };
        (0..count).step_by(most.max(1)).map(move |start| {
            let rows = start..count.min(start + most);
            let seen = hiding.map(|distance| distance.seen(first + rows.start..first + rows.end, front, keys));
            let seen = seen.unwrap_or(0..keys);
            // from a register's start
            Block { rows, keys: seen.start / LANES * LANES..seen.end }
        })
    }

    pub fn longest(&self) -> usize {
        self.layout.ranges().map(|rows| rows.len()).max().unwrap_or(0)
    }
}

/// How many probabilities of a sequence are kept for each head, if any.
fn kept(asking: &Range<usize>, asked: &Range<usize>) -> Option<usize> {
    (asked.len() <= KEPT_LENGTH).then(|| stride(asked.len()) * asking.len())
}

/// Some rows of a place that ask, and keys that they look at: all others are hidden from them.
pub struct Block {
    pub rows: Range<usize>,
    pub keys: Range<usize>,
}

impl Block {
    /// Its part of a head's probabilities, whose rows are a `step` apart.
    pub fn part(&self, step: usize) -> Range<usize> {
        self.rows.start * step + self.keys.start..self.rows.end * step
    }

    pub fn rows(&self, of: &Range<usize>) -> Range<usize> {
        of.start + self.rows.start..of.start + self.rows.end
    }

    pub fn keys(&self, of: &Range<usize>) -> Range<usize> {
        of.start + self.keys.start..of.start + self.keys.end
    }
}
