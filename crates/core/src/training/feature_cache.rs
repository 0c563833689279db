//! Feature cache: outputs of the frozen base below the lowest trainable layer, computed once per dataset.
//!
//! A row depends on its own sequence alone and is stored bit-exactly, so the bytes of a result do not depend on the cache.

use super::batching::{CachedRows, ForwardInput};
use super::feature_store::{self, FeatureFile, FeatureFileWriter, FeatureLayout};
use super::hyperparameters::Precision;
use super::job::Settings;
use super::network::Network;
use super::progress::{Interrupted, ProgressReporter};
use super::spec::Spec;
use super::tokenized_dataset::TokenizedDataset;
use super::{batching, parallel_forward};
use crate::error::{Error, Result};
use crate::model::{FirstTrainableLayer, Tokens};
use crate::task::RowSelection;
use espalier_tensor::worker_pool::WorkerPool;
use espalier_tensor::{RaggedLayout, Tensor};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Inputs of forward passes over a dataset: tokens, and cached features where these exist.
#[derive(Clone)]
pub struct CachedFeatures {
    tokens: Arc<Vec<Vec<Arc<Tokens>>>>,
    cached: Option<Arc<FeatureRows>>,
}

struct FeatureRows {
    rows: Storage,
    layout: FeatureLayout,
    /// Layer that reads the rows.
    layer: FirstTrainableLayer,
    row_selection: RowSelection,
}

enum Storage {
    Disk(FeatureFile),
    /// Input rows of a head that exceed the disk budget; training a head needs them.
    Memory(Vec<f32>),
}

impl CachedFeatures {
    pub fn uncached(dataset: &TokenizedDataset) -> Self {
        Self { tokens: Arc::clone(&dataset.tokens), cached: None }
    }

    pub fn forward_input(&self, examples: &[usize]) -> Result<ForwardInput> {
        let sequences = examples.iter().flat_map(|example| &self.tokens[*example]);
        let cached_rows = |features: &Arc<FeatureRows>| {
            let layout = RaggedLayout::from_lengths(sequences.clone().map(|tokens| features.row_count(tokens)));
            let rows = Tensor::new([layout.num_rows(), features.layout.row_width()], features.read(examples)?);
            Ok::<_, Error>(CachedRows { rows, layout: Arc::new(layout), layer: features.layer })
        };
        let cached = self.cached.as_ref().map(cached_rows).transpose()?;
        Ok(ForwardInput { tokens: sequences.map(Arc::clone).collect(), cached })
    }

    /// Number of sequences of an example.
    pub fn sequence_count(&self, example: usize) -> usize {
        self.tokens[example].len()
    }

    /// Cached values of some examples, concatenated; `None` without a cache.
    pub fn features(&self, examples: &[usize]) -> Result<Option<Vec<f32>>> {
        self.cached.as_ref().map(|features| features.read(examples)).transpose()
    }
}

impl FeatureRows {
    fn row_count(&self, tokens: &Tokens) -> usize {
        row_count(self.layer, self.row_selection, tokens)
    }

    /// Values of some examples, concatenated.
    fn read(&self, examples: &[usize]) -> Result<Vec<f32>> {
        match &self.rows {
            Storage::Disk(file) => file.read(examples),
            Storage::Memory(values) => {
                Ok(examples.iter().flat_map(|index| &values[self.layout.value_range(*index)]).copied().collect())
            }
        }
    }
}

/// Rows of a sequence that a layer reads.
fn row_count(layer: FirstTrainableLayer, row_selection: RowSelection, tokens: &Tokens) -> usize {
    match layer {
        FirstTrainableLayer::Embeddings | FirstTrainableLayer::Layer(_) => tokens.ids.len(),
        FirstTrainableLayer::Pooler => 1,
        FirstTrainableLayer::Head => row_selection.row_count(tokens),
    }
}

