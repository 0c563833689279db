//! What the frozen base computes of the examples below the lowest place that is trained: once, exactly, and then read.
//!
//! A row depends on its own sequence alone and is kept bit by bit, so a run gives the same bytes whether rows were read
//! or computed. Knows nothing of steps.

use super::network::{Network, Source};
use super::pieces;
use super::prepare::Prepared;
use super::remembered::{self, Draft, Remembered, Shape};
use super::run::Halt;
use super::speaker::Speaker;
use super::{Settings, Spec, order};
use crate::compute::pool::Crew;
use crate::compute::{Packed, Tensor};
use crate::error::Result;
use crate::model::{Lowest, Tokens};
use std::path::Path;
use std::sync::Arc;

/// What a forward pass over examples starts from: their tokens, or rows that are known.
#[derive(Clone)]
pub struct Frozen {
    tokens: Arc<Vec<Arc<Tokens>>>,
    known: Option<Arc<Known>>,
}

struct Known {
    rows: Rows,
    shape: Shape,
    /// Where the rows go into.
    place: Lowest,
}

enum Rows {
    Disk(Remembered),
    /// Pooled rows that did not fit into the budget: they are few, and the head's start needs them all at once.
    Memory(Vec<f32>),
}

impl Frozen {
    pub fn nothing(prepared: &Prepared) -> Self {
        Self { tokens: Arc::clone(&prepared.tokens), known: None }
    }

    pub fn source(&self, examples: &[usize]) -> Result<Source> {
        let Some(known) = &self.known else {
            return Ok(Source::Tokens(examples.iter().map(|index| Arc::clone(&self.tokens[*index])).collect()));
        };
        let layout = Packed::from_lengths(examples.iter().map(|index| known.shape.rows(*index)));
        let rows = Tensor::new([layout.rows(), known.shape.width()], known.read(examples)?);
        Ok(Source::Remembered { rows, layout: Arc::new(layout), place: known.place })
    }

    /// The known numbers of all examples, in their order; `None` where nothing is known.
    pub fn all(&self) -> Result<Option<Vec<f32>>> {
        let examples: Vec<usize> = (0..self.tokens.len()).collect();
        self.known.as_ref().map(|known| known.read(&examples)).transpose()
    }
}

impl Known {
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
        let rows_of = |tokens: &Arc<Tokens>| match place {
            Lowest::Embeddings | Lowest::Layer(_) => tokens.ids.len(),
            Lowest::Pooler | Lowest::Head => 1,
        };
        let shape = Shape::new(self.prepared.tokens.iter().map(rows_of), self.width);
        let key = self.key(place);
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
        Ok(Frozen { tokens: Arc::clone(&below.tokens), known: Some(Arc::new(Known { rows, shape, place })) })
    }

    /// The pooled rows of all examples under an adapter that does something from the start.
    pub fn pooled(&self, parameters: &[Tensor], below: &Frozen, speaker: &mut Speaker) -> Result<Vec<f32>, Halt> {
        let parameters = self.network.upload(parameters)?;
        let shape = Shape::new(self.prepared.tokens.iter().map(|_| 1), self.width);
        let mut all = vec![0.0; shape.all()];
        let take = |index: usize, values: &[f32]| {
            all[shape.numbers(index)].copy_from_slice(values);
            Ok(())
        };
        let (network, below) = (Arc::clone(self.network), below.clone());
        let compute = move |piece: Vec<usize>| network.pooled(&parameters, &below.source(&piece)?);
        self.each(compute, speaker, take, &shape)?;
        Ok(all)
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
        self.each(compute, speaker, take, shape)
    }

    /// What `compute` makes of every example, in whatever order.
    fn each(
        &self,
        compute: impl Fn(Vec<usize>) -> Result<Vec<f32>> + Send + Sync + 'static,
        speaker: &mut Speaker,
        mut take: impl FnMut(usize, &[f32]) -> Result<()>,
        shape: &Shape,
    ) -> Result<(), Halt> {
        let all: Vec<usize> = (0..self.prepared.tokens.len()).collect();
        let cut = order::micro_batches(&all, &self.prepared.lengths, self.spec.micro_batch_tokens);
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
            Lowest::Pooler | Lowest::Head => format!("{place:?} {:?}", self.network.pooling()),
        };
        let base = [&self.spec.base, &self.spec.kernels, &what].map(|part| part.as_bytes().to_vec());
        let ids =
            |tokens: &Arc<Tokens>| tokens.ids.iter().chain(&tokens.type_ids).flat_map(|id| id.to_le_bytes()).collect();
        remembered::key(base.into_iter().chain(self.prepared.tokens.iter().map(ids)))
    }
}
