//! One run: from a fresh adapter or a checkpoint to the last step.
//!
//! Everything that a step needs is a function of (data, specification, step), and micro-batches are summed in order, so
//! that neither threads nor interruptions change a bit. Evaluation and samples are in files of their own.

mod evaluation;
mod samples;

use super::checkpoint::{Counters, Folder, State};
use super::evaluate;
use super::frozen::Frozen;
use super::network::{Network, Part};
use super::optimizer::{self, Moments, Rule, Update};
use super::parts::Batch;
use super::prepare::Prepared;
use super::shared::Shared;
use super::speaker::Speaker;
use super::warm_start::{FromAdapter, HeadStart, Source};
use super::{Row, Settings, Spec, Stop, order, start};
use crate::adapter::Parameters;
use crate::error::{Error, Result};
use espalier_tensor::Tensor;
use espalier_tensor::pool::Crew;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// Why a run did not go on.
pub enum Halt {
    Stop(Stop),
    Error(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Updates between two `train` rows.
const ROW_EVERY: u64 = 10;

pub struct Run<'a> {
    pub spec: &'a Spec,
    pub prepared: Prepared,
    pub state: State,
    pub names: Vec<String>,
    /// Tensors that travel with the adapter but are not trained.
    pub constants: BTreeMap<String, Tensor>,
    network: Arc<Network>,
    rules: Vec<Rule>,
    crew: Arc<Crew>,
    /// What the frozen base computes below the lowest trained place.
    frozen: Frozen,
    /// The present epoch and the order of its examples.
    order: Option<(u64, Vec<usize>)>,
    total_steps: u64,
    /// Of the base's rows.
    width: usize,
}

impl<'a> Run<'a> {
    /// Resumes from the folder's checkpoint, or else starts from `source`, or draws a fresh adapter; a head that nothing is
    /// known of starts from the features.
    pub fn start(
        shared: &Shared,
        spec: &'a Spec,
        prepared: Prepared,
        source: Option<&Source>,
        folder: &Folder,
        speaker: &mut Speaker,
    ) -> Result<Self, Halt> {
        let (base, width) = (shared.base, shared.base.info().hidden_size);
        let parameters = match source {
            Some(source) => source.parameters(spec, &prepared.targets, width),
            None => Parameters::fresh(spec.hyperparameters.seed),
        };
        let (network, built) = Network::build(base, spec, parameters)?;
        let (names, constants) = (built.names, built.frozen);
        let saved = folder.load(&names)?;
        let is_fresh = saved.is_none();
        let state = saved.unwrap_or_else(|| State {
            moments: Moments::zeros(&built.tensors),
            parameters: built.tensors,
            best: None,
            counters: Counters { rows: spec.from_adapter.iter().map(start_row).collect(), ..Counters::default() },
        });
        let total_steps = spec.hyperparameters.total_steps(prepared.training.len());
        let settings = shared.settings;
        let network = Arc::new(network.within(settings.activation_bytes / settings.threads.max(1) as u64));
        let desk = shared.desk(spec, &network, &prepared);
        let frozen = shared.below(&desk, speaker)?;
        let head = match is_fresh && spec.head_start() != HeadStart::Kept {
            true => shared.head(&desk, &frozen, &state.parameters, speaker)?,
            false => None,
        };
        let mut run = Self {
            rules: rules(spec, &names, &state.parameters),
            crew: Arc::clone(&shared.crew),
            network,
            width,
            frozen,
            order: None,
            total_steps,
            prepared,
            state,
            names,
            constants,
            spec,
        };
        if let Some(found) = head {
            run.start_head(found, source);
        }
        run.refer(speaker)?;
        match is_fresh {
            true => tracing::info!(total_steps, "training starts"),
            false => tracing::info!(step = run.state.counters.step, total_steps, "training resumes"),
        }
        Ok(run)
    }

    /// What is known of the head comes before what was fitted.
    fn start_head(&mut self, found: start::Found, source: Option<&Source>) {
        let (Some(head), width) = (self.network.reader().head(), self.width) else { return };
        let targets = self.prepared.targets.pick(&[]).by_row();
        let fit = match (source, self.spec.head_start()) {
            (Some(source), HeadStart::Extended) => source.extend(found.fit, &targets, width),
            _ => found.fit,
        };
        let count = targets.outputs();
        self.state.parameters[head.weight.index()] = Tensor::new([count, width], fit.weight);
        self.state.parameters[head.bias.index()] = Tensor::new([count], fit.bias);
        if let (Some(layer), Some([weight, bias])) = (head.dense, found.dense) {
            self.state.parameters[layer.weight.index()] = weight;
            self.state.parameters[layer.bias.index()] = bias;
        }
    }