/// Computes features of a dataset.
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
    /// Input rows of `layer`, from the store or computed on top of the features of a lower layer. Returns `lower` where there is no
    /// space for them.
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
                tracing::info!(?layer, "features of this dataset are cached");
                Storage::Disk(file)
            }
            None => match (FeatureFileWriter::new(self.settings, self.cache_dir, &key, &layout), layer) {
                (Some(mut writer), _) => {
                    let missing = writer.missing_examples().to_vec();
                    let store = |index: usize, values: &[f32]| writer.write(index, values);
                    self.compute_features(layer, lower, &missing, reporter, store, &layout)?;
                    Storage::Disk(writer.finish()?)
                }
                (None, FirstTrainableLayer::Head) => {
                    let mut buffer = vec![0.0; layout.value_count()];
                    let store = |index: usize, values: &[f32]| {
                        buffer[layout.value_range(index)].copy_from_slice(values);
                        Ok(())
                    };
                    let all: Vec<usize> = (0..self.dataset.tokens.len()).collect();
                    self.compute_features(layer, lower, &all, reporter, store, &layout)?;
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

    /// Input rows of the head for some examples, computed with an adapter that changes the base's outputs from the start.
    pub fn adapted_features(
        &self,
        parameters: &[Tensor],
        lower: &CachedFeatures,
        examples: &[usize],
        reporter: &mut ProgressReporter,
    ) -> Result<Vec<f32>, Interrupted> {
        let parameters = self.network.upload(parameters)?;
        let layout = self.layout(FirstTrainableLayer::Head);
        let mut rows_by_example: BTreeMap<usize, Vec<f32>> = BTreeMap::new();
        let store = |index: usize, values: &[f32]| {
            rows_by_example.insert(index, values.to_vec());
            Ok(())
        };
        let (network, lower) = (Arc::clone(self.network), lower.clone());
        let forward =
            move |micro_batch: Vec<usize>| network.head_inputs(&parameters, &lower.forward_input(&micro_batch)?);
        self.for_each_example(examples, forward, reporter, store, &layout)?;
        Ok(examples.iter().flat_map(|example| rows_by_example.remove(example).unwrap_or_default()).collect())
    }

    /// Layout of the input rows of `layer` for all examples.
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
        examples: &[usize],
        reporter: &mut ProgressReporter,
        consume: impl FnMut(usize, &[f32]) -> Result<()>,
        layout: &FeatureLayout,
    ) -> Result<(), Interrupted> {
        let (network, lower) = (Arc::clone(self.network), lower.clone());
        let forward =
            move |micro_batch: Vec<usize>| network.frozen_features(&lower.forward_input(&micro_batch)?, layer);
        self.for_each_example(examples, forward, reporter, consume, layout)
    }

    /// Passes the outputs of `forward` for each of these examples to `consume`, in any order.
    fn for_each_example(
        &self,
        examples: &[usize],
        forward: impl Fn(Vec<usize>) -> Result<Vec<f32>> + Send + Sync + 'static,
        reporter: &mut ProgressReporter,
        consume: impl FnMut(usize, &[f32]) -> Result<()>,
        layout: &FeatureLayout,
    ) -> Result<(), Interrupted> {
        let micro_batches = batching::micro_batches(examples, &self.dataset.lengths, self.spec.micro_batch_tokens);
        let value_count = |example: usize| layout.value_range(example).len();
        parallel_forward::for_each_example(self.pool, &micro_batches, forward, reporter, value_count, consume)
    }

    /// Key of everything that the rows depend on.
    fn cache_key(&self, layer: FirstTrainableLayer) -> String {
        let layer_name = match layer {
            FirstTrainableLayer::Embeddings => "embeddings".to_string(),
            FirstTrainableLayer::Layer(layer) => format!("layer {layer}"),
            FirstTrainableLayer::Pooler | FirstTrainableLayer::Head => {
                format!("{layer:?} {:?}", self.network.output_head().row_selection)
            }
        };
        let kernels = match self.spec.hyperparameters.precision {
            Precision::F32 => self.spec.kernels.clone(),
            Precision::Int8 => format!("{} int8", self.spec.kernels),
        };
        let base = [&self.spec.base, &kernels, &layer_name].map(|part| part.as_bytes().to_vec());
        let id_bytes = |tokens: &Arc<Tokens>| {
            let all = tokens.ids.iter().chain(&tokens.type_ids).chain(&tokens.target_positions);
            all.flat_map(|id| id.to_le_bytes()).collect()
        };
        feature_store::cache_key(base.into_iter().chain(self.dataset.tokens.iter().flatten().map(id_bytes)))
    }
}
