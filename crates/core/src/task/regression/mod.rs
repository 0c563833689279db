//! Regression: a number for a text or a pair of texts.

pub(super) mod metrics;
mod objective;

use objective::ValueObjective;

use super::{Example, HeadSpec, Input, PostprocessContext, RowSchema, Task, TaskDefaults, UntrainableRows, head};
use crate::error::Result;
use crate::model::{ClassificationHeadSpec, Pooling, Tokenizer, Tokens};
use crate::task::objective::{Objective, ObjectiveContext};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Regression)]
pub struct Config {
    /// Pooling of a sequence to one row; by default the base's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Layers of the head; by default those of the base's own head for `cls`, else one linear map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<head::Config>,
}

/// Predicted number.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Number)]
pub struct Prediction {
    pub value: f32,
}

impl Task for Config {
    fn type_name(&self) -> &'static str {
        "regression"
    }

    fn defaults(&self) -> TaskDefaults {
        TaskDefaults::TEXT
    }

    fn metric_names(&self) -> &'static [&'static str] {
        &["loss", "mean_absolute_error", "pearson", "spearman", "r2"]
    }

    fn row_schemas(&self) -> &'static [RowSchema] {
        &[RowSchema::Value]
    }

    fn head(&self, _labels: &[String]) -> HeadSpec {
        HeadSpec::pooled(1, self.head.as_ref())
    }

    fn tokenize_input(&self, tokenizer: &Tokenizer, input: &Input, max_length: usize) -> Result<Tokens> {
        input.tokenize(tokenizer, max_length)
    }

    fn tokenize_example(&self, tokenizer: &Tokenizer, example: &Example, max_length: usize) -> Result<Vec<Tokens>> {
        Ok(vec![example.tokenize(tokenizer, max_length)?])
    }

    fn untrainable_rows(&self) -> UntrainableRows {
        UntrainableRows::Refuse
    }

    fn objective(&self, context: &ObjectiveContext) -> Result<Box<dyn Objective>> {
        Ok(Box::new(ValueObjective::new(context, self.type_name())?))
    }

    fn postprocess(
        &self,
        _context: &PostprocessContext,
        outputs: Vec<f32>,
        _input: &Input,
    ) -> Result<super::Prediction> {
        let value = outputs.first().copied().unwrap_or_default();
        Ok(super::Prediction::Regression(Prediction { value }))
    }

    fn accepts_text_pairs(&self) -> bool {
        true
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
