//! What the frozen base computes of the examples below the lowest place that is trained: once, exactly, and then read.
//!
//! A row depends on its own sequence alone and is kept bit by bit, so a run gives the same bytes whether rows were read
//! or computed. Knows nothing of steps.

use super::feature_store::{self, FeatureFile, FeatureFileWriter, FeatureLayout};
use super::network::{self, ForwardInput, Network};
use super::parallel_forward;
use super::progress_reporter::ProgressReporter;
use super::tokenized_dataset::TokenizedDataset;
use super::trainer::Interrupted;
use super::{Settings, Spec, batching};
use crate::error::{Error, Result};
use crate::model::{FirstTrainableLayer, Tokens};
use crate::task::RowSelection;
use espalier_tensor::worker_pool::WorkerPool;
use espalier_tensor::{RaggedLayout, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What a forward pass over examples starts from: their tokens, or rows that are known.
#[derive(Clone)]
pub struct CachedFeatures {
    tokens: Arc<Vec<Vec<Arc<Tokens>>>>,
    cached: Option<Arc<FeatureRows>>,
}

struct FeatureRows {
    rows: Storage,
    layout: FeatureLayout,
    /// Where the rows go into.
    layer: FirstTrainableLayer,
    row_selection: RowSelection,
}

enum Storage {
    Disk(FeatureFile),
    /// Rows of a head that did not fit into the budget: without them there is nothing to train it on.
    Memory(Vec<f32>),
}

impl CachedFeatures {
    pub fn uncached(dataset: &TokenizedDataset) -> Self {
        Self { tokens: Arc::clone(&dataset.tokens), cached: None }
    }

    pub fn forward_input(&self, examples: &[usize]) -> Result<ForwardInput> {
        let sequences = examples.iter().flat_map(|example| &self.tokens[*example]);
        let cached_rows = |known: &Arc<FeatureRows>| {
            let layout = RaggedLayout::from_lengths(sequences.clone().map(|tokens| known.row_count(tokens)));
            let rows = Tensor::new([layout.num_rows(), known.layout.row_width()], known.read(examples)?);
            Ok::<_, Error>(network::CachedRows { rows, layout: Arc::new(layout), layer: known.layer })
        };
        let known = self.cached.as_ref().map(cached_rows).transpose()?;
        Ok(ForwardInput { tokens: sequences.map(Arc::clone).collect(), cached: known })
    }

    /// How many an example has.
    pub fn sequence_count(&self, example: usize) -> usize {
        self.tokens[example].len()
    }

    /// The known numbers of some examples, in their order; `None` where nothing is known.
    pub fn features(&self, examples: &[usize]) -> Result<Option<Vec<f32>>> {
        self.cached.as_ref().map(|known| known.read(examples)).transpose()
    }
}

impl FeatureRows {
    fn row_count(&self, tokens: &Tokens) -> usize {
        row_count(self.layer, self.row_selection, tokens)
    }

    /// The numbers of some examples, end to end.
    fn read(&self, examples: &[usize]) -> Result<Vec<f32>> {
        match &self.rows {
            Storage::Disk(remembered) => remembered.read(examples),
            Storage::Memory(values) => {
                Ok(examples.iter().flat_map(|index| &values[self.layout.value_range(*index)]).copied().collect())
            }
        }
    }
}

/// How many rows of a sequence go into a place.
fn row_count(layer: FirstTrainableLayer, row_selection: RowSelection, tokens: &Tokens) -> usize {
    match layer {
        FirstTrainableLayer::Embeddings | FirstTrainableLayer::Layer(_) => tokens.ids.len(),
        FirstTrainableLayer::Pooler => 1,
        FirstTrainableLayer::Head => row_selection.row_count(tokens),
    }
}

/// What it takes to compute them.
pub struct FeatureExtractor<'a> {
    pub spec: &'a Spec,
    pub pool: &'a WorkerPool,
    pub network: &'a Arc<Network>,
    pub dataset: &'a TokenizedDataset,
    pub hidden_size: usize,
    pub settings: &'a Settings,
    pub cache_dir: &'a Path,
}

