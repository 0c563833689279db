//! Collects everything that is wrong with a file, so that a user sees it all at once and not one thing per try.
//!
//! Does not know what the faults are about.

use crate::error::{Error, Result};

/// More than this is counted, not listed.
const LISTED: usize = 20;

#[derive(Debug, Default)]
pub struct Faults {
    listed: Vec<String>,
    more: usize,
}

impl Faults {
    pub fn add(&mut self, fault: impl Into<String>) {
        match self.listed.len() < LISTED {
            true => self.listed.push(fault.into()),
            false => self.more += 1,
        }
    }

    /// # Errors
    /// `Invalid` with this code where there was a fault: `intro`, then every fault up to the limit, then a count.
    pub fn finish(self, code: &'static str, intro: &str) -> Result<()> {
        if self.listed.is_empty() {
            return Ok(());
        }
        let mut detail = format!("{intro}: {}", self.listed.join("; "));
        if self.more > 0 {
            detail.push_str(&format!("; and {} more", self.more));
        }
        Err(Error::invalid(code, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_faults_are_listed_and_the_rest_is_counted() {
        let mut faults = Faults::default();
        (0..23).for_each(|number| faults.add(format!("fault {number}")));
        let error = faults.finish("adapter_tensors", "the tensors do not fit").unwrap_err();
        assert_eq!(error.code(), "adapter_tensors");
        let detail = error.to_string();
        assert!(detail.starts_with("the tensors do not fit: fault 0; fault 1; "), "{detail}");
        assert!(detail.ends_with("fault 19; and 3 more"), "{detail}");
    }

    #[test]
    fn no_fault_is_no_error() {
        assert!(Faults::default().finish("adapter_tensors", "wrong").is_ok());
    }
}
