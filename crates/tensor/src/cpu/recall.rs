//! Attention to what is remembered: page by page, on scratch that stays in the cache.

use super::attention::Softmax;
use super::lanes::Level;
use super::machine::{Cpu, host};
use super::memory::Draft;
use super::product::{Left, Product, Right, Start};
use super::shade::Shade;
use super::softmax::stride;
use crate::error::Result;
use crate::kernels::Buffer;
use crate::past::{PAGE, Past};
use crate::recall::{Next, Recall};
use std::ops::Range;

impl Recall for Cpu {
    fn recall(&self, next: Next) -> Result<Buffer> {
        let (key, value) = (next.key.host(), next.value.host());
        for (past, range) in next.pasts.iter_mut().zip(next.layout.ranges()) {
            let numbers = range.start * key.width()..range.end * key.width();
            past.append(next.layer, &key.values()[numbers.clone()], &value.values()[numbers]);
        }
        let query = next.query.host();
        let mut out = Draft::new(query.rows(), query.width());
        let lengths =
            next.pasts.iter().zip(next.layout.ranges()).map(|(past, rows)| past.next(next.layer) + rows.len());
        let places = next.pasts.iter().zip(next.asking.ranges()).zip(lengths);
        let places: Vec<Place> = places.map(|((past, asking), length)| Place { past, asking, length }).collect();
        let most = places.iter().map(|place| place.asking.len().max(next.heads) * stride(place.length)).max();
        let mut scores = Draft::new(1, most.unwrap_or(0));
        for place in &places {
            for of in heads(&next, place) {
                attend(self.level, &next, place, &of, scores.spacious(), &mut out);
            }
        }
        Ok(host(out))
    }
}

/// A sequence that asks.
struct Place<'a> {
    past: &'a Past,
    /// Of the queries.
    asking: Range<usize>,
    /// Rows that are remembered by now.
    length: usize,
}

/// Rows of queries that look at the same keys: one row's neighbouring heads, or one head's rows.
struct Heads {
    /// Of keys and values.
    shared: usize,
    first: usize,
    count: usize,
    rows: usize,
}

/// All heads of one sequence. A single row's heads that share keys are the rows of one product.
fn heads(next: &Next, place: &Place) -> Vec<Heads> {
    let shared = place.past.form().heads;
    let (group, rows) = (next.heads / shared, place.asking.len());
    match rows {
        1 => (0..shared).map(|shared| Heads { shared, first: shared * group, count: group, rows }).collect(),
        _ => (0..next.heads).map(|head| Heads { shared: head / group, first: head, count: 1, rows }).collect(),
    }
}

fn attend(level: Level, next: &Next, place: &Place, of: &Heads, scores: &mut [f32], out: &mut Draft) {
    let (past, length, step) = (place.past, place.length, stride(place.length));
    let (width, query) = (past.form().width, next.query.host());
    let (hidden, count) = (query.width(), of.count * of.rows);
    let row_step = if of.rows == 1 { width } else { hidden };
    let start = place.asking.start * hidden + of.first * width;
    let scores = &mut scores[..count * step];
    let pages = || past.pages().iter().zip((0..length).step_by(PAGE));
    for (page, first) in pages() {
        level.run(Product {
            rows: count,
            depth: width,
            columns: stride(PAGE.min(length - first)),
            left: Left { values: &query.spacious()[start..], row_step, depth_step: 1 },
            right: Right::panels(page.keys(next.layer, of.shared), width),
            start: Start::Zero,
            out: &mut scores[first..],
            out_step: step,
        });
    }
    // The rows that ask are the sequence's last: what a single one must not see is hidden for all of its heads alike.
    for scores in scores.chunks_exact_mut(of.rows * step) {
        let front = past.fronts()[next.layer];
        let place = (front, length - front - of.rows);
        let scale = 1.0 / (width as f32).sqrt();
        let shade = Shade::new(next.distance, of.first, place, scale);
        level.run(Softmax { scores, step, length, scale, shade: Some(shade) });
    }
    for (page, first) in pages() {
        level.run(Product {
            rows: count,
            depth: PAGE.min(length - first),
            columns: width,
            left: Left { values: &scores[first..], row_step: step, depth_step: 1 },
            right: Right::rows(page.values(next.layer, of.shared), width),
            start: if first == 0 { Start::Zero } else { Start::Output },
            out: &mut out.spacious()[start..],
            out_step: row_step,
        });
    }
}
