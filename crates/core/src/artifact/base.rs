//! The base model as adapter files refer to it: its identity, its facts, and whether an adapter was made for it.

use crate::adapter::target_modules;
use crate::model::{BaseModel, BaseModelInfo, Pooling, SiteInfo};
use crate::task;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// The base that an adapter was made for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseModelId {
    /// PEFT's `base_model_name_or_path`.
    pub name: String,
    /// `None` for an imported folder, of which only name and shapes could be checked.
    pub fingerprint: Option<String>,
}

/// Facts and sites of a base, so that files can be checked without its weights.
#[derive(Debug, Clone)]
pub struct BaseSummary {
    pub info: BaseModelInfo,
    /// Every site of the checkpoint, the pooler included if there is one.
    pub sites: Vec<SiteInfo>,
    /// The sites of an adapter that does not pool with the pooler.
    pub sites_without_pooler: Vec<SiteInfo>,
}

impl BaseSummary {
    pub fn from_base(base: &BaseModel) -> Self {
        let info = base.info().clone();
        let pooling_with_most_sites = if info.poolings.contains(&Pooling::Cls) { Pooling::Cls } else { Pooling::Mean };
        Self { info, sites: base.sites(pooling_with_most_sites), sites_without_pooler: base.sites(Pooling::Mean) }
    }

    /// The sites of an adapter with this pooling.
    pub fn sites_for(&self, pooling: Pooling) -> &[SiteInfo] {
        match pooling {
            Pooling::Mean | Pooling::First | Pooling::Last => &self.sites_without_pooler,
            Pooling::Cls => &self.sites,
        }
    }

    /// Width of the keys.
    pub fn key_width(&self) -> usize {
        target_modules::key_width(&self.sites_without_pooler)
    }

    /// Number of key and value heads.
    pub fn num_kv_heads(&self) -> usize {
        target_modules::num_kv_heads(&self.info, &self.sites_without_pooler)
    }

    /// The pooling of a task on this base.
    pub fn pooling(&self, task: &task::Config) -> Pooling {
        task.pooling().unwrap_or(self.info.default_pooling)
    }

    /// The most tokens of an input with `num_virtual_tokens` virtual tokens.
    pub fn max_input_tokens(&self, num_virtual_tokens: usize) -> usize {
        self.info.max_tokens.saturating_sub(num_virtual_tokens)
    }
}

/// Explains why an adapter does not fit this base; `None` if it does. Compares fingerprints, or names if the adapter has no
/// fingerprint.
pub fn base_mismatch(base: &BaseModelId, info: &BaseModelInfo) -> Option<String> {
    match &base.fingerprint {
        Some(fingerprint) if *fingerprint == info.fingerprint => None,
        Some(fingerprint) => Some(format!(
            "the adapter was made for the base {} ({fingerprint}), this server runs {} ({}): use it on a server with \
             that base",
            base.name, info.name, info.fingerprint
        )),
        None if is_same_model_name(&base.name, &info.name) => None,
        None => Some(format!(
            "the adapter was made for the base {:?}, this server runs {:?}: use it on a server with that base",
            base.name, info.name
        )),
    }
}

/// Suffixes of a name that say how the weights are stored: `.gguf`, the number of a shard, and the quantization of GGUF files and of
/// repositories (`-Q4_K_M`, `.IQ3_XXS`, `-bf16`, `-GGUF`, `-bnb-4bit`, `-AWQ`).
static STORAGE_SUFFIXES: LazyLock<Regex> = LazyLock::new(|| {
    let gguf = r"(?:ud-|i1-)?i?q[1-8](?:_(?:[01k]|xxs|xs|s|m|l|xl|nl))*|tq[12]_0|mxfp4(?:_moe)?|i1|imat";
    let other = r"bf16|fp?16|fp?32|fp8|int[48]|gguf|awq|gptq(?:-int[48])?|unsloth|bnb-[48]bit|[48]bit";
    let pattern = format!(r"(?i)(?:\.gguf|-\d{{5}}-of-\d{{5}}|[-._](?:{gguf}|{other}))+$");
    Regex::new(&pattern).expect("the pattern is fixed")
});

/// Compares the last segments of two names, without regard to case and to how the weights are stored: trainers write a path or an
/// id, whichever the base was loaded by, and a GGUF file is named after its quantization.
pub fn is_same_model_name(one: &str, other: &str) -> bool {
    let (one, other) = (model_basename(one), model_basename(other));
    let without_storage = |name| STORAGE_SUFFIXES.replace(name, "").to_ascii_lowercase();
    !one.is_empty() && (one == other || without_storage(one) == without_storage(other))
}

/// Returns `all-MiniLM-L6-v2` for a hub id, a path of any operating system, and the hub cache's `models--org--name/snapshots/…`.
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
    fn names_are_compared_without_quantization() {
        let base_name = "HuggingFaceTB/SmolLM2-135M-Instruct";
        for name in [
            "SmolLM2-135M-Instruct.Q8_0",
            "/models/SmolLM2-135M-Instruct.Q8_0.gguf",
            "SmolLM2-135M-Instruct-Q4_K_M",
            "smollm2-135m-instruct-q8_0.gguf",
            "SmolLM2-135M-Instruct.f16",
            "SmolLM2-135M-Instruct-IQ3_XXS",
            "SmolLM2-135M-Instruct.i1-Q4_K_S.gguf",
            "SmolLM2-135M-Instruct-UD-Q4_K_XL.gguf",
            "SmolLM2-135M-Instruct-BF16-00001-of-00002.gguf",
            "bartowski/SmolLM2-135M-Instruct-GGUF",
            "unsloth/SmolLM2-135M-Instruct-bnb-4bit",
            "unsloth/SmolLM2-135M-Instruct-unsloth-bnb-4bit",
            "SmolLM2-135M-Instruct-AWQ",
            "SmolLM2-135M-Instruct-GPTQ-Int4",
        ] {
            assert!(is_same_model_name(name, base_name), "{name}");
            assert!(is_same_model_name(base_name, name), "{name}");
        }
        for name in ["SmolLM2-135M", "SmolLM2-360M-Instruct.Q8_0", "SmolLM2-135M-Instruct-Q8_0-tuned", "Q8_0.gguf"] {
            assert!(!is_same_model_name(name, base_name), "{name}");
        }
        assert!(!is_same_model_name("tiny-bert-v1.0", "tiny-bert"));
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
