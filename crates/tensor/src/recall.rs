//! Attention of a sequence's next rows to all that came before them and is remembered.
//!
//! A part of [`Kernels`](super::Kernels), in a file of its own.

use super::distance::{Distance, Near};
use super::kernels::{Attention, Buffer, Keep, Kernels};
use super::past::Past;
use super::{Packed, Tensor};
use crate::error::Result;

/// The next rows of some sequences in one layer. Keys and values are turned already, and are remembered on the way.
pub struct Next<'a> {
    pub layer: usize,
    /// `(rows, heads · head width)`: of each sequence its last next rows.
    pub query: &'a Buffer,
    /// Each `(rows, key heads · head width)`.
    pub key: &'a Buffer,
    pub value: &'a Buffer,
    /// The sequences' rows in `query`.
    pub asking: &'a Packed,
    /// Their rows in `key` and `value`.
    pub layout: &'a Packed,
    pub heads: usize,
    /// Causal.
    pub distance: &'a Distance,
    /// One for each sequence.
    pub pasts: &'a mut [Past],
}

impl Next<'_> {
    /// Remembers the keys and values.
    pub fn remember(&mut self, kernels: &(impl Kernels + ?Sized)) -> Result<()> {
        let [keys, values] = [kernels.download(self.key)?.values, kernels.download(self.value)?.values];
        let width = self.key.width();
        for (past, rows) in self.pasts.iter_mut().zip(self.layout.ranges()) {
            let numbers = rows.start * width..rows.end * width;
            past.append(self.layer, &keys[numbers.clone()], &values[numbers]);
        }
        Ok(())
    }
}

pub trait Recall {
    /// softmax(Q·Kᵀ/√d)·V over all that is remembered of a sequence, these rows included: row by row the same numbers as
    /// attention gives that sees the whole sequence at once.
    fn recall(&self, next: Next) -> Result<Buffer>;
}

/// Of what is remembered, brought to the device: for kernels that have nothing of their own.
pub fn gathered(kernels: &(impl Kernels + ?Sized), mut next: Next) -> Result<Buffer> {
    next.remember(kernels)?;
    let (mut keys, mut values) = (Vec::new(), Vec::new());
    let lengths = || next.pasts.iter().zip(next.layout.ranges()).map(|(past, rows)| past.next(next.layer) + rows.len());
    for (past, length) in next.pasts.iter().zip(lengths()) {
        let [key, value] = past.read(next.layer, length);
        keys.extend(key);
        values.extend(value);
    }
    let layout = Packed::from_lengths(lengths());
    let own =
        Packed::from_lengths(next.pasts.iter().zip(lengths()).map(|(past, length)| length - past.fronts()[next.layer]));
    let upload = |values: Vec<f32>| kernels.upload(&Tensor::new([layout.rows(), next.key.width()], values));
    let (key, value) = (upload(keys)?, upload(values)?);
    let inputs = Attention {
        query: next.query,
        key: &key,
        value: &value,
        asking: next.asking,
        layout: &layout,
        heads: next.heads,
        near: Some(Near { distance: next.distance, own: &own }),
    };
    Ok(kernels.attention(inputs, Keep::Nothing)?.0)
}
