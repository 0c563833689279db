//! What the frozen base computes of the examples below the lowest place that is trained: once, exactly, and then read.
//!
//! A row depends on its own sequence alone and is kept bit by bit, so a run gives the same bytes whether rows were read
//! or computed. Knows nothing of steps.

use super::network::{self, Network, Source};
use super::pieces;
use super::prepare::Prepared;
use super::remembered::{self, Draft, Remembered, Shape};
use super::run::Halt;
use super::speaker::Speaker;
use super::{Settings, Spec, order};
use crate::error::{Error, Result};
use crate::model::{Lowest, Tokens};
use crate::task::Reading;
use espalier_tensor::pool::Crew;
use espalier_tensor::{Packed, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What a forward pass over examples starts from: their tokens, or rows that are known.
#[derive(Clone)]
pub struct Frozen {
    tokens: Arc<Vec<Vec<Arc<Tokens>>>>,
    known: Option<Arc<Known>>,
}

struct Known {
    rows: Rows,
    shape: Shape,
    /// Where the rows go into.
    place: Lowest,
    reading: Reading,
}

enum Rows {
    Disk(Remembered),
    /// Rows of a head that did not fit into the budget: without them there is nothing to train it on.
    Memory(Vec<f32>),
}

impl Frozen {
    pub fn nothing(prepared: &Prepared) -> Self {
        Self { tokens: Arc::clone(&prepared.tokens), known: None }
    }

    pub fn source(&self, examples: &[usize]) -> Result<Source> {
        let sequences = examples.iter().flat_map(|example| &self.tokens[*example]);
        let known = |known: &Arc<Known>| {
            let layout = Packed::from_lengths(sequences.clone().map(|tokens| known.rows_of(tokens)));
            let rows = Tensor::new([layout.rows(), known.shape.width()], known.read(examples)?);
            Ok::<_, Error>(network::Known { rows, layout: Arc::new(layout), place: known.place })
        };
        let known = self.known.as_ref().map(known).transpose()?;
        Ok(Source { tokens: sequences.map(Arc::clone).collect(), known })
    }

    /// How many an example has.
    pub fn sequences(&self, example: usize) -> usize {
        self.tokens[example].len()
    }

    /// The known numbers of some examples, in their order; `None` where nothing is known.
    pub fn read(&self, examples: &[usize]) -> Result<Option<Vec<f32>>> {
        self.known.as_ref().map(|known| known.read(examples)).transpose()
    }
}

impl Known {
    fn rows_of(&self, tokens: &Tokens) -> usize {
        rows_of(self.place, self.reading, tokens)
    }

    /// The numbers of some examples, end to end.
    fn read(&self, examples: &[usize]) -> Result<Vec<f32>> {
        match &self.rows {
            Rows::Disk(remembered) => remembered.read(examples),
            Rows::Memory(values) => {
                Ok(examples.iter().flat_map(|index| &values[self.shape.numbers(*index)]).copied().collect())
            }
        }
    }
}

/// How many rows of a sequence go into a place.
fn rows_of(place: Lowest, reading: Reading, tokens: &Tokens) -> usize {
    match place {
        Lowest::Embeddings | Lowest::Layer(_) => tokens.ids.len(),
        Lowest::Pooler => 1,
        Lowest::Head => reading.rows(tokens),
    }
}

/// What it takes to compute them.
pub struct Desk<'a> {
    pub spec: &'a Spec,
    pub crew: &'a Crew,
    pub network: &'a Arc<Network>,
    pub prepared: &'a Prepared,
    pub width: usize,
    pub settings: &'a Settings,
    pub folder: &'a Path,
}

