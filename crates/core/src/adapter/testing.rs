//! Test data: the sites of the tiny BERT in `tests/fixtures/tiny-bert`.

use crate::model::{Module, Site, SiteInfo};

pub const HIDDEN_SIZE: usize = 32;
const INTERMEDIATE_SIZE: usize = 64;

/// Two layers and the pooler.
pub fn tiny_bert_sites() -> Vec<SiteInfo> {
    (0..2).flat_map(layer_sites).chain([pooler_site()]).collect()
}

fn layer_sites(layer: usize) -> Vec<SiteInfo> {
    let linear_layers = [
        (Module::Query, "attention.self.query", HIDDEN_SIZE, HIDDEN_SIZE),
        (Module::Key, "attention.self.key", HIDDEN_SIZE, HIDDEN_SIZE),
        (Module::Value, "attention.self.value", HIDDEN_SIZE, HIDDEN_SIZE),
        (Module::AttentionOutput, "attention.output.dense", HIDDEN_SIZE, HIDDEN_SIZE),
        (Module::FeedForwardIn, "intermediate.dense", HIDDEN_SIZE, INTERMEDIATE_SIZE),
        (Module::FeedForwardOut, "output.dense", INTERMEDIATE_SIZE, HIDDEN_SIZE),
    ];
    let site = |(module, path, input, output)| SiteInfo {
        site: Site { layer: Some(layer), module },
        in_features: input,
        out_features: output,
        has_bias: true,
        module_path: format!("bert.encoder.layer.{layer}.{path}"),
    };
    linear_layers.map(site).to_vec()
}

fn pooler_site() -> SiteInfo {
    SiteInfo {
        site: Site { layer: None, module: Module::Pooler },
        in_features: HIDDEN_SIZE,
        out_features: HIDDEN_SIZE,
        has_bias: true,
        module_path: "bert.pooler.dense".to_string(),
    }
}
