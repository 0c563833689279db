//! Module paths and tensor keys as PEFT writes them.
//!
//! An adapter that was trained with a head names its modules as the model with the head does (`bert.encoder.layer.0…`); one
//! that was trained on the bare encoder omits the first segment (`encoder.layer.0…`). Both are read.

use crate::model::SiteInfo;

/// Prefix of every key of a module.
pub const KEY_PREFIX: &str = "base_model.model.";

/// How module paths are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModuleNaming {
    /// As in transformers' model with a head.
    WithHead,
    /// As in the bare encoder: without the first segment.
    Bare,
}

impl ModuleNaming {
    /// The path of a site's module.
    pub fn module_path(self, info: &SiteInfo) -> &str {
        self.strip_prefix(&info.module_path)
    }

    /// The key of a tensor of the site's module.
    pub fn module_key(self, info: &SiteInfo, suffix: &str) -> String {
        format!("{KEY_PREFIX}{}.{suffix}", self.module_path(info))
    }

    /// Converts a path of the model with a head.
    pub fn strip_prefix(self, path: &str) -> &str {
        match (self, path.split_once('.')) {
            (Self::Bare, Some((_, bare_path))) => bare_path,
            (Self::Bare, None) | (Self::WithHead, _) => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_naming_drops_the_first_segment() {
        let query_path = "bert.encoder.layer.3.attention.self.query";
        assert_eq!(ModuleNaming::WithHead.strip_prefix(query_path), query_path);
        assert_eq!(ModuleNaming::Bare.strip_prefix(query_path), "encoder.layer.3.attention.self.query");
    }
}
