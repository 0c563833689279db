//! What is remembered of a sequence that is being continued: the keys and values of its rows in every layer, in pages.
//!
//! A page holds some neighbouring rows in all layers. Sequences that begin alike may share their first pages (Kwon et al. 2023). Keys lie as products read them: by head, sixteen rows side by side. Knows nothing of how attention is
//! computed, nor of whose sequences these are.

use super::cpu::{Draft, LANES};
use std::sync::Arc;

/// Rows of a page: whole registers of keys.
pub const PAGE: usize = 32;

/// What a row's keys and values look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    pub layers: usize,
    /// Of keys, as many as of values.
    pub heads: usize,
    /// Numbers of a head.
    pub width: usize,
}

impl Form {
    /// Bytes of a page.
    pub fn page_bytes(self) -> usize {
        2 * self.layers * self.heads * self.width * PAGE * size_of::<f32>()
    }

    /// Pages that so many rows take.
    pub fn pages(rows: usize) -> usize {
        rows.div_ceil(PAGE)
    }
}

/// Some neighbouring rows of a sequence.
#[derive(Debug)]
pub struct Page {
    form: Form,
    keys: Draft,
    values: Draft,
}

impl Page {
    fn new(form: Form) -> Self {
        let draft = || Draft::exact(form.layers * form.heads, form.width * PAGE);
        Self { form, keys: draft(), values: draft() }
    }

    fn start(&self, layer: usize, head: usize) -> usize {
        (layer * self.form.heads + head) * self.form.width * PAGE
    }

    /// A head's keys: panels of sixteen rows, each `(width, 16)`.
    pub fn keys(&self, layer: usize, head: usize) -> &[f32] {
        &self.keys.all()[self.start(layer, head)..]
    }

    /// A head's values, `(rows, width)`, with at least sixteen numbers behind the last row.
    pub fn values(&self, layer: usize, head: usize) -> &[f32] {
        &self.values.all()[self.start(layer, head)..]
    }

    /// One row's key and value of a head.
    fn row(&self, layer: usize, head: usize, row: usize) -> (impl Iterator<Item = f32> + '_, &[f32]) {
        let width = self.form.width;
        let panel = &self.keys(layer, head)[row / LANES * width * LANES + row % LANES..];
        let value = &self.values(layer, head)[row * width..(row + 1) * width];
        (panel.iter().step_by(LANES).take(width).copied(), value)
    }

    fn write(&mut self, layer: usize, row: usize, key: &[f32], value: &[f32]) {
        let width = self.form.width;
        for head in 0..self.form.heads {
            let (start, columns) = (self.start(layer, head), head * width..(head + 1) * width);
            let panel = &mut self.keys.spacious()[start + row / LANES * width * LANES + row % LANES..];
            panel.iter_mut().step_by(LANES).zip(&key[columns.clone()]).for_each(|(to, from)| *to = *from);
            self.values.spacious()[start + row * width..][..width].copy_from_slice(&value[columns]);
        }
    }
}

impl Clone for Page {
    fn clone(&self) -> Self {
        let mut page = Self::new(self.form);
        page.keys.spacious().copy_from_slice(self.keys.all());
        page.values.spacious().copy_from_slice(self.values.all());
        page
    }
}

/// The rows of one sequence so far.
#[derive(Debug, Clone)]
pub struct Past {
    form: Form,
    pages: Vec<Arc<Page>>,
    rows: usize,
    /// By layer: an adapter's own keys and values in front of the sequence's.
    fronts: Arc<[usize]>,
}

impl Past {
    /// Of a sequence that has not begun.
    pub fn new(form: Form) -> Self {
        Self { form, pages: Vec::new(), rows: 0, fronts: vec![0; form.layers].into() }
    }

    /// Of a sequence whose first rows, and what is in front of them, are those of these pages.
    pub fn shared(form: Form, pages: Vec<Arc<Page>>, rows: usize, fronts: Arc<[usize]>) -> Self {
        Self { form, pages, rows, fronts }
    }