impl Desk<'_> {
    /// The rows that go into `place`, from an earlier run or computed on top of what is known below. Where there is no
    /// room for them, what is known stays what it is.
    pub fn frozen(&self, place: Lowest, below: &Frozen, speaker: &mut Speaker) -> Result<Frozen, Halt> {
        let shape = self.shape(place);
        let (key, reading) = (self.key(place), self.network.reader().reading);
        let rows = match Remembered::open(self.folder, &key, &shape) {
            Some(remembered) => {
                tracing::info!(?place, "what the base makes of this dataset is remembered");
                Rows::Disk(remembered)
            }
            None => match (Draft::new(self.settings, self.folder, &key, &shape), place) {
                (Some(draft), _) => {
                    self.compute(place, below, speaker, |index, values| draft.write(index, values), &shape)?;
                    Rows::Disk(draft.finish()?)
                }
                (None, Lowest::Head) => {
                    let mut all = vec![0.0; shape.all()];
                    let take = |index: usize, values: &[f32]| {
                        all[shape.numbers(index)].copy_from_slice(values);
                        Ok(())
                    };
                    self.compute(place, below, speaker, take, &shape)?;
                    Rows::Memory(all)
                }
                (None, _) => return Ok(below.clone()),
            },
        };
        Ok(Frozen { tokens: Arc::clone(&below.tokens), known: Some(Arc::new(Known { rows, shape, place, reading })) })
    }

    /// The rows that a head would read of some examples, under an adapter that does something from the start.
    pub fn read(
        &self,
        parameters: &[Tensor],
        below: &Frozen,
        examples: &[usize],
        speaker: &mut Speaker,
    ) -> Result<Vec<f32>, Halt> {
        let parameters = self.network.upload(parameters)?;
        let shape = self.shape(Lowest::Head);
        let mut found: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        let take = |index: usize, values: &[f32]| {
            found.insert(index, values.to_vec());
            Ok(())
        };
        let (network, below) = (Arc::clone(self.network), below.clone());
        let compute = move |piece: Vec<usize>| network.read(&parameters, &below.source(&piece)?);
        self.each(examples, compute, speaker, take, &shape)?;
        Ok(examples.iter().flat_map(|example| found.remove(example).unwrap_or_default()).collect())
    }

    /// The rows of every example that go into a place.
    fn shape(&self, place: Lowest) -> Shape {
        let reading = self.network.reader().reading;
        let rows = |sequences: &Vec<Arc<Tokens>>| sequences.iter().map(|one| rows_of(place, reading, one)).sum();
        Shape::new(self.prepared.tokens.iter().map(rows), self.width)
    }

    fn compute(
        &self,
        place: Lowest,
        below: &Frozen,
        speaker: &mut Speaker,
        take: impl FnMut(usize, &[f32]) -> Result<()>,
        shape: &Shape,
    ) -> Result<(), Halt> {
        let (network, below) = (Arc::clone(self.network), below.clone());
        let compute = move |piece: Vec<usize>| network.frozen(&below.source(&piece)?, place);
        let all: Vec<usize> = (0..self.prepared.tokens.len()).collect();
        self.each(&all, compute, speaker, take, shape)
    }

    /// What `compute` makes of each of these examples, in whatever order.
    fn each(
        &self,
        examples: &[usize],
        compute: impl Fn(Vec<usize>) -> Result<Vec<f32>> + Send + Sync + 'static,
        speaker: &mut Speaker,
        mut take: impl FnMut(usize, &[f32]) -> Result<()>,
        shape: &Shape,
    ) -> Result<(), Halt> {
        let cut = order::micro_batches(examples, &self.prepared.lengths, self.spec.micro_batch_tokens);
        pieces::each(self.crew, &cut, compute, speaker, |piece, values| {
            let mut rest = values;
            for index in piece {
                let (own, after) = rest.split_at(shape.numbers(*index).len());
                take(*index, own)?;
                rest = after;
            }
            Ok(())
        })
    }

    /// Everything that the rows are a function of.
    fn key(&self, place: Lowest) -> String {
        let what = match place {
            Lowest::Embeddings => "embeddings".to_string(),
            Lowest::Layer(layer) => format!("layer {layer}"),
            Lowest::Pooler | Lowest::Head => format!("{place:?} {:?}", self.network.reader().reading),
        };
        let base = [&self.spec.base, &self.spec.kernels, &what].map(|part| part.as_bytes().to_vec());
        let ids = |tokens: &Arc<Tokens>| {
            let all = tokens.ids.iter().chain(&tokens.type_ids).chain(&tokens.picked);
            all.flat_map(|id| id.to_le_bytes()).collect()
        };
        remembered::key(base.into_iter().chain(self.prepared.tokens.iter().flatten().map(ids)))
    }
}
