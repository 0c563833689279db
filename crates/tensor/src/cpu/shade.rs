//! What distances do to a row's scores: something is added to them, or they are hidden outside a window.
//!
//! Plain loops over a row, which lies in the cache; without distances nothing here runs.

use crate::distance::Distance;

/// For one head of one sequence.
pub struct Shade<'a> {
    distance: &'a Distance,
    /// By distance, from −reach to reach.
    bias: Option<&'a [f32]>,
    /// Keys in front of the sequence's own.
    front: usize,
    /// Of the first row that asks, among the sequence's own.
    first: usize,
    /// Of the first score, among the keys.
    from: usize,
    /// What scores will be multiplied by.
    scale: f32,
}

impl<'a> Shade<'a> {
    pub fn new(distance: &'a Distance, head: usize, (front, first): (usize, usize), scale: f32) -> Self {
        let bias = distance.bias.as_ref().map(|bias| bias.host().row(head));
        Self { distance, bias, front, first, from: 0, scale }
    }

    /// The same for scores of keys from one of them on.
    pub fn from(self, from: usize) -> Self {
        Self { from, ..self }
    }

    /// The scores of a row before they are scaled.
    pub fn before(&self, row: usize, scores: &mut [f32]) {
        if let Some(bias) = self.bias {
            let reach = (bias.len() / 2) as isize;
            let nearest = self.from as isize - (self.front + self.first + row) as isize;
            for (distance, score) in (nearest..).zip(scores.iter_mut()) {
                *score += bias[(distance.clamp(-reach, reach) + reach) as usize] / self.scale;
            }
        }
        self.hide(row, scores, f32::NEG_INFINITY);
    }

    /// What has become of them before they are divided by their sum.
    pub fn after(&self, row: usize, exponentials: &mut [f32]) {
        self.hide(row, exponentials, 0.0);
    }

    fn hide(&self, row: usize, values: &mut [f32], by: f32) {
        let within = |key: usize| key.max(self.from) - self.from;
        for range in self.distance.hidden(self.first + row, self.front, self.from + values.len()) {
            values[within(range.start)..within(range.end)].fill(by);
        }
    }
}
