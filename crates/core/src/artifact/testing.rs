//! Test data: the tiny BERT of `tests/fixtures/tiny-bert` as plain data, and adapters for it.

use super::base::{BaseModelId, BaseSummary};
use super::manifest::{AdapterManifest, Artifact, Probe};
use super::vocabulary::Vocabulary;
use crate::adapter::target_modules::TargetModules;
use crate::adapter::testing::{HIDDEN_SIZE, tiny_bert_sites};
use crate::adapter::{self, TensorMap, lora};
use crate::model::{BaseModelInfo, Module, Pooling};
use crate::task;
use espalier_tensor::Tensor;
use espalier_tensor::seeded_rng::SeededRng;

pub fn base_summary() -> BaseSummary {
    let all_sites = tiny_bert_sites();
    let bare_sites = all_sites.iter().filter(|info| info.site.module != Module::Pooler).cloned().collect();
    BaseSummary { info: base_info(), sites: all_sites, sites_without_pooler: bare_sites }
}

fn base_info() -> BaseModelInfo {
    BaseModelInfo {
        name: "example/tiny-bert".to_string(),
        model_type: "bert".to_string(),
        fingerprint: format!("sha256:{}", "ab".repeat(32)),
        parameters: 26_000,
        hidden_size: HIDDEN_SIZE,
        layers: 2,
        attention_heads: 4,
        vocabulary_size: 131,
        max_tokens: 128,
        default_pooling: Pooling::Mean,
        sentence_encoder: true,
        poolings: vec![Pooling::Mean, Pooling::Cls],
        normalized_embedding: false,
        mask_token: None,
        is_causal_lm: false,
        chat: false,
        target_modules: Module::ALL.map(|module| module.name().to_string()).to_vec(),
        backend: "candle-cpu".to_string(),
    }
}

/// A LoRA of rank 2 on query and value of every layer, with a head of three labels.
pub fn lora_artifact(pooling: Pooling) -> Artifact {
    let config = lora::Config {
        rank: 2,
        alpha: Some(4.0),
        target_modules: TargetModules::from_names(&["query", "value"]),
        ..lora::Config::default()
    };
    let mut weights = random_head();
    for info in base_summary().sites.iter().filter(|info| matches!(info.site.module, Module::Query | Module::Value)) {
        weights.insert(format!("{}.lora_A", info.site), random_tensor(&info.site.to_string(), [2, info.in_features]));
        weights.insert(format!("{}.lora_B", info.site), random_tensor(&info.module_path, [info.out_features, 2]));
    }
    Artifact { manifest: manifest(adapter::Config::Lora(config), pooling), weights }
}

/// A head of three labels without an adapter.
pub fn head_artifact(pooling: Pooling) -> Artifact {
    Artifact {
        manifest: manifest(adapter::Config::Head(adapter::head::Config::default()), pooling),
        weights: random_head(),
    }
}

fn manifest(method: adapter::Config, pooling: Pooling) -> AdapterManifest {
    AdapterManifest {
        format: 1,
        task: task::Config::default().with_pooling(pooling),
        method,
        vocabulary: Vocabulary::default(),
        labels: ["card", "refund", "top_up"].map(str::to_string).to_vec(),
        temperature: 1.25,
        thresholds: Default::default(),
        max_length: 64,
        base: BaseModelId { name: "example/tiny-bert".to_string(), fingerprint: Some(base_info().fingerprint) },
        probe: Probe {
            inputs: vec![task::Input::from_text("where is my card?")],
            outputs: vec![vec![0.1, -2.5, 1.0 / 3.0]],
            kernels: "candle-cpu".to_string(),
        },
        metrics: Some(serde_json::json!({"validation": {"loss": 0.25, "accuracy": 0.875}, "best_epoch": 2})),
    }
}

fn random_head() -> TensorMap {
    TensorMap::from([
        ("head.weight".to_string(), random_tensor("head.weight", [3, HIDDEN_SIZE])),
        ("head.bias".to_string(), Tensor::new([3], vec![0.5, 0.0, -0.5])),
    ])
}

pub fn random_tensor(seed: &str, shape: [usize; 2]) -> Tensor {
    let mut random = SeededRng::new(1, &[seed]);
    Tensor::new(shape, (0..shape[0] * shape[1]).map(|_| random.standard_normal()).collect())
}
