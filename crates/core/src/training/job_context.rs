//! State that the runs of a job share: thread pool, features, and the head initialised on the bare base. Successive halving has
//! several runs, other jobs have one.

use super::feature_cache::{CachedFeatures, FeatureExtractor};
use super::head_init::{self, HeadInit};
use super::job::Settings;
use super::network::Network;
use super::progress::{Interrupted, ProgressReporter};
use super::spec::Spec;
use super::tokenized_dataset::TokenizedDataset;
use crate::error::{Error, Result};
use crate::model::{BaseModel, FirstTrainableLayer};
use crate::task::RowSelection;
use espalier_tensor::Tensor;
use espalier_tensor::worker_pool::{Priority, WorkerPool};
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

/// Shared state of a job's runs.
pub struct JobContext<'a> {
    pub base: &'a Arc<BaseModel>,
    pub settings: &'a Settings,
    pub pool: Arc<WorkerPool>,
    /// Folder of the feature cache.
    cache_dir: &'a Path,
    /// Features by the layer that reads them.
    features_by_layer: RefCell<Vec<(FirstTrainableLayer, CachedFeatures)>>,
    /// Head initialised on the features of the bare base.
    head_init: RefCell<Option<HeadInit>>,
}

impl<'a> JobContext<'a> {
    pub fn new(base: &'a Arc<BaseModel>, settings: &'a Settings, cache_dir: &'a Path) -> Result<Self> {
        let pool = Arc::new(WorkerPool::new("training", Priority::Background, settings.threads)?);
        Ok(Self {
            base,
            settings,
            pool,
            cache_dir,
            features_by_layer: RefCell::default(),
            head_init: RefCell::default(),
        })
    }

    pub fn feature_extractor<'b>(
        &'b self,
        spec: &'b Spec,
        network: &'b Arc<Network>,
        dataset: &'b TokenizedDataset,
    ) -> FeatureExtractor<'b> {
        let hidden_size = self.base.info().hidden_size;
        FeatureExtractor {
            spec,
            pool: &self.pool,
            network,
            dataset,
            hidden_size,
            settings: self.settings,
            cache_dir: self.cache_dir,
        }
    }

    /// Features of the frozen base below the lowest trainable layer.
    pub fn cached_features(
        &self,
        extractor: &FeatureExtractor,
        reporter: &mut ProgressReporter,
    ) -> Result<CachedFeatures, Interrupted> {
        let uncached = CachedFeatures::uncached(extractor.dataset);
        match extractor.network.first_trainable_layer() {
            // Embeddings are faster to look up than to read from disk.
            FirstTrainableLayer::Embeddings | FirstTrainableLayer::Layer(0) => Ok(uncached),
            _ if !extractor.dataset.objective.is_epoch_invariant() => Ok(uncached),
            layer => self.features_at(layer, &uncached, extractor, reporter),
        }
    }

    fn features_at(
        &self,
        layer: FirstTrainableLayer,
        lower: &CachedFeatures,
        extractor: &FeatureExtractor,
        reporter: &mut ProgressReporter,
    ) -> Result<CachedFeatures, Interrupted> {
        let existing =
            self.features_by_layer.borrow().iter().find(|(of, _)| *of == layer).map(|(_, features)| features.clone());
        if let Some(features) = existing {
            return Ok(features);
        }
        let features = extractor.load_or_compute(layer, lower, reporter)?;
        self.features_by_layer.borrow_mut().push((layer, features.clone()));
        Ok(features)
    }

    /// Head fitted to its input rows: those of the bare base where the adapter does not change them before the first step, else those
    /// of the adapter's initial parameters. `None` where no head is trained.
    pub fn fit_head_init(
        &self,
        extractor: &FeatureExtractor,
        lower: &CachedFeatures,
        initial_parameters: &[Tensor],
        reporter: &mut ProgressReporter,
    ) -> Result<Option<HeadInit>, Interrupted> {
        let (first_trainable, output_head) =
            (extractor.network.first_trainable_layer(), extractor.network.output_head());
        let examples = head_init::probe_examples(output_head, extractor.dataset);
        let is_base_output = first_trainable == FirstTrainableLayer::Head || extractor.spec.is_identity_at_init();
        match self.head_init.borrow().clone() {
            Some(found) if is_base_output => return Ok(Some(found)),
            _ if examples.is_empty() => return Ok(None),
            _ => {}
        }
        let rows = match (first_trainable, output_head.row_selection) {
            (FirstTrainableLayer::Head, _) => lower.features(&examples)?,
            (_, RowSelection::Pooled(_)) if is_base_output => {
                self.features_at(FirstTrainableLayer::Head, lower, extractor, reporter)?.features(&examples)?
            }
            (_, RowSelection::Pooled(_) | RowSelection::TargetPositions) => {
                Some(extractor.adapted_features(initial_parameters, lower, &examples, reporter)?)
            }
        };
        let rows = rows.ok_or_else(|| Error::internal("the input rows of a head are always cached"))?;
        let head_init =
            head_init::fit_head(extractor, &examples, &rows, initial_parameters, self.base.backend().as_ref())?;
        if is_base_output {
            *self.head_init.borrow_mut() = head_init.clone();
        }
        Ok(head_init)
    }
}
