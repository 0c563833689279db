//! The gradients of one batch, micro-batch by micro-batch on a crew.
//!
//! Where an example's loss depends on the others, all micro-batches are computed forward first, then the loss of the whole
//! batch, then each back: from what it remembers, or, where that would be too much at once, computed again (Gao 2021).

use super::asked::{Asked, Moment};
use super::frozen::Frozen;
use super::network::{self, Forward, Network, Part, Source, Uploaded};
use super::order;
use super::prepare::Prepared;
use super::spec::Spec;
use crate::error::Result;
use crate::task::targets::Targets;
use espalier_tensor::pool::Crew;
use espalier_tensor::{Dropout, Tensor};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Tokens of a batch whose micro-batches may all remember their way back at once.
const REMEMBERED_TOKENS: usize = 16_384;

pub struct Batch<'a> {
    pub crew: &'a Crew,
    pub network: &'a Arc<Network>,
    pub prepared: &'a Prepared,
    pub frozen: &'a Frozen,
    pub spec: &'a Spec,
    pub parameters: Uploaded,
    pub step: u64,
    pub epoch: u64,
}

/// What a micro-batch is computed with on any thread.
#[derive(Clone)]
struct Bench {
    network: Arc<Network>,
    frozen: Frozen,
    parameters: Uploaded,
    asked: Option<Asked>,
    seed: u64,
    step: u64,
    epoch: u64,
}

impl Batch<'_> {
    /// Of the micro-batches, in their order. `denominator` divides the loss.
    pub fn parts(&self, examples: &[usize], denominator: f64) -> Result<Vec<Part>> {
        let pieces = order::micro_batches(examples, &self.prepared.lengths, self.spec.micro_batch_tokens);
        let bench = Bench {
            network: Arc::clone(self.network),
            frozen: self.frozen.clone(),
            parameters: Arc::clone(&self.parameters),
            asked: self.prepared.asked.clone(),
            seed: self.spec.hyperparameters.seed,
            step: self.step,
            epoch: self.epoch,
        };
        if self.prepared.targets.is_coupled() && pieces.len() > 1 {
            return self.coupled(examples, pieces, &bench, denominator);
        }
        let targets = Arc::clone(&self.prepared.targets);
        let compute = move |piece: Vec<usize>| {
            let forward = |source: Source| bench.network.forward(&bench.parameters, source, bench.dropout(&piece));
            let source = bench.frozen.source(&piece)?;
            match &bench.asked {
                None => bench.network.gradients(forward(source)?, &targets.pick(&piece), denominator),
                Some(asked) => {
                    let (source, words) = asked.ask(source, &piece, Moment::Epoch(bench.epoch));
                    match targets.as_ref() {
                        Targets::Preferred { .. } => {
                            let targets = targets.pick(&piece);
                            bench.network.preference_gradients(forward(source)?, &words, &targets, denominator)
                        }
                        _ => bench.network.language_gradients(forward(source)?, &words, denominator),
                    }
                }
            }
        };
        self.crew.map(pieces, &Arc::new(compute))
    }

    fn coupled(
        &self,
        examples: &[usize],
        pieces: Vec<Vec<usize>>,
        bench: &Bench,
        denominator: f64,
    ) -> Result<Vec<Part>> {
        let tokens: usize = examples.iter().map(|example| self.prepared.lengths[*example]).sum();
        let keeps = tokens <= REMEMBERED_TOKENS && self.network.keeps(tokens / self.crew.threads());
        let forward = bench.clone();
        let ahead = move |piece: Vec<usize>| -> Result<_> {
            let forward = forward.forward(&piece)?;
            let outputs = forward.outputs()?;
            Ok((outputs, keeps.then_some(forward)))
        };
        let (outputs, forwards): (Vec<Tensor>, Vec<Option<Forward>>) =
            self.crew.map(pieces.clone(), &Arc::new(ahead))?.into_iter().unzip();
        let (loss, mut gradients) = self.whole(examples, &pieces, &outputs, denominator);
        network::finite(loss)?;
        let by_piece = |(piece, forward): (Vec<usize>, Option<Forward>)| {
            let rows: Vec<Vec<f32>> = piece.iter().filter_map(|example| gradients.remove(example)).collect();
            let count: usize = piece.iter().map(|example| self.prepared.targets.rows(*example)).sum();
            (piece, forward, Tensor::new([count, self.network.width()], rows.concat()))
        };
        let tasks: Vec<_> = pieces.into_iter().zip(forwards).map(by_piece).collect();
        let bench = bench.clone();
        let back = move |(piece, forward, gradient): (Vec<usize>, Option<Forward>, Tensor)| -> Result<_> {
            let forward = forward.map_or_else(|| bench.forward(&piece), Ok)?;
            Ok(Part { loss: 0.0, gradients: bench.network.backward(forward, &gradient)? })
        };
        let mut parts = self.crew.map(tasks, &Arc::new(back))?;
        if let Some(first) = parts.first_mut() {
            first.loss = loss;
        }
        Ok(parts)
    }

    /// The loss of the whole batch, and its gradient by each example's rows.
    fn whole(
        &self,
        examples: &[usize],
        pieces: &[Vec<usize>],
        outputs: &[Tensor],
        denominator: f64,
    ) -> (f64, BTreeMap<usize, Vec<f32>>) {
        let (targets, width) = (&self.prepared.targets, self.network.width());
        let mut rows: BTreeMap<usize, &[f32]> = BTreeMap::new();
        for (piece, outputs) in pieces.iter().zip(outputs) {
            let mut rest = outputs.values.as_slice();
            for example in piece {
                let (own, after) = rest.split_at(targets.rows(*example) * width);
                rows.insert(*example, own);
                rest = after;
            }
        }
        // In the order of the batch, however it was cut.
        let all: Vec<f32> = examples.iter().flat_map(|example| rows[example].iter().copied()).collect();
        let (loss, gradient) = targets.pick(examples).loss_of(&all);
        let mut rest = gradient.into_iter().map(|value| (value / denominator) as f32);
        let own = |example: &usize| (*example, rest.by_ref().take(targets.rows(*example) * width).collect());
        (loss, examples.iter().map(own).collect())
    }
}

impl Bench {
    fn forward(&self, piece: &[usize]) -> Result<Forward> {
        self.network.forward(&self.parameters, self.frozen.source(piece)?, self.dropout(piece))
    }

    /// A mask is a function of the example and of its sequence.
    fn dropout(&self, piece: &[usize]) -> Dropout {
        let sequences = |example: &usize| {
            let example = *example as u64;
            (0..self.frozen.sequences(example as usize) as u64).map(move |sequence| example | sequence << 48)
        };
        Dropout { seed: self.seed, step: self.step, examples: piece.iter().flat_map(sequences).collect() }
    }
}
