//! Low-rank updates beside linear maps, forward and backward.
//!
//! Kernels that round what goes into a product of the base's round A and B, too ([`super::octets`]). What a row is given is
//! the same, whether it comes alone or among many.

use super::lanes::Number;
use super::machine::{Cpu, draft, host};
use super::memory::Draft;
use super::octets::{Octets, Ranks};
use super::product::{Left, Right, Start};
use super::single::{self, Single, Singles};
use super::{panels, parameters};
use crate::columns::Columns;
use crate::error::Result;
use crate::held::Activations;
use crate::kernels::{Buffer, Kernels, LowRank, LowRankGradients, LowRanks, Parameter};
use std::ops::Range;

impl LowRanks for Cpu {
    fn add_low_rank(&self, onto: Buffer, range: Range<usize>, update: LowRank) -> Result<(Buffer, Buffer)> {
        let LowRank { input, a, b, scale } = update;
        let (input, rank, output) = (input.host(), a.forward.width(), b.forward.width());
        let (down, up) = ([input.rows(), input.width(), rank], [input.rows(), rank, output]);
        if self.rounds() {
            let [a, b] = octets(a, b);
            let [wide_a, wide_b] = [a, b].map(|side| side.widened(self.level));
            let inner = self.product(down, Left::of(input), Right::panels(wide_a.values(), input.width()), Start::Zero);
            let mut factors = Draft::new(1, rank);
            for (index, factor) in factors.values().iter_mut().enumerate() {
                *factor = single::factor(scale as f32, Some([a.scales(), b.scales()]), index);
            }
            let inner = self.scale_columns(inner, 0..input.rows(), &host(factors))?;
            let right = Right::panels(wide_b.values(), rank);
            return Ok((self.product_within(up, Left::of(inner.host()), right, onto, range), inner));
        }
        let [a, b] = [a, b].map(forward);
        let inner = self.product(down, Left::of(input), a, Start::Zero);
        let inner = self.scale(&inner, scale)?;
        Ok((self.product_within(up, Left::of(inner.host()), b, onto, range), inner))
    }

    fn add_low_ranks(&self, mut onto: Buffer, updates: &[(Range<usize>, LowRank)]) -> Result<Buffer> {
        for (range, update) in updates.iter().filter(|(range, _)| range.len() > 1) {
            onto = self.add_low_rank(onto, range.clone(), *update)?.0;
        }
        Ok(match self.rounds() {
            true => self.add_singles(onto, updates, |update| {
                let [a, b] = octets(update.a, update.b);
                ([a.right(), b.right()], Some([a.scales(), b.scales()]))
            }),
            false => self.add_singles(onto, updates, |update| ([update.a, update.b].map(forward), None)),
        })
    }

    fn prepare_low_rank(&self, a: &Parameter, b: &Parameter) -> u64 {
        match self.rounds() {
            true => octets(a, b).iter().map(|side| side.bytes()).sum(),
            false => 0,
        }
    }

    fn low_rank_backward(&self, gradient: &Buffer, b: &Parameter, scale: f64) -> Result<Buffer> {
        let (gradient, b) = (gradient.host(), parameters::backward(b));
        let shape = [gradient.rows(), b.rows(), b.width()];
        let inner = self.product(shape, Left::of(gradient), Right::of(b), Start::Zero);
        self.scale(&inner, scale)
    }

    fn low_rank_backward_input(&self, inner: &Buffer, a: &Parameter, onto: Option<Buffer>) -> Result<Buffer> {
        let (inner, a) = (inner.host(), parameters::backward(a));
        Ok(self.product_onto([inner.rows(), a.rows(), a.width()], Left::of(inner), Right::of(a), onto))
    }

    fn low_rank_backward_parameters(
        &self,
        gradient: &Buffer,
        inner: &Buffer,
        input: &Buffer,
        projected: &Buffer,
    ) -> Result<LowRankGradients> {
        let [gradient, inner, input, projected] = [gradient, inner, input, projected].map(Buffer::host);
        let (depth, rank) = (gradient.rows(), inner.width());
        let a = self.product([rank, depth, input.width()], Left::transposed(inner), Right::of(input), Start::Zero);
        // Bᵀ is computed, whose rows fill the lanes, and then turned.
        let shape = [rank, depth, gradient.width()];
        let turned = self.product(shape, Left::transposed(projected), Right::of(gradient), Start::Zero);
        let mut b = Draft::new(gradient.width(), rank);
        panels::turn(turned.host().values(), gradient.width(), b.values());
        Ok(LowRankGradients { a, b: host(b) })
    }
}

/// A parameter's numbers, as a forward pass reads them.
fn forward(side: &Parameter) -> Right<'_> {
    Right::of(side.forward.host())
}

fn octets<'a>(a: &'a Parameter, b: &'a Parameter) -> [&'a Octets; 2] {
    [(a, Ranks::Columns), (b, Ranks::Rows)].map(|(side, ranks)| parameters::octets(side, ranks))
}

