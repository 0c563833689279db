//! The task of an adapter that PEFT saved: its `task_type`, and what the tensors show where that does not say it.

use super::{ImportRequest, unsupported_adapter};
use crate::adapter::TensorMap;
use crate::adapter::peft::ModuleNaming;
use crate::artifact::base::BaseSummary;
use crate::artifact::peft::{self, head::HeadLayout, weights};
use crate::error::{Error, Result};
use crate::model::Pooling;
use crate::task;

const SEQ_CLS: &str = "SEQ_CLS";
const CAUSAL_LM: &str = "CAUSAL_LM";
const FEATURE_EXTRACTION: &str = "FEATURE_EXTRACTION";

/// The task of an adapter.
pub struct InferredTask {
    pub task: task::Config,
    /// Pooling that decides which sites the adapter may adapt.
    pub pooling: Pooling,
    /// Layout of the head's tensors, if the adapter has a head.
    pub head: Option<HeadLayout>,
}

/// # Errors
/// `Invalid`: `unsupported_adapter` for a task that this server or the base does not have, or that cannot be inferred;
/// `invalid_import` for a pooling in the request where the task has none.
pub fn infer_task(
    config: &peft::Config,
    request: &ImportRequest,
    tensors: &TensorMap,
    summary: &BaseSummary,
) -> Result<InferredTask> {
    let evidence = Evidence { tensors, summary, request };
    match config.task_type.as_deref() {
        Some(SEQ_CLS) => evidence.classification(summary.info.classification_pooling()),
        Some(CAUSAL_LM) => evidence.causal_lm(),
        Some(FEATURE_EXTRACTION) => match evidence.has_head() {
            true => evidence.headed_model(),
            false => evidence.embedding(),
        },
        None => evidence.without_task_type(),
        Some(other) => Err(unsupported_adapter(&format!(
            "its task_type is {other}, this server takes {SEQ_CLS}, {FEATURE_EXTRACTION}, {CAUSAL_LM} and null"
        ))),
    }
}

/// What the task is inferred from.
struct Evidence<'a> {
    tensors: &'a TensorMap,
    summary: &'a BaseSummary,
    request: &'a ImportRequest,
}

impl Evidence<'_> {
    fn without_task_type(&self) -> Result<InferredTask> {
        if self.has_head() {
            return self.headed_model();
        }
        match self.naming() {
            // The language model names its modules as the classification model does; the bare decoder does not.
            Some(ModuleNaming::WithHead) | None if self.summary.info.is_causal_lm => self.causal_lm(),
            Some(ModuleNaming::WithHead) if self.request.pooling.is_none() => self.masked_lm(),
            Some(ModuleNaming::WithHead | ModuleNaming::Bare) | None => self.embedding(),
        }
    }

    /// The naming of the module's keys; `None` if there are none, as with prompt-learning methods.
    fn naming(&self) -> Option<ModuleNaming> {
        let sites = &self.summary.sites;
        weights::has_module_keys(self.tensors, sites).then(|| weights::detect_naming(self.tensors, sites))
    }

    /// Whether the file has the tensors of a classifier.
    fn has_head(&self) -> bool {
        let layout = self.head_layout(&self.classification_task(self.summary.info.classification_pooling()));
        !layout.is_missing_from(self.tensors) || !HeadLayout::LINEAR.is_missing_from(self.tensors)
    }

    /// A classifier, on transformers' classification model or on the bare encoder.
    fn headed_model(&self) -> Result<InferredTask> {
        let pooling = match (self.naming(), self.request.pooling) {
            (_, Some(requested)) => requested,
            (Some(ModuleNaming::WithHead) | None, None) => self.summary.info.classification_pooling(),
            (Some(ModuleNaming::Bare), None) => {
                return Err(unsupported_adapter(
                    "it was trained on the bare encoder, and its file does not say how its head reads a sequence: say \
                     in the request by \"pooling\" (\"mean\" or \"cls\")",
                ));
            }
        };
        self.classification(pooling)
    }

    fn classification(&self, default_pooling: Pooling) -> Result<InferredTask> {
        let pooling = self.offered_pooling(self.request.pooling.unwrap_or(default_pooling))?;
        let task = self.classification_task(pooling);
        let head = self.head_layout(&task);
        Ok(InferredTask { task, pooling, head: Some(head) })
    }

    fn embedding(&self) -> Result<InferredTask> {
        let info = &self.summary.info;
        // A sentence encoder states its pooling.
        let known = self.request.pooling.or_else(|| info.sentence_encoder.then_some(info.default_pooling));
        let pooling = known.ok_or_else(|| {
            unsupported_adapter(
                "it has no classifier, so that it gives embeddings, and neither its file nor this base says how a \
                 sequence is read: say in the request by \"pooling\" (such as \"mean\")",
            )
        })?;
        let pooling = self.offered_pooling(pooling)?;
        let task = task::Config::Embedding(task::embedding::Config { pooling: Some(pooling), loss: None });
        Ok(InferredTask { task, pooling, head: None })
    }

    /// The head of a language model belongs to the base.
    fn causal_lm(&self) -> Result<InferredTask> {
        match self.summary.info.is_causal_lm {
            true => {
                let task = task::Config::CausalLanguageModel(task::causal_language_model::Config::default());
                self.language_model(task)
            }
            false => {
                Err(unsupported_adapter("its task_type is CAUSAL_LM, and this server's base is not a language model"))
            }
        }
    }

    fn masked_lm(&self) -> Result<InferredTask> {
        match self.summary.info.mask_token {
            Some(_) => {
                let task = task::Config::MaskedLanguageModel(task::masked_language_model::Config::default());
                self.language_model(task)
            }
            None => Err(unsupported_adapter(
                "its task_type is null and it has no classifier, and this base's checkpoint has no head of a masked \
                 language model: save a classifier with modules_to_save=[\"classifier\"], or say by \"pooling\" in the \
                 request that it gives embeddings",
            )),
        }
    }

    fn language_model(&self, task: task::Config) -> Result<InferredTask> {
        match self.request.pooling {
            None => Ok(InferredTask { task, pooling: Pooling::Mean, head: None }),
            Some(_) => {
                let task = task.type_name();
                let detail =
                    format!("the adapter's task is {task}, which pools nothing: leave pooling out of the request");
                Err(Error::invalid("invalid_import", detail))
            }
        }
    }

    fn classification_task(&self, pooling: Pooling) -> task::Config {
        task::Config::default().with_pooling(pooling).with_base_head(self.summary.info.classification_head())
    }

    fn head_layout(&self, task: &task::Config) -> HeadLayout {
        HeadLayout::for_reading(self.tensors, task, self.summary)
    }

    fn offered_pooling(&self, pooling: Pooling) -> Result<Pooling> {
        match self.summary.info.poolings.contains(&pooling) {
            true => Ok(pooling),
            false => Err(unsupported_adapter("its pooling is not one that this base offers")),
        }
    }
}

/// The regression task in place of a classification whose head has one row: transformers trains such a head with the squared error.
pub fn regression_for(classification: &task::Config) -> task::Config {
    let mut task = task::Config::Regression(task::regression::Config::default());
    if let task::Config::SequenceClassification(config) = classification {
        task =
            task::Config::Regression(task::regression::Config { pooling: config.pooling, head: config.head.clone() });
    }
    task
}
