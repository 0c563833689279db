//! AdapterHub's keys of a bottleneck's tensors, in the models whose layers are named as BERT's.

use super::{TensorSpec, unsupported_format};
use crate::adapter::bottleneck::{self, Config};
use crate::error::Result;
use crate::model::hooks::Sublayer;
use crate::model::{BaseModelInfo, Module, SiteInfo};

/// Our last words, and AdapterHub's.
const TENSOR_SUFFIXES: [(&str, &str); 4] = [
    ("down.weight", "adapter_down.0.weight"),
    ("down.bias", "adapter_down.0.bias"),
    ("up.weight", "adapter_up.weight"),
    ("up.bias", "adapter_up.bias"),
];

/// The class of `adapters` that takes an adapter and a head.
///
/// # Errors
/// `Invalid` (`unsupported_format`) where it has none, or one with other keys.
pub fn model_class(info: &BaseModelInfo) -> Result<&'static str> {
    match info.model_type.as_str() {
        "bert" => Ok("BertAdapterModel"),
        "roberta" => Ok("RobertaAdapterModel"),
        "xlm-roberta" => Ok("XLMRobertaAdapterModel"),
        other => {
            Err(unsupported_format(&format!("a base of the type {other} here; it has bert, roberta and xlm-roberta")))
        }
    }
}

/// Every tensor of the adapter that is called `name`.
pub fn bottleneck_specs(config: &Config, sites: &[SiteInfo], name: &str) -> Vec<TensorSpec> {
    let hidden_size = bottleneck::hidden_size(sites);
    let bottleneck_size = config.bottleneck_size(hidden_size);
    let shape = |suffix: &str| match suffix {
        "down.weight" => vec![bottleneck_size, hidden_size],
        "down.bias" => vec![bottleneck_size],
        "up.weight" => vec![hidden_size, bottleneck_size],
        _ => vec![hidden_size],
    };
    let mut specs = Vec::new();
    for layer in config.layer_indices(sites) {
        for sublayer in config.sublayers() {
            let module_path = sublayer_path(sites, layer, *sublayer);
            specs.extend(TENSOR_SUFFIXES.map(|(native_suffix, hub_suffix)| TensorSpec {
                key: format!("{module_path}.adapters.{name}.{hub_suffix}"),
                name: format!("{}.{native_suffix}", bottleneck::tensor_prefix(layer, *sublayer)),
                shape: shape(native_suffix),
            }));
        }
    }
    specs
}

/// The module that ends in the sublayer's last linear map: it adds the residual and norms the sum.
fn sublayer_path(sites: &[SiteInfo], layer: usize, sublayer: Sublayer) -> &str {
    let module = match sublayer {
        Sublayer::Attention => Module::AttentionOutput,
        Sublayer::FeedForward => Module::FeedForwardOut,
    };
    let is_sublayer_site = |info: &&SiteInfo| info.site.layer == Some(layer) && info.site.module == module;
    let path = sites.iter().find(is_sublayer_site).map_or("", |info| info.module_path.as_str());
    path.strip_suffix(".dense").unwrap_or(path)
}
