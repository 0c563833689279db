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
pub enum RowSchema {
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
pub enum SecondText {
    None,
    /// The field may be there.
    Optional(&'static str),
    Required(&'static str),
}

impl RowSchema {
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
    pub const DETECTABLE: [Self; 10] = [
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
    pub fn target_field(self) -> &'static str {
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
    pub fn text_field(self) -> &'static str {
        match self {
            Self::Tags => "tokens",
            Self::Completion | Self::Chosen => "prompt",
            Self::Messages => "messages",
            _ => "text",
        }
    }

    pub fn second_text(self) -> SecondText {
        match self {
            Self::Label | Self::Labels | Self::Value => SecondText::Optional("text_pair"),
            Self::Tags | Self::Entities | Self::Completion | Self::Messages | Self::Text => SecondText::None,
            Self::Positive => SecondText::Optional("negative"),
            Self::Score => SecondText::Required("text_pair"),
            Self::Chosen => SecondText::Required("rejected"),
        }
    }

    /// All of them, the own text's first.
    pub fn fields(self) -> Vec<&'static str> {
        let second_text = match self.second_text() {
            SecondText::None => None,
            SecondText::Optional(field) | SecondText::Required(field) => Some(field),
        };
        let target = Some(self.target_field()).filter(|field| *field != self.text_field());
        [Some(self.text_field()), second_text, target].into_iter().flatten().collect()
    }

    /// The task that is meant where only the data says one.
    pub fn default_task(self) -> Config {
        let embedding_with_loss = |loss| Config::Embedding(embedding::Config { pooling: None, loss: Some(loss) });
        match self {
            Self::Label => Config::default(),
            Self::Labels => {
                let config = sequence_classification::Config { multi_label: true, ..Default::default() };
                Config::SequenceClassification(config)
            }
            Self::Value => Config::Regression(regression::Config::default()),
            Self::Tags | Self::Entities => Config::TokenClassification(token_classification::Config::default()),
            Self::Positive => embedding_with_loss(embedding::Loss::MultipleNegativesRanking),
            Self::Score => embedding_with_loss(embedding::Loss::Cosine),
            Self::Completion | Self::Messages => Config::CausalLanguageModel(causal_language_model::Config::default()),
            Self::Chosen => Config::Preference(preference::Config::default()),
            Self::Text => Config::MaskedLanguageModel(masked_language_model::Config::default()),
        }
    }
}