impl FeatureExtractor<'_> {
    /// The rows that go into `place`, from an earlier run or computed on top of what is known below. Where there is no
    /// room for them, what is known stays what it is.
    pub fn load_or_compute(
        &self,
        layer: FirstTrainableLayer,
        lower: &CachedFeatures,
        reporter: &mut ProgressReporter,
    ) -> Result<CachedFeatures, Interrupted> {
        let layout = self.layout(layer);
        let (key, row_selection) = (self.cache_key(layer), self.network.output_head().row_selection);
        let rows = match FeatureFile::open(self.cache_dir, &key, &layout) {
            Some(file) => {
                tracing::info!(?layer, "what the base makes of this dataset is remembered");
                Storage::Disk(file)
            }
            None => match (FeatureFileWriter::new(self.settings, self.cache_dir, &key, &layout), layer) {
                (Some(writer), _) => {
                    self.compute_features(
                        layer,
                        lower,
                        reporter,
                        |index, values| writer.write(index, values),
                        &layout,
                    )?;
                    Storage::Disk(writer.finish()?)
                }
                (None, FirstTrainableLayer::Head) => {
                    let mut buffer = vec![0.0; layout.value_count()];
                    let store = |index: usize, values: &[f32]| {
                        buffer[layout.value_range(index)].copy_from_slice(values);
                        Ok(())
                    };
                    self.compute_features(layer, lower, reporter, store, &layout)?;
                    Storage::Memory(buffer)
                }
                (None, _) => return Ok(lower.clone()),
            },
        };
        Ok(CachedFeatures {
            tokens: Arc::clone(&lower.tokens),
            cached: Some(Arc::new(FeatureRows { rows, layout, layer, row_selection })),
        })
    }

    /// The rows that a head would read of some examples, under an adapter that does something from the start.
    pub fn adapted_features(
        &self,
        parameters: &[Tensor],
        lower: &CachedFeatures,
        examples: &[usize],
        reporter: &mut ProgressReporter,
    ) -> Result<Vec<f32>, Interrupted> {
        let parameters = self.network.upload(parameters)?;
        let shape = self.layout(FirstTrainableLayer::Head);
        let mut rows_by_example: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        let store = |index: usize, values: &[f32]| {
            rows_by_example.insert(index, values.to_vec());
            Ok(())
        };
        let (network, below) = (Arc::clone(self.network), lower.clone());
        let forward =
            move |micro_batch: Vec<usize>| network.head_inputs(&parameters, &below.forward_input(&micro_batch)?);
        self.for_each_example(examples, forward, reporter, store, &shape)?;
        Ok(examples.iter().flat_map(|example| rows_by_example.remove(example).unwrap_or_default()).collect())
    }

    /// The rows of every example that go into a place.
    fn layout(&self, layer: FirstTrainableLayer) -> FeatureLayout {
        let row_selection = self.network.output_head().row_selection;
        let rows_per_example =
            |sequences: &Vec<Arc<Tokens>>| sequences.iter().map(|one| row_count(layer, row_selection, one)).sum();
        FeatureLayout::new(self.dataset.tokens.iter().map(rows_per_example), self.hidden_size)
    }

    fn compute_features(
        &self,
        layer: FirstTrainableLayer,
        lower: &CachedFeatures,
        reporter: &mut ProgressReporter,
        consume: impl FnMut(usize, &[f32]) -> Result<()>,
        layout: &FeatureLayout,
    ) -> Result<(), Interrupted> {
        let (network, below) = (Arc::clone(self.network), lower.clone());
        let forward =
            move |micro_batch: Vec<usize>| network.frozen_features(&below.forward_input(&micro_batch)?, layer);
        let all: Vec<usize> = (0..self.dataset.tokens.len()).collect();
        self.for_each_example(&all, forward, reporter, consume, layout)
    }

    /// What `compute` makes of each of these examples, in whatever order.
    fn for_each_example(
        &self,
        examples: &[usize],
        forward: impl Fn(Vec<usize>) -> Result<Vec<f32>> + Send + Sync + 'static,
        reporter: &mut ProgressReporter,
        mut consume: impl FnMut(usize, &[f32]) -> Result<()>,
        layout: &FeatureLayout,
    ) -> Result<(), Interrupted> {
        let micro_batches = batching::micro_batches(examples, &self.dataset.lengths, self.spec.micro_batch_tokens);
        parallel_forward::parallel_forward(self.pool, &micro_batches, forward, reporter, |piece, values| {
            let mut remaining = values;
            for index in piece {
                let (example_values, following) = remaining.split_at(layout.value_range(*index).len());
                consume(*index, example_values)?;
                remaining = following;
            }
            Ok(())
        })
    }

    /// Everything that the rows are a function of.
    fn cache_key(&self, layer: FirstTrainableLayer) -> String {
        let layer_name = match layer {
            FirstTrainableLayer::Embeddings => "embeddings".to_string(),
            FirstTrainableLayer::Layer(layer) => format!("layer {layer}"),
            FirstTrainableLayer::Pooler | FirstTrainableLayer::Head => {
                format!("{layer:?} {:?}", self.network.output_head().row_selection)
            }
        };
        let base = [&self.spec.base, &self.spec.kernels, &layer_name].map(|part| part.as_bytes().to_vec());
        let id_bytes = |tokens: &Arc<Tokens>| {
            let all = tokens.ids.iter().chain(&tokens.type_ids).chain(&tokens.target_positions);
            all.flat_map(|id| id.to_le_bytes()).collect()
        };
        feature_store::cache_key(base.into_iter().chain(self.dataset.tokens.iter().flatten().map(id_bytes)))
    }
}
