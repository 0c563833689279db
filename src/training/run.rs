//! One run: from a fresh adapter or a checkpoint to the last step.
//!
//! Everything that a step needs is a function of (data, specification, step), and micro-batches are summed in order, so
//! that neither threads nor interruptions change a bit.

use super::checkpoint::{Counters, Folder, State};
use super::evaluate::{self, Evaluated};
use super::frozen::{Desk, Frozen};
use super::network::{Network, Part};
use super::optimizer::{self, Moments, Rule, Update};
use super::prepare::Prepared;
use super::speaker::Speaker;
use super::{Settings, Spec, Stop, order, pieces};
use crate::adapter::Parameters;
use crate::compute::pool::{Crew, Priority};
use crate::compute::{Dropout, Kernels, Tensor};
use crate::error::{Error, Result};
use crate::model::{Base, Lowest, Pooling};
use crate::task::start;
use std::collections::BTreeMap;
use std::path::Path;
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
    crew: Crew,
    /// What the frozen base computes below the lowest trained place.
    frozen: Frozen,
    /// The present epoch and the order of its examples.
    order: Option<(u64, Vec<usize>)>,
    total_steps: u64,
    width: usize,
}

impl<'a> Run<'a> {
    /// Resumes from the folder's checkpoint, or draws a fresh adapter whose head starts from the frozen features.
    pub fn start(
        base: &Arc<Base>,
        spec: &'a Spec,
        prepared: Prepared,
        folder: &Folder,
        settings: &Settings,
        remembered: &Path,
        speaker: &mut Speaker,
    ) -> Result<Self, Halt> {
        let (network, built) = Network::build(base, spec, Parameters::fresh(spec.hyperparameters.seed))?;
        let (names, constants) = (built.names, built.frozen);
        let saved = folder.load(&names)?;
        let is_fresh = saved.is_none();
        let state = saved.unwrap_or_else(|| State {
            moments: Moments::zeros(&built.tensors),
            parameters: built.tensors,
            best: None,
            counters: Counters::default(),
        });
        let total_steps = spec.hyperparameters.total_steps(prepared.training.len());
        let network = Arc::new(network);
        let crew = Crew::new("training", Priority::Lowest, settings.threads)?;
        let width = base.info().hidden_size;
        let desk =
            Desk { spec, crew: &crew, network: &network, prepared: &prepared, width, settings, folder: remembered };
        let frozen = match network.lowest() {
            // The embeddings alone are sooner looked up than read.
            Lowest::Embeddings | Lowest::Layer(0) => Frozen::nothing(&prepared),
            lowest => desk.frozen(lowest, &Frozen::nothing(&prepared), speaker)?,
        };
        let features = match (is_fresh, network.lowest()) {
            (false, _) => None,
            (true, Lowest::Head) => frozen.all()?,
            (true, _) if spec.method.starts_neutral() => desk.frozen(Lowest::Head, &frozen, speaker)?.all()?,
            (true, _) => Some(desk.pooled(&state.parameters, &frozen, speaker)?),
        };
        let mut run = Self {
            rules: rules(spec, &names, &state.parameters),
            crew,
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
        if let Some(features) = features {
            run.start_head(&features, base.kernels().as_ref())?;
        }
        match is_fresh {
            true => tracing::info!(total_steps, "training starts"),
            false => tracing::info!(step = run.state.counters.step, total_steps, "training resumes"),
        }
        Ok(run)
    }

    /// `features` are the frozen base's pooled rows of all examples.
    fn start_head(&mut self, features: &[f32], kernels: &dyn Kernels) -> Result<()> {
        let (training, width) = (&self.prepared.training, self.width);
        let row = |index: &usize| &features[index * width..(index + 1) * width];
        let mut values: Vec<f32> = training.iter().flat_map(|index| row(index).iter().copied()).collect();
        let targets = self.prepared.targets.pick(training);
        let count = targets.outputs();
        let head = self.network.head();
        if let Some(layer) = head.dense {
            let start = start::dense::start(&values, width, layer.activation, kernels)?;
            self.state.parameters[layer.weight.index()] = start.weight;
            self.state.parameters[layer.bias.index()] = start.bias;
            values = start.rows;
        }
        let fit = start::fit(&start::Features::new(&values, width, &targets), kernels)?;
        self.state.parameters[head.weight.index()] = Tensor::new([count, width], fit.weight);
        self.state.parameters[head.bias.index()] = Tensor::new([count], fit.bias);
        Ok(())
    }

    /// Steps and evaluations up to the end. The state is consistent whenever this returns.
    pub fn go(&mut self, folder: &Folder, settings: &Settings, speaker: &mut Speaker) -> Result<(), Halt> {
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
            if at_end || self.is_exhausted() {
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

    pub fn pooling(&self) -> Pooling {
        self.network.pooling()
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
        let parts = self.parts(batch, step)?;
        let (loss, mut gradients) = self.sum(&parts);
        let norm = optimizer::clip(&mut gradients, settings.max_grad_norm);
        let learning_rate = optimizer::learning_rate(step + 1, self.total_steps, settings);
        let update = Update { step: step + 1, learning_rate, weight_decay: settings.weight_decay };
        update.apply(&mut self.state.parameters, &self.rules, &gradients, &mut self.state.moments);
        let counters = &mut self.state.counters;
        counters.step += 1;
        counters.window_loss += loss;
        counters.window_examples += batch.len() as u64;
        if counters.step.is_multiple_of(ROW_EVERY) || counters.step == self.total_steps {
            let mean = counters.window_loss / counters.window_examples as f64;
            counters.rows.push(evaluate::train_row(counters.step, mean, learning_rate, norm));
            (counters.window_loss, counters.window_examples) = (0.0, 0);
        }
        Ok(loss / batch.len() as f64)
    }

    fn parts(&self, batch: &[usize], step: u64) -> Result<Vec<Part>> {
        let pieces = order::micro_batches(batch, &self.prepared.lengths, self.spec.micro_batch_tokens);
        let parameters = self.network.upload(&self.state.parameters)?;
        let (network, targets) = (Arc::clone(&self.network), Arc::clone(&self.prepared.targets));
        let (frozen, seed) = (self.frozen.clone(), self.spec.hyperparameters.seed);
        let denominator = batch.len() as f64;
        let compute = move |piece: Vec<usize>| {
            let targets = targets.pick(&piece);
            let dropout = Dropout { seed, step, examples: piece.iter().map(|index| *index as u64).collect() };
            network.gradients(&parameters, &frozen.source(&piece)?, &targets, denominator, dropout)
        };
        self.crew.map(pieces, &Arc::new(compute))
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

    fn evaluate(&mut self, speaker: &mut Speaker) -> Result<(), Halt> {
        if !self.prepared.validation.is_empty() {
            let evaluated = self.evaluated(&self.state.parameters, speaker)?;
            let row = evaluated.row(self.state.counters.step);
            let (score, loss) = (evaluated.figures.score(self.spec.metric()), evaluated.figures.loss());
            // A fresh adapter is the bare base: it is measured, to be compared with, but never published.
            if self.state.counters.step > 0 || self.network.lowest() == Lowest::Head {
                self.state.rank(score, loss);
            }
            self.state.counters.rows.push(row);
        }
        self.state.counters.evaluated = Some(self.state.counters.step);
        Ok(())
    }

    /// The validation split's logits and figures under these parameters.
    pub fn evaluated(&self, parameters: &[Tensor], speaker: &mut Speaker) -> Result<Evaluated, Halt> {
        let parameters = self.network.upload(parameters)?;
        let (network, frozen) = (Arc::clone(&self.network), self.frozen.clone());
        let compute = move |piece: Vec<usize>| network.logits(&parameters, &frozen.source(&piece)?);
        let indices = &self.prepared.validation;
        let width = self.network.outputs();
        let cut = order::micro_batches(indices, &self.prepared.lengths, self.spec.micro_batch_tokens);
        let place: BTreeMap<usize, usize> = indices.iter().copied().zip(0..).collect();
        let mut logits = vec![0.0; indices.len() * width];
        pieces::each(&self.crew, &cut, compute, speaker, |piece, rows| {
            for (index, row) in piece.iter().zip(rows.chunks_exact(width)) {
                logits[place[index] * width..][..width].copy_from_slice(row);
            }
            Ok(())
        })?;
        let targets = self.prepared.targets.pick(indices);
        Ok(Evaluated::new(logits, targets, &self.spec.labels))
    }
}

impl State {
    /// Keeps the parameters where this evaluation is the best so far; the earlier one stays in a tie.
    fn rank(&mut self, score: f64, loss: f64) {
        let best = self.counters.best.as_ref();
        let is_better = best.is_none_or(|best| score > best.score || (score == best.score && loss < best.loss));
        match is_better {
            true => {
                self.counters.best = Some(super::checkpoint::Best { step: self.counters.step, score, loss });
                self.best = Some(self.parameters.clone());
                self.counters.stale = 0;
            }
            false => self.counters.stale += 1,
        }
    }
}

fn rules(spec: &Spec, names: &[String], parameters: &[Tensor]) -> Vec<Rule> {
    let rule = |(name, parameter): (&String, _)| Rule::of(parameter, spec.method.learning_rate_ratio(name));
    names.iter().zip(parameters).map(rule).collect()
}
