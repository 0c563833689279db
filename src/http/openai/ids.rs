//! Ids in OpenAI's form, such as `ftjob-0193…`: a prefix and the id of our row.

use espalier_core::error::{Error, Result};
use uuid::Uuid;

/// Kind of object that an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdKind {
    File,
    /// Results of a job, as a file.
    ResultFile,
    Job,
    Checkpoint,
}

impl IdKind {
    fn prefix(self) -> &'static str {
        match self {
            Self::File => "file-",
            Self::ResultFile => "file-results-",
            Self::Job => "ftjob-",
            Self::Checkpoint => "ftckpt-",
        }
    }

    pub fn has_prefix(self, text: &str) -> bool {
        text.starts_with(self.prefix())
    }

    pub fn format(self, id: Uuid) -> String {
        format!("{}{}", self.prefix(), id.simple())
    }

    /// Reads an id with its prefix, or the id of our row.
    pub fn parse(self, text: &str) -> Option<Uuid> {
        Uuid::parse_str(text.strip_prefix(self.prefix()).unwrap_or(text)).ok()
    }

    /// Reads the query parameter `after`.
    ///
    /// # Errors
    /// `Invalid` with the form of such an id.
    pub fn after(self, text: &str) -> Result<Uuid> {
        self.parse(text).ok_or_else(|| Error::invalid_field("/after", self.wrong_id(text)))
    }

    /// Reads an id of a path.
    ///
    /// # Errors
    /// `NotFound` with the form of such an id.
    pub fn require(self, text: &str) -> Result<Uuid> {
        self.parse(text).ok_or_else(|| Error::not_found("not_found", self.wrong_id(text)))
    }

    fn wrong_id(self, text: &str) -> String {
        format!("\"{text}\" is not an id: ids of this kind start with \"{}\"", self.prefix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_with_and_without_prefix() {
        let id = Uuid::from_u128(7);
        assert_eq!(IdKind::Job.format(id), "ftjob-00000000000000000000000000000007");
        for text in [IdKind::Job.format(id), id.to_string()] {
            assert_eq!(IdKind::Job.parse(&text), Some(id));
        }
        assert_eq!(IdKind::Job.parse(&IdKind::File.format(id)), None);
        assert_eq!(IdKind::File.parse(&IdKind::ResultFile.format(id)), None);
        assert_eq!(IdKind::ResultFile.parse(&IdKind::ResultFile.format(id)), Some(id));
    }
}
