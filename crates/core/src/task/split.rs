//! Splits of a dataset.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Part of a dataset whose rows say which part they belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    Train,
    Validation,
    Test,
}

impl Split {
    /// Key of the rows of this split in `left_out` of a report.
    pub fn left_out_reason(self) -> String {
        format!("split: {}", self.name())
    }

    /// Words that mean the split in files, in lower case.
    pub(crate) const WORDS: [(&'static str, Self); 13] = [
        ("train", Self::Train),
        ("training", Self::Train),
        ("trn", Self::Train),
        ("validation", Self::Validation),
        ("valid", Self::Validation),
        ("validate", Self::Validation),
        ("val", Self::Validation),
        ("dev", Self::Validation),
        ("development", Self::Validation),
        ("eval", Self::Validation),
        ("test", Self::Test),
        ("testing", Self::Test),
        ("tst", Self::Test),
    ];

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        let word = word.trim().to_lowercase();
        Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, split)| *split)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}
