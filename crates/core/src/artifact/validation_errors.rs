//! Collects everything that is wrong with a file, so that a user sees it all at once and not one thing per try.
//!
//! Does not know what the faults are about.

use crate::error::{Error, Result};

/// More than this is counted, not listed.
const MAX_LISTED: usize = 20;

#[derive(Debug, Default)]
pub struct ValidationErrors {
    messages: Vec<String>,
    omitted: usize,
}

impl ValidationErrors {
    pub fn push(&mut self, message: impl Into<String>) {
        match self.messages.len() < MAX_LISTED {
            true => self.messages.push(message.into()),
            false => self.omitted += 1,
        }
    }

    /// # Errors
    /// `Invalid` with this code where there was a fault: `intro`, then every fault up to the limit, then a count.
    pub fn into_result(self, code: &'static str, intro: &str) -> Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let mut detail = format!("{intro}: {}", self.messages.join("; "));
        if self.omitted > 0 {
            detail.push_str(&format!("; and {} more", self.omitted));
        }
        Err(Error::invalid(code, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_twenty_errors_and_counts_the_rest() {
        let mut errors = ValidationErrors::default();
        (0..23).for_each(|number| errors.push(format!("fault {number}")));
        let error = errors.into_result("adapter_tensors", "the tensors do not fit").unwrap_err();
        assert_eq!(error.code(), "adapter_tensors");
        let detail = error.to_string();
        assert!(detail.starts_with("the tensors do not fit: fault 0; fault 1; "), "{detail}");
        assert!(detail.ends_with("fault 19; and 3 more"), "{detail}");
    }

    #[test]
    fn no_messages_is_ok() {
        assert!(ValidationErrors::default().into_result("adapter_tensors", "wrong").is_ok());
    }
}
