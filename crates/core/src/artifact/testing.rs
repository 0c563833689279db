//! For this room's tests: the tiny BERT of `tests/fixtures/tiny-bert` as plain data, and adapters made for it.

use super::outline::Outline;
use super::{Artifact, BaseCard, Card, Probe};
use crate::adapter::{self, lora};
use crate::model::{Info, Module, Pooling, Site, SiteInfo};
use crate::task;
use espalier_tensor::Tensor;
use espalier_tensor::random::Random;
use std::collections::BTreeMap;

const HIDDEN: usize = 32;
const INNER: usize = 64;

pub fn outline() -> Outline {
    let sites: Vec<SiteInfo> = (0..2).flat_map(layer).chain([pooler()]).collect();
    let bare_sites = sites.iter().filter(|info| info.site.module != Module::Pooler).cloned().collect();
    Outline { info: info(), sites, bare_sites }
}

fn info() -> Info {
    Info {
        name: "example/tiny-bert".to_string(),
        model_type: "bert".to_string(),
        fingerprint: format!("sha256:{}", "ab".repeat(32)),
        parameters: 26_000,
        hidden_size: HIDDEN,
        layers: 2,
        attention_heads: 4,
        vocabulary_size: 131,
        max_tokens: 128,
        default_pooling: Pooling::Mean,
        sentence_encoder: true,
        poolings: vec![Pooling::Mean, Pooling::Cls],
        normalized_embedding: false,
        mask_token: None,
        generates: false,
        chat: false,
        target_modules: Module::ALL.map(|module| module.name().to_string()).to_vec(),
        kernels: "candle-cpu".to_string(),
    }
}

fn layer(layer: usize) -> Vec<SiteInfo> {
    let maps = [
        (Module::Query, "attention.self.query", HIDDEN, HIDDEN),
        (Module::Key, "attention.self.key", HIDDEN, HIDDEN),
        (Module::Value, "attention.self.value", HIDDEN, HIDDEN),
        (Module::AttentionOutput, "attention.output.dense", HIDDEN, HIDDEN),
        (Module::FeedForwardIn, "intermediate.dense", HIDDEN, INNER),
        (Module::FeedForwardOut, "output.dense", INNER, HIDDEN),
    ];
    let site = |(module, path, input, output)| SiteInfo {
        site: Site { layer: Some(layer), module },
        input,
        output,
        bias: true,
        path: format!("bert.encoder.layer.{layer}.{path}"),
    };
    maps.map(site).to_vec()
}

fn pooler() -> SiteInfo {
    SiteInfo {
        site: Site { layer: None, module: Module::Pooler },
        input: HIDDEN,
        output: HIDDEN,
        bias: true,
        path: "bert.pooler.dense".to_string(),
    }
}

/// A LoRA of rank 2 on query and value of every layer, with a head of three labels.
pub fn lora(pooling: Pooling) -> Artifact {
    let names = vec!["query".to_string(), "value".to_string()];
    let config = lora::Config {
        rank: 2,
        alpha: Some(4.0),
        target_modules: crate::adapter::targets::TargetModules::Names(names),
        ..lora::Config::default()
    };
    let mut weights = head_weights();
    for info in outline().sites.iter().filter(|info| matches!(info.site.module, Module::Query | Module::Value)) {
        weights.insert(format!("{}.lora_A", info.site), tensor(&info.site.to_string(), [2, info.input]));
        weights.insert(format!("{}.lora_B", info.site), tensor(&info.path, [info.output, 2]));
    }
    Artifact { card: card(adapter::Config::Lora(config), pooling), weights }
}

/// Nothing but a head of three labels.
pub fn head(pooling: Pooling) -> Artifact {
    Artifact { card: card(adapter::Config::Head(adapter::head::Config::default()), pooling), weights: head_weights() }
}

fn card(method: adapter::Config, pooling: Pooling) -> Card {
    Card {
        format: 1,
        task: task::Config::default().with_pooling(pooling),
        method,
        labels: ["card", "refund", "top_up"].map(str::to_string).to_vec(),
        temperature: 1.25,
        max_length: 64,
        base: BaseCard { name: "example/tiny-bert".to_string(), fingerprint: Some(info().fingerprint) },
        probe: Probe {
            inputs: vec![task::Input::text("where is my card?")],
            outputs: vec![vec![0.1, -2.5, 1.0 / 3.0]],
            kernels: "candle-cpu".to_string(),
        },
        metrics: Some(serde_json::json!({"validation": {"loss": 0.25, "accuracy": 0.875}, "best_epoch": 2})),
    }
}

fn head_weights() -> BTreeMap<String, Tensor> {
    BTreeMap::from([
        ("head.weight".to_string(), tensor("head.weight", [3, HIDDEN])),
        ("head.bias".to_string(), Tensor::new([3], vec![0.5, 0.0, -0.5])),
    ])
}

pub fn tensor(seed: &str, shape: [usize; 2]) -> Tensor {
    let mut random = Random::new(1, &[seed]);
    Tensor::new(shape, (0..shape[0] * shape[1]).map(|_| random.normal()).collect())
}
