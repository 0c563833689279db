//! What the rows of a dataset look like: which fields they have, and which task is meant by them.

use super::{
    Config, causal_language_model, embedding, masked_language_model, preference, regression, sequence_classification,
    token_classification,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// By the field of a row that says what it teaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// One class.
    #[default]
    Label,
    /// Any number of classes.
    Labels,
    /// A number.
    Value,
    /// A tag for each of `tokens`.
    Tags,
    /// Places in the text, with what they are.
    Entities,
    /// A text that belongs to this one.
    Positive,
    /// How near two texts are.
    Score,
    /// What follows a prompt.
    Completion,
    /// The turns of a conversation.
    Messages,
    /// The better of two answers to a prompt.
    Chosen,
    /// Nothing but the text.
    Text,
}

/// A row's second text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Second {
    None,
    /// The field may be there.
    Welcome(&'static str),
    Needed(&'static str),
}

impl Shape {
    pub const ALL: [Self; 11] = [
        Self::Label,
        Self::Labels,
        Self::Value,
        Self::Tags,
        Self::Entities,
        Self::Positive,
        Self::Score,
        Self::Completion,
        Self::Messages,
        Self::Chosen,
        Self::Text,
    ];

    /// Those that a file's fields tell apart, in the order in which they are looked at: that nothing but a text is meant
    /// has to be said.
    pub const TOLD: [Self; 10] = [
        Self::Label,
        Self::Labels,
        Self::Value,
        Self::Tags,
        Self::Entities,
        Self::Positive,
        Self::Score,
        Self::Completion,
        Self::Messages,
        Self::Chosen,
    ];

    /// The field that says what a row teaches; the text itself where there is no other.
    pub fn field(self) -> &'static str {
        match self {
            Self::Label => "label",
            Self::Labels => "labels",
            Self::Value => "value",
            Self::Tags => "tags",
            Self::Entities => "entities",
            Self::Positive => "positive",
            Self::Score => "score",
            Self::Completion => "completion",
            Self::Messages => "messages",
            Self::Chosen => "chosen",
            Self::Text => "text",
        }
    }

    /// The field of a row's own text.
    pub fn text(self) -> &'static str {
        match self {
            Self::Tags => "tokens",
            Self::Completion | Self::Chosen => "prompt",
            Self::Messages => "messages",
            _ => "text",
        }
    }

    pub fn second(self) -> Second {
        match self {
            Self::Label | Self::Labels | Self::Value => Second::Welcome("text_pair"),
            Self::Tags | Self::Entities | Self::Completion | Self::Messages | Self::Text => Second::None,
            Self::Positive => Second::Welcome("negative"),
            Self::Score => Second::Needed("text_pair"),
            Self::Chosen => Second::Needed("rejected"),
        }
    }

    /// All of them, the own text's first.
    pub fn fields(self) -> Vec<&'static str> {
        let second = match self.second() {
            Second::None => None,
            Second::Welcome(field) | Second::Needed(field) => Some(field),
        };
        let own = Some(self.field()).filter(|field| *field != self.text());
        [Some(self.text()), second, own].into_iter().flatten().collect()
    }

    /// The task that is meant where only the data says one.
    pub fn task(self) -> Config {
        let embedding = |loss| Config::Embedding(embedding::Config { pooling: None, loss: Some(loss) });
        match self {
            Self::Label => Config::default(),
            Self::Labels => {
                let config = sequence_classification::Config { multi_label: true, ..Default::default() };
                Config::SequenceClassification(config)
            }
            Self::Value => Config::Regression(regression::Config::default()),
            Self::Tags | Self::Entities => Config::TokenClassification(token_classification::Config::default()),
            Self::Positive => embedding(embedding::Loss::MultipleNegativesRanking),
            Self::Score => embedding(embedding::Loss::Cosine),
            Self::Completion | Self::Messages => Config::CausalLanguageModel(causal_language_model::Config::default()),
            Self::Chosen => Config::Preference(preference::Config::default()),
            Self::Text => Config::MaskedLanguageModel(masked_language_model::Config::default()),
        }
    }
}

impl Config {
    /// The shapes that a task's rows may have.
    pub fn shapes(&self) -> &'static [Shape] {
        match self {
            Self::SequenceClassification(config) if config.multi_label => &[Shape::Labels],
            Self::SequenceClassification(_) => &[Shape::Label],
            Self::Regression(_) => &[Shape::Value],
            Self::TokenClassification(_) => &[Shape::Tags, Shape::Entities],
            Self::MaskedLanguageModel(_) => &[Shape::Text],
            Self::Preference(_) => &[Shape::Chosen],
            Self::CausalLanguageModel(_) => &[Shape::Completion, Shape::Messages, Shape::Text],
            Self::Embedding(config) => match config.loss {
                None => &[Shape::Positive, Shape::Score],
                Some(embedding::Loss::MultipleNegativesRanking) => &[Shape::Positive],
                Some(embedding::Loss::Cosine) => &[Shape::Score],
            },
        }
    }

    /// Whether an input may be a pair of texts.
    pub fn reads_pairs(&self) -> bool {
        matches!(self, Self::SequenceClassification(_) | Self::Regression(_))
    }

    /// The task on rows of one of its shapes, with what they decide.
    pub fn on(mut self, shape: Shape) -> Self {
        if let (Self::Embedding(config), Config::Embedding(meant)) = (&mut self, shape.task()) {
            config.loss = config.loss.or(meant.loss);
        }
        self
    }
}
