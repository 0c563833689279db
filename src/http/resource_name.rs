//! Names of jobs and adapters.

use espalier_core::error::{Error, FieldError, Problem, Result};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

const NAME_RULE: &str =
    "use 1 to 64 characters of a-z, 0-9, \".\", \"_\" and \"-\", the first a letter or a digit, and no UUID";

/// 1 to 64 characters of `[a-z0-9._-]`, the first a letter or digit. A UUID is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(value_type = String, min_length = 1, max_length = 64, pattern = "^[a-z0-9][a-z0-9._-]*$", example = "support-intents")]
pub struct Name(String);

impl Name {
    /// # Errors
    /// `Invalid` (`invalid_name`) with the rule.
    pub fn parse(text: String) -> Result<Self> {
        Self::try_from(text).map_err(|message| {
            Error::Invalid(
                Problem::new("invalid_name", &message).with_errors(vec![FieldError::at_pointer("/name", message)]),
            )
        })
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let is_alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_valid = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| is_alphanumeric(byte) || b"._-".contains(&byte))
            && text.bytes().next().is_some_and(is_alphanumeric)
            && Uuid::parse_str(&text).is_err();
        match is_valid {
            true => Ok(Self(text)),
            false => Err(format!("\"{}\" is not a name: {NAME_RULE}", text.chars().take(80).collect::<String>())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_matches_the_pattern_and_is_no_uuid() {
        for name in ["a", "0", "support-intents", "v1.2_x", &"n".repeat(64)] {
            assert!(Name::parse(name.to_string()).is_ok(), "{name}");
        }
        let id = Uuid::now_v7();
        for name in
            ["", "-a", ".a", "A", "a b", "ä", "a@b", "a/b", &"n".repeat(65), &id.to_string(), &id.simple().to_string()]
        {
            assert_eq!(Name::parse(name.to_string()).unwrap_err().code(), "invalid_name", "{name}");
        }
    }
}