    /// Steps and evaluations up to this step, or to the run's end where that comes first. The state is consistent whenever
    /// this returns.
    pub fn go(&mut self, to: u64, folder: &Folder, settings: &Settings, speaker: &mut Speaker) -> Result<(), Halt> {
        let per_epoch = self.spec.hyperparameters.steps_per_epoch(self.prepared.training.len());
        let (mut saved, mut saved_step) = (Instant::now(), self.state.counters.step);
        if self.state.counters.step == 0 && self.state.counters.evaluated.is_none() {
            self.save(folder, speaker)?;
        }
        loop {
            let step = self.state.counters.step;
            let at_end = step == self.total_steps;
            if (step.is_multiple_of(per_epoch) || at_end) && self.state.counters.evaluated != Some(step) {
                self.evaluate(speaker)?;
            }
            if at_end || step >= to || self.is_exhausted() {
                // So that whatever happens while the adapter is published costs no step.
                if saved_step < step {
                    self.save(folder, speaker)?;
                }
                return Ok(());
            }
            if saved.elapsed() >= settings.checkpoint_every {
                self.save(folder, speaker)?;
                (saved, saved_step) = (Instant::now(), step);
            }
            let loss = self.step(per_epoch)?;
            speaker.stepped(&self.state.counters, self.spec, self.total_steps, per_epoch, loss)?;
        }
    }

    fn save(&self, folder: &Folder, speaker: &mut Speaker) -> Result<()> {
        folder.save(&self.state, &self.names)?;
        speaker.checkpointed();
        Ok(())
    }

    /// Early stopping: too many evaluations without a better one.
    fn is_exhausted(&self) -> bool {
        let stopping = self.spec.hyperparameters.early_stopping.as_ref();
        stopping.is_some_and(|stopping| self.state.counters.stale >= stopping.patience)
    }

    /// One update. Answers the batch's mean loss.
    fn step(&mut self, per_epoch: u64) -> Result<f64, Halt> {
        let settings = &self.spec.hyperparameters;
        let step = self.state.counters.step;
        let (epoch, within) = (step / per_epoch, (step % per_epoch) as usize);
        if self.order.as_ref().is_none_or(|(of, _)| *of != epoch) {
            self.order = Some((epoch, order::epoch(&self.prepared.training, settings.seed, epoch)));
        }
        let order = self.order.as_ref().map_or(&[][..], |(_, order)| order.as_slice());
        let start = within * settings.step_examples();
        let batch = &order[start..order.len().min(start + settings.step_examples())];
        let weight = self.prepared.targets.weight(batch).max(1);
        let computed = Batch {
            crew: &self.crew,
            network: &self.network,
            prepared: &self.prepared,
            frozen: &self.frozen,
            spec: self.spec,
            parameters: self.network.upload(&self.state.parameters)?,
            step,
            epoch,
        };
        let (loss, mut gradients) = self.sum(&computed.parts(batch, weight as f64)?);
        let norm = optimizer::clip(&mut gradients, settings.max_grad_norm);
        let learning_rate = optimizer::learning_rate(step + 1, self.total_steps, settings);
        let update = Update { step: step + 1, learning_rate, weight_decay: settings.weight_decay };
        update.apply(&mut self.state.parameters, &self.rules, &gradients, &mut self.state.moments);
        let counters = &mut self.state.counters;
        counters.step += 1;
        counters.window_loss += loss;
        counters.window_examples += weight as u64;
        if counters.step.is_multiple_of(ROW_EVERY) || counters.step == self.total_steps {
            let mean = counters.window_loss / counters.window_examples as f64;
            counters.rows.push(evaluate::train_row(counters.step, mean, learning_rate, norm));
            (counters.window_loss, counters.window_examples) = (0.0, 0);
        }
        Ok(loss / weight as f64)
    }

    /// In the order of the micro-batches, whoever computed them.
    fn sum(&self, parts: &[Part]) -> (f64, Vec<Vec<f32>>) {
        let mut gradients: Vec<Vec<f32>> =
            self.state.parameters.iter().map(|one| vec![0.0; one.values.len()]).collect();
        for part in parts {
            for (sum, gradient) in gradients.iter_mut().zip(&part.gradients) {
                sum.iter_mut().zip(gradient).for_each(|(sum, value)| *sum += value);
            }
        }
        (parts.iter().map(|part| part.loss).sum(), gradients)
    }
}

/// What becomes of the adapter that a run starts from.
fn start_row(from: &FromAdapter) -> Row {
    Row { step: 0, split: "start".to_string(), metrics: json!({"from_adapter": from}) }
}

fn rules(spec: &Spec, names: &[String], parameters: &[Tensor]) -> Vec<Rule> {
    let rule = |(name, parameter): (&String, _)| Rule::of(parameter, spec.method.learning_rate_ratio(name));
    names.iter().zip(parameters).map(rule).collect()
}
