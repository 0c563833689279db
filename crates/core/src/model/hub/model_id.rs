//! A model's name on the hub.

use std::fmt;

const DEFAULT_REVISION: &str = "main";

/// `org/name`, or `name` for the oldest models, and the branch, tag or commit that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModelId {
    pub repository: String,
    pub revision: String,
}

impl ModelId {
    /// `None` where the hub could not have a model of this name: the text may also be a path that does not exist.
    pub fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        let parts: Vec<&str> = repository.split('/').collect();
        let is_valid = parts.len() <= 2 && parts.iter().all(|part| is_valid_name(part)) && is_valid_revision(revision);
        is_valid.then(|| Self { repository: repository.to_string(), revision: revision.to_string() })
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            DEFAULT_REVISION => write!(f, "{}", self.repository),
            revision => write!(f, "{}@{revision}", self.repository),
        }
    }
}

/// The hub's rule: letters, digits, `-`, `_`, `.`; not `--` or `..`; neither `-` nor `.` at the ends.
fn is_valid_name(name: &str) -> bool {
    let has_allowed_characters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let has_bad_edge = name.starts_with(['-', '.']) || name.ends_with(['-', '.']);
    has_allowed_characters
        && !has_bad_edge
        && (1..=96).contains(&name.len())
        && !name.contains("--")
        && !name.contains("..")
}

/// A revision becomes part of an address and of a path, so nothing may climb out of either.
fn is_valid_revision(revision: &str) -> bool {
    let has_allowed_characters = revision.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    let has_safe_parts = revision.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    has_allowed_characters && has_safe_parts && !revision.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_repository_and_revision() {
        let id = ModelId::parse("sentence-transformers/all-MiniLM-L6-v2").unwrap();
        assert_eq!((id.repository.as_str(), id.revision.as_str()), ("sentence-transformers/all-MiniLM-L6-v2", "main"));
        let id = ModelId::parse("bert-base-uncased@refs/pr/7").unwrap();
        assert_eq!((id.repository.as_str(), id.revision.as_str()), ("bert-base-uncased", "refs/pr/7"));
    }

    #[test]
    fn rejects_paths() {
        for text in [
            "",
            "./model",
            "../model",
            "/models/a",
            "a/b/c",
            "a//b",
            "a/b@",
            "a/b@../x",
            "a/b@x/.y",
            "a b",
            "a/-b",
            "a--b",
        ] {
            assert_eq!(ModelId::parse(text), None, "{text}");
        }
    }
}
