//! Schema of the rows of a dataset: their fields, and the task that they belong to by default.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Row schema, named by the field of the target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowSchema {
    /// One class.
    #[default]
    Label,
    /// A set of classes.
    Labels,
    /// A number.
    Value,
    /// One tag per element of `tokens`.
    Tags,
    /// Spans of the text with their labels.
    Entities,
    /// A similar text.
    Positive,
    /// Similarity of two texts.
    Score,
    /// Completion of a prompt.
    Completion,
    /// Messages of a conversation.
    Messages,
    /// Preferred one of two answers to a prompt.
    Chosen,
    /// Raw text without a target.
    Text,
}

/// Second text of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondText {
    None,
    /// The field is optional.
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

    /// Schemas that are detected from the fields of a file, in the order of detection. Raw text is never detected: the request has to
    /// name the task.
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

    /// Field of the target; the text for raw text.
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

    /// Field of the text.
    pub fn text_field(self) -> &'static str {
        match self {
            Self::Tags => "tokens",
            Self::Completion | Self::Chosen => "prompt",
            Self::Messages => "messages",
            Self::Label | Self::Labels | Self::Value | Self::Entities | Self::Positive | Self::Score | Self::Text => {
                "text"
            }
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

    /// All fields, that of the text first.
    pub fn fields(self) -> Vec<&'static str> {
        let second_text = match self.second_text() {
            SecondText::None => None,
            SecondText::Optional(field) | SecondText::Required(field) => Some(field),
        };
        let target = Some(self.target_field()).filter(|field| *field != self.text_field());
        [Some(self.text_field()), second_text, target].into_iter().flatten().collect()
    }
}
