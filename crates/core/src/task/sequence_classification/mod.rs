//! Sequence classification: one label, or with `multi_label` a set of labels, for a text or a pair of texts.
//! Training on single labels minimises the cross entropy over the classes.

use super::{
    Example, HeadSpec, Input, PostprocessContext, RowSchema, Task, TaskDefaults, UntrainableRows, calibration, head,
};
use crate::error::{FieldError, Result};
use crate::model::{ClassificationHeadSpec, Pooling, TextLimits, Tokenizer, Tokens};
use crate::task::Target;
use crate::task::decision_threshold::{self, LabelThreshold, Threshold, Thresholds};
use crate::task::label_weights::{ClassWeights, LabelWeights};
use crate::task::metrics::TaskMetrics;
use crate::task::objective::{LabelIds, LossAndGradient, LossContext, MicroBatch, Objective, ObjectiveContext, gather};
use crate::task::row_targets::RowTargets;
use metrics::ClassificationMetrics;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

mod metrics;
mod multi_label;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SequenceClassification)]
pub struct Config {
    /// Pooling of a sequence to one row; by default the base's own, but `mean` in place of `cls` with fewer than 200 examples.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Layers of the head; by default those of the base's own head for `cls`, else one linear map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<head::Config>,
    /// A set of labels per text, possibly empty, instead of exactly one label.
    #[serde(default, skip_serializing_if = "is_false")]
    pub multi_label: bool,
    /// Weights of the labels in the training loss, against rare labels: `balanced`, or a number per label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Task for Config {
    fn type_name(&self) -> &'static str {
        "sequence_classification"
    }

    fn defaults(&self) -> TaskDefaults {
        TaskDefaults::TEXT
    }

    fn metric_names(&self) -> &'static [&'static str] {
        match self.multi_label {
            true => &["micro_f1", "loss", "macro_f1", "exact_match"],
            false => &["accuracy", "loss", "macro_f1"],
        }
    }

    fn row_schemas(&self) -> &'static [RowSchema] {
        match self.multi_label {
            true => &[RowSchema::Labels],
            false => &[RowSchema::Label],
        }
    }

    fn head(&self, labels: &[String]) -> HeadSpec {
        HeadSpec::pooled(labels.len(), self.head.as_ref())
    }

    fn tokenize_input(&self, tokenizer: &Tokenizer, input: &Input, limits: TextLimits) -> Result<Tokens> {
        input.tokenize(tokenizer, limits)
    }

    fn tokenize_example(&self, tokenizer: &Tokenizer, example: &Example, max_length: usize) -> Result<Vec<Tokens>> {
        Ok(vec![example.tokenize(tokenizer, max_length)?])
    }

    fn untrainable_rows(&self) -> UntrainableRows {
        UntrainableRows::Refuse
    }

    fn objective(&self, context: &ObjectiveContext) -> Result<Box<dyn Objective>> {
        Ok(match self.multi_label {
            true => Box::new(multi_label::LabelSetObjective::new(context, self)?),
            false => Box::new(ClassObjective::new(context, self)?),
        })
    }

    fn postprocess(
        &self,
        context: &PostprocessContext,
        outputs: Vec<f32>,
        _input: &Input,
    ) -> Result<super::Prediction> {
        Ok(match self.multi_label {
            true => {
                let mut prediction = postprocess_multi_label(context.labels, &outputs, context.thresholds);
                prediction.logits = context.include_logits.then_some(outputs);
                super::Prediction::MultiLabel(prediction)
            }
            false => {
                let mut prediction = postprocess(context.labels, context.temperature, &outputs, context.top_k);
                prediction.apply_thresholds(context, &outputs);
                prediction.logits = context.include_logits.then_some(outputs);
                super::Prediction::Classification(prediction)
            }
        })
    }

    fn accepts_text_pairs(&self) -> bool {
        true
    }

    fn validate_labels(&self, labels: &[String]) -> Vec<FieldError> {
        self.class_weights.as_ref().map(|weights| weights.validate(labels)).unwrap_or_default()
    }

    fn rare_label_metric(&self) -> Option<&'static str> {
        Some("macro_f1")
    }

    fn suggest_thresholds(
        &self,
        training: &RowTargets,
        validation: &RowTargets,
        outputs: &[f32],
        temperature: f32,
    ) -> Vec<LabelThreshold> {
        decision_threshold::suggest(training, validation, outputs, temperature)
    }

    fn resolve_threshold(
        &self,
        labels: &[String],
        suggested: Option<&Thresholds>,
        requested: &Threshold,
    ) -> Result<Vec<Option<f32>>> {
        match self.multi_label {
            true => decision_threshold::resolve_per_label(labels, suggested, requested),
            false => decision_threshold::resolve_binary(labels, suggested, requested),
        }
    }

    fn pooling(&self) -> Option<Pooling> {
        self.pooling
    }

    fn set_pooling(&mut self, pooling: Pooling) {
        self.pooling = Some(pooling);
    }

    fn set_base_head(&mut self, base_head: ClassificationHeadSpec) {
        head::Config::set_default(&mut self.head, self.pooling, base_head);
    }
}