    pub fn form(&self) -> Form {
        self.form
    }

    /// The sequence's own, virtual tokens among them.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// By layer: keys and values in front of the sequence's.
    pub fn fronts(&self) -> &Arc<[usize]> {
        &self.fronts
    }

    pub fn is_fresh(&self) -> bool {
        self.rows == 0
    }

    /// The place of a layer's next row.
    pub fn next(&self, layer: usize) -> usize {
        self.fronts[layer] + self.rows
    }

    /// The position of the next row, where what stands in front in any layer counts too.
    pub fn position(&self) -> usize {
        self.fronts.iter().copied().max().unwrap_or(0) + self.rows
    }

    /// The pages that hold nothing but rows that have been computed, at least in the layer with the most in front.
    pub fn full(&self) -> &[Arc<Page>] {
        &self.pages[..self.position() / PAGE]
    }

    pub fn pages(&self) -> &[Arc<Page>] {
        &self.pages
    }

    /// An adapter's own keys and values of a layer, before the first row: `(rows, heads · width)` each.
    pub fn begin(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let width = self.form.heads * self.form.width;
        Arc::make_mut(&mut self.fronts)[layer] = keys.len() / width;
        self.put(layer, 0, keys, values);
    }

    /// Keys and values of a layer's next rows: `(rows, heads · width)` each.
    pub fn append(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        self.put(layer, self.next(layer), keys, values);
    }

    fn put(&mut self, layer: usize, first: usize, keys: &[f32], values: &[f32]) {
        let width = self.form.heads * self.form.width;
        for ((key, value), row) in keys.chunks_exact(width).zip(values.chunks_exact(width)).zip(first..) {
            if row / PAGE == self.pages.len() {
                self.pages.push(Arc::new(Page::new(self.form)));
            }
            // What others share is copied before it is written on.
            Arc::make_mut(&mut self.pages[row / PAGE]).write(layer, row % PAGE, key, value);
        }
    }

    /// So many rows have gone through all layers.
    pub fn advance(&mut self, rows: usize) {
        self.rows += rows;
    }

    /// The first `rows` keys and values of a layer, `(rows, heads · width)` each, as they were given.
    pub fn read(&self, layer: usize, rows: usize) -> [Vec<f32>; 2] {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for row in 0..rows {
            for head in 0..self.form.heads {
                let (key, value) = self.pages[row / PAGE].row(layer, head, row % PAGE);
                keys.extend(key);
                values.extend_from_slice(value);
            }
        }
        [keys, values]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_they_were_given_and_shared_pages_stay_as_they_are() {
        let form = Form { layers: 2, heads: 3, width: 4 };
        let numbers = |rows: usize, from: usize| (0..rows * 12).map(|at| (from + at) as f32).collect::<Vec<f32>>();
        let mut past = Past::new(form);
        for layer in 0..2 {
            past.begin(layer, &numbers(3, layer), &numbers(3, 1000 + layer));
            past.append(layer, &numbers(40, 36 + layer), &numbers(40, 1036 + layer));
        }
        past.advance(40);
        assert_eq!((past.rows(), past.next(0), past.pages().len(), past.full().len()), (40, 43, 2, 1));
        assert_eq!(past.read(1, 43), [numbers(43, 1), numbers(43, 1001)]);
        let mut other = Past::shared(form, past.full().to_vec(), 20, Arc::clone(past.fronts()));
        assert_eq!((other.rows(), other.next(0)), (20, 23));
        other.append(0, &[7.0; 12], &[8.0; 12]);
        other.advance(1);
        assert_eq!(other.read(0, 23)[0], past.read(0, 23)[0]);
        assert_eq!(other.read(0, 24)[0][23 * 12..], [7.0; 12]);
        assert_eq!(past.read(0, 43), [numbers(43, 0), numbers(43, 1000)]);
        assert_eq!(form.page_bytes(), 2 * 2 * 3 * 4 * 32 * 4);
    }
}