impl Cpu {
    /// Whether A and B are read in bytes.
    fn rounds(&self) -> bool {
        self.activations == Activations::Int8
    }

    /// Those updates that are of one row, with A and B as `sides` gives them, and the scales of their ranks.
    fn add_singles<'a, N: Number + 'a>(
        &self,
        onto: Buffer,
        updates: &'a [(Range<usize>, LowRank<'a>)],
        sides: impl Fn(&'a LowRank<'a>) -> ([Right<'a, N>; 2], Option<[&'a [f32]; 2]>),
    ) -> Buffer {
        let of_one_row = updates.iter().filter(|(range, _)| range.len() == 1);
        let single = |(range, update): &'a (Range<usize>, LowRank<'a>)| {
            let ([a, b], scales) = sides(update);
            let (input, rank) = (update.input.host().values(), update.a.forward.width());
            Single { row: range.start, input, rank, a, b, scale: update.scale as f32, scales }
        };
        let mut updates: Vec<_> = of_one_row.map(single).collect();
        if updates.is_empty() {
            return onto;
        }
        updates.sort_by_key(|update| update.rank);
        let mut draft = draft(onto);
        let width = draft.width();
        self.level.run(Singles { updates: &updates, width, out: draft.values() });
        host(draft)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;
    use crate::cpu::lanes::Level;
    use crate::random::Random;

    fn tensor(random: &mut Random, shape: [usize; 2]) -> Tensor {
        Tensor::new(shape, (0..shape[0] * shape[1]).map(|_| random.normal()).collect())
    }

    /// Rows of zeros with one update each, or with each of several rows: those of one update must not depend on that.
    #[test]
    fn a_row_alone_and_beside_other_updates_has_the_bits_that_it_has_among_rows() {
        let (input, output) = (37, 150);
        for (level, activations) in
            Level::all().into_iter().flat_map(|level| [Activations::F32, Activations::Int8].map(|how| (level, how)))
        {
            let cpu = Cpu { activations, ..Cpu::with(level) };
            for ranks in [&[16][..], &[1, 5], &[8, 8, 17], &[16, 4, 16, 4, 33, 16, 16], &[16; 13]] {
                let mut random = Random::new(7, &["ranks", &ranks.len().to_string()]);
                let (x, start) =
                    (tensor(&mut random, [ranks.len(), input]), tensor(&mut random, [ranks.len(), output]));
                let (x, start) = (cpu.upload(&x).unwrap(), cpu.upload(&start).unwrap());
                let pair = |rank: &usize| {
                    let sides = [[*rank, input], [output, *rank]].map(|shape| tensor(&mut random, shape));
                    cpu.parameters(&sides).unwrap()
                };
                let pairs: Vec<_> = ranks.iter().map(pair).collect();
                let rows: Vec<_> = (0..ranks.len()).map(|row| cpu.narrow(&x, row..row + 1).unwrap()).collect();
                let update = |row: usize| {
                    let [a, b] = [&pairs[row][0], &pairs[row][1]];
                    (row..row + 1, LowRank { input: &rows[row], a, b, scale: 0.7 })
                };
                let updates: Vec<_> = (0..ranks.len()).map(update).collect();
                let beside = cpu.add_low_ranks(start.clone(), &updates).unwrap();
                for (row, (range, update)) in updates.iter().enumerate() {
                    let alone = cpu.add_low_ranks(start.clone(), &[(range.clone(), *update)]).unwrap();
                    assert_eq!(alone.host().row(row), beside.host().row(row));
                    let all = LowRank { input: &x, ..*update };
                    let (among, _) = cpu.add_low_rank(start.clone(), 0..ranks.len(), all).unwrap();
                    assert_eq!(among.host().row(row), beside.host().row(row), "{ranks:?}, row {row}");
                }
            }
        }
    }

    #[test]
    fn in_bytes_an_update_is_near_what_it_is_in_numbers() {
        let mut random = Random::new(8, &["bytes"]);
        let [a, b] = [[16, 200], [90, 16]].map(|shape| tensor(&mut random, shape));
        let x = tensor(&mut random, [3, 200]);
        let of = |activations| {
            let cpu = Cpu { activations, ..Cpu::best() };
            let pair = cpu.parameters(&[a.clone(), b.clone()]).unwrap();
            let (x, start) = (cpu.upload(&x).unwrap(), host(Draft::zeros(3, 90)));
            let update = LowRank { input: &x, a: &pair[0], b: &pair[1], scale: 1.0 };
            cpu.add_low_rank(start, 0..3, update).unwrap().0.host().values().to_vec()
        };
        let (exact, near) = (of(Activations::F32), of(Activations::Int8));
        let length = |values: &mut dyn Iterator<Item = f32>| values.map(|value| value * value).sum::<f32>().sqrt();
        let error = length(&mut exact.iter().zip(&near).map(|(one, other)| one - other));
        let relative = error / length(&mut exact.iter().copied());
        assert!(relative > 0.0 && relative < 0.01, "{relative}");
    }
}