/// Most probable label with its calibrated probability, the runners-up, and on request the raw logits. With a `threshold`, `label` is the
/// label that reaches it, else the other one.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Classification)]
pub struct Prediction {
    pub label: String,
    pub score: f32,
    pub top: Vec<Scored>,
    /// In the order of the adapter's labels, before the temperature; only on request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

impl Prediction {
    /// Decides between two labels by the threshold of one of them.
    fn apply_thresholds(&mut self, context: &PostprocessContext, logits: &[f32]) {
        let Some((label, threshold)) =
            context.thresholds.iter().enumerate().find_map(|(label, threshold)| Some((label, (*threshold)?)))
        else {
            return;
        };
        let probabilities = calibration::softmax(logits, context.temperature);
        let decided = if probabilities[label] as f32 >= threshold { label } else { 1 - label };
        (self.label, self.score) = (context.labels[decided].clone(), probabilities[decided] as f32);
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Scored {
    pub label: String,
    pub score: f32,
}

/// Prediction from one row of logits.
pub fn postprocess(labels: &[String], temperature: f32, logits: &[f32], top_k: usize) -> Prediction {
    let probabilities = calibration::softmax(logits, temperature);
    let scored_label = |index: usize| Scored { label: labels[index].clone(), score: probabilities[index] as f32 };
    let top: Vec<Scored> =
        calibration::most_probable(&probabilities, top_k.max(1)).into_iter().map(scored_label).collect();
    Prediction { label: top[0].label.clone(), score: top[0].score, top, logits: None }
}

/// Labels with a probability above 0.5, or of at least their `threshold`, the most probable first, and on request the raw logits.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Labels)]
pub struct MultiLabelPrediction {
    pub labels: Vec<Scored>,
    /// In the order of the adapter's labels; only on request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logits: Option<Vec<f32>>,
}

/// Prediction from one row of logits, with an independent decision per label. Labels without a threshold have one of 0.5.
pub fn postprocess_multi_label(labels: &[String], logits: &[f32], thresholds: &[Option<f32>]) -> MultiLabelPrediction {
    let score = |logit: f32| 1.0 / (1.0 + (-logit).exp());
    let is_selected = |label: usize, logit: f32| match thresholds.get(label).copied().flatten() {
        Some(threshold) => score(logit) >= threshold,
        None => logit > 0.0,
    };
    let scored = labels.iter().zip(logits.iter().copied()).enumerate();
    let mut selected: Vec<(&String, f32)> =
        scored.filter(|(label, (_, logit))| is_selected(*label, *logit)).map(|(_, scored)| scored).collect();
    selected.sort_by(|a, b| b.1.total_cmp(&a.1));
    let scored_label = |(label, logit): (&String, f32)| Scored { label: label.clone(), score: score(logit) };
    MultiLabelPrediction { labels: selected.into_iter().map(scored_label).collect(), logits: None }
}

/// One class per example.
#[derive(Debug, Clone)]
pub struct ClassObjective {
    pub classes: Vec<u32>,
    pub class_count: usize,
    labels: Vec<String>,
    class_weights: Option<ClassWeights>,
    weights: LabelWeights,
}

impl ClassObjective {
    /// # Errors
    /// `Invalid` (`unknown_label`) for an example without a label of the job.
    pub fn new(context: &ObjectiveContext, config: &Config) -> Result<Self> {
        let labels = LabelIds::new(context.labels);
        let class = |example: &&Example| match &example.target {
            Target::Label(label) => labels.id(label, example.line),
            _ => Err(example.wrong_target(config.type_name())),
        };
        let classes = context.examples.iter().map(class).collect::<Result<_>>()?;
        let (labels, class_weights) = (context.labels.to_vec(), config.class_weights.clone());
        Ok(Self { class_weights, class_count: labels.len(), labels, ..Self::unweighted(classes, 0) })
    }

    /// Objective with a weight of 1 for each class.
    pub fn unweighted(classes: Vec<u32>, class_count: usize) -> Self {
        Self { classes, class_count, labels: Vec::new(), class_weights: None, weights: LabelWeights::default() }
    }

    fn targets(&self, examples: &[usize]) -> RowTargets {
        let (class_count, weights) = (self.class_count, self.weights.clone());
        RowTargets::Classes { classes: gather(&self.classes, examples), class_count, weights }
    }
}

impl Objective for ClassObjective {
    fn example_count(&self) -> usize {
        self.classes.len()
    }

    fn row_count(&self, _example: usize) -> usize {
        1
    }

    fn loss(&self, context: &LossContext, batch: &MicroBatch, denominator: f64) -> Result<LossAndGradient> {
        context.row_loss(&self.targets(batch.examples), denominator)
    }

    fn metrics(&self, outputs: &[f32], examples: &[usize], labels: &[String]) -> Box<dyn TaskMetrics> {
        Box::new(ClassificationMetrics::new(outputs, self.class_count, &gather(&self.classes, examples), labels))
    }

    /// The split keeps the proportions of the classes.
    fn strata(&self) -> (Vec<u32>, usize) {
        (self.classes.clone(), self.class_count)
    }

    /// Fits the weights of the labels to their frequencies.
    fn fit(&mut self, training: &[usize]) {
        let Some(class_weights) = &self.class_weights else { return };
        let mut counts = vec![0; self.class_count];
        training.iter().for_each(|example| counts[self.classes[*example] as usize] += 1);
        self.weights = class_weights.of_classes(&self.labels, &counts);
    }

    fn row_targets(&self, examples: &[usize]) -> Option<RowTargets> {
        Some(self.targets(examples))
    }
}
