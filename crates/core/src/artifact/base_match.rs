//! Whether an adapter was made for this base, as far as names and fingerprints can tell.

use super::BaseModelId;
use crate::model::BaseModelInfo;

/// Why the adapter is not this base's; `None` where it is. A fingerprint settles it; without one the name has to.
pub fn base_mismatch(base: &BaseModelId, info: &BaseModelInfo) -> Option<String> {
    match &base.fingerprint {
        Some(fingerprint) if *fingerprint == info.fingerprint => None,
        Some(fingerprint) => Some(format!(
            "the adapter was made for the base {} ({fingerprint}), this server runs {} ({}): use it on a server with that base",
            base.name, info.name, info.fingerprint
        )),
        None if is_same_model_name(&base.name, &info.name) => None,
        None => Some(format!(
            "the adapter was made for the base {:?}, this server runs {:?}: use it on a server with that base",
            base.name, info.name
        )),
    }
}

/// Equal, or equal in their last part: trainers write the path or the id under which they happened to load the base.
pub fn is_same_model_name(one: &str, other: &str) -> bool {
    let (one, other) = (model_basename(one), model_basename(other));
    !one.is_empty() && one == other
}

/// `all-MiniLM-L6-v2` of a hub id, of a folder on any system, and of a hub cache's `models--org--name/snapshots/…`.
fn model_basename(name: &str) -> &str {
    let segments = || name.split(['/', '\\']).filter(|segment| !segment.is_empty());
    let hub_cache_name = segments().find_map(|segment| segment.strip_prefix("models--"));
    match hub_cache_name {
        Some(repository) => repository.rsplit("--").next().unwrap_or(repository),
        None => segments().next_back().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifact::testing;

    #[test]
    fn names_are_compared_by_basename() {
        let base_name = "sentence-transformers/all-MiniLM-L6-v2";
        for name in [
            base_name,
            "all-MiniLM-L6-v2",
            "/home/x/all-MiniLM-L6-v2/",
            r"C:\models\all-MiniLM-L6-v2",
            "/cache/models--sentence-transformers--all-MiniLM-L6-v2/snapshots/c9745ed1d9f2",
        ] {
            assert!(is_same_model_name(name, base_name), "{name}");
        }
        for name in ["bert-base-uncased", "", "/", "all-MiniLM-L12-v2", "all-MiniLM-L6-v2-tuned"] {
            assert!(!is_same_model_name(name, base_name), "{name}");
        }
        assert!(!is_same_model_name("", ""));
    }

    #[test]
    fn fingerprint_takes_precedence_over_name() {
        let info = testing::base_summary().info;
        let base_id = |name: &str, fingerprint: Option<&str>| BaseModelId {
            name: name.to_string(),
            fingerprint: fingerprint.map(str::to_string),
        };
        assert_eq!(base_mismatch(&base_id("somewhere/else", Some(&info.fingerprint)), &info), None);
        assert!(base_mismatch(&base_id(&info.name, Some("sha256:00")), &info).unwrap().contains("sha256:00"));
        assert_eq!(base_mismatch(&base_id("/data/tiny-bert", None), &info), None);
        assert!(base_mismatch(&base_id("/data/other", None), &info).unwrap().contains("/data/other"));
    }
}
