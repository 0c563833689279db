//! What a run's parameters are worth: on the validation examples, and what preferences are measured against.

use super::{Halt, Run};
use crate::error::Result;
use crate::model::Lowest;
use crate::task::metrics::preference;
use crate::task::targets::Targets;
use crate::training::asked::Moment;
use crate::training::evaluate::Evaluated;
use crate::training::speaker::Speaker;
use crate::training::{order, pieces};
use espalier_tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Run<'_> {
    /// What preferences are measured against: the policy before the first step, computed once and kept with every checkpoint.
    pub(super) fn refer(&mut self, speaker: &mut Speaker) -> Result<(), Halt> {
        let Targets::Preferred { lengths, .. } = self.prepared.targets.as_ref() else { return Ok(()) };
        if self.state.counters.reference.len() != lengths.len() {
            let all: Vec<usize> = (0..lengths.len()).collect();
            let judged = self.judged(&self.state.parameters, &all, speaker)?;
            self.state.counters.reference = preference::sums(&judged, lengths);
        }
        self.prepared.targets = Arc::new(self.prepared.targets.against(&self.state.counters.reference));
        Ok(())
    }

    pub(super) fn evaluate(&mut self, speaker: &mut Speaker) -> Result<(), Halt> {
        if !self.prepared.validation.is_empty() {
            let evaluated = self.evaluated(&self.state.parameters, speaker)?;
            let row = evaluated.row(self.state.counters.step);
            let (score, loss) = (evaluated.figures.score(self.spec.metric()), evaluated.figures.loss());
            // A fresh adapter is the bare base: it is measured, to be compared with, but never published.
            let is_bare = self.spec.from_adapter.is_none() && self.network.lowest() != Lowest::Head;
            if self.state.counters.step > 0 || !is_bare {
                self.state.rank(score, loss);
            }
            self.state.counters.rows.push(row);
        }
        self.sample(speaker)?;
        self.state.counters.evaluated = Some(self.state.counters.step);
        Ok(())
    }

    /// The score and the loss of the best evaluation so far, the present parameters' own included. Evaluates without a trace.
    pub fn verdict(&self, speaker: &mut Speaker) -> Result<(f64, f64), Halt> {
        let counters = &self.state.counters;
        let best = counters.best.as_ref().map(|best| (best.score, best.loss));
        if let Some(best) = best
            && counters.evaluated == Some(counters.step)
        {
            return Ok(best);
        }
        let figures = self.evaluated(&self.state.parameters, speaker)?.figures;
        let now = (figures.score(self.spec.metric()), figures.loss());
        Ok(best.filter(|best| best.0 > now.0 || (best.0 == now.0 && best.1 <= now.1)).unwrap_or(now))
    }

    /// The validation split's logits and figures under these parameters.
    pub fn evaluated(&self, parameters: &[Tensor], speaker: &mut Speaker) -> Result<Evaluated, Halt> {
        let indices = &self.prepared.validation;
        let outputs = self.judged(parameters, indices, speaker)?;
        Ok(Evaluated::new(outputs, self.prepared.targets.pick(indices), &self.spec.labels))
    }

    /// What evaluation keeps of these examples, end to end.
    fn judged(&self, parameters: &[Tensor], indices: &[usize], speaker: &mut Speaker) -> Result<Vec<f32>, Halt> {
        let parameters = self.network.upload(parameters)?;
        let (network, frozen) = (Arc::clone(&self.network), self.frozen.clone());
        let asked = self.prepared.asked.clone();
        let compute = move |piece: Vec<usize>| {
            let source = frozen.source(&piece)?;
            let Some(asked) = &asked else { return network.outputs(&parameters, &source) };
            let (source, words) = asked.ask(source, &piece, Moment::Measured);
            network.judged(&parameters, &source, &words)
        };
        let targets = &self.prepared.targets;
        let width = self.network.width();
        let cut = order::micro_batches(indices, &self.prepared.lengths, self.spec.micro_batch_tokens);
        let mut outputs: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        pieces::each(&self.crew, &cut, compute, speaker, |piece, mut rest| {
            for index in piece {
                let (own, after) = rest.split_at(targets.rows(*index) * width);
                outputs.insert(*index, own.to_vec());
                rest = after;
            }
            Ok(())
        })?;
        Ok(indices.iter().flat_map(|index| outputs.remove(index).unwrap_or_default()).collect())
    }
}
