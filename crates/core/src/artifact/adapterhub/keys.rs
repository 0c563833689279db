//! AdapterHub's keys of a bottleneck's tensors, in the models whose layers are named as BERT's.

use super::{Entry, no_word};
use crate::adapter::bottleneck::{self, Config};
use crate::error::Result;
use crate::model::hooks::Part;
use crate::model::{Info, Module, SiteInfo};

/// Our last words, and AdapterHub's.
const TENSORS: [(&str, &str); 4] = [
    ("down.weight", "adapter_down.0.weight"),
    ("down.bias", "adapter_down.0.bias"),
    ("up.weight", "adapter_up.weight"),
    ("up.bias", "adapter_up.bias"),
];

/// The class of `adapters` that takes an adapter and a head.
///
/// # Errors
/// `Invalid` (`unsupported_format`) where it has none, or one with other keys.
pub fn model_class(info: &Info) -> Result<&'static str> {
    match info.model_type.as_str() {
        "bert" => Ok("BertAdapterModel"),
        "roberta" => Ok("RobertaAdapterModel"),
        "xlm-roberta" => Ok("XLMRobertaAdapterModel"),
        other => Err(no_word(&format!("a base of the type {other} here; it has bert, roberta and xlm-roberta"))),
    }
}

/// Every tensor of the adapter that is called `name`.
pub fn of(config: &Config, sites: &[SiteInfo], name: &str) -> Vec<Entry> {
    let hidden = bottleneck::hidden(sites);
    let width = config.width(hidden);
    let shape = |what: &str| match what {
        "down.weight" => vec![width, hidden],
        "down.bias" => vec![width],
        "up.weight" => vec![hidden, width],
        _ => vec![hidden],
    };
    let mut entries = Vec::new();
    for layer in config.chosen(sites) {
        for part in config.parts() {
            let place = place(sites, layer, *part);
            entries.extend(TENSORS.map(|(ours, theirs)| Entry {
                key: format!("{place}.adapters.{name}.{theirs}"),
                name: format!("{}.{ours}", bottleneck::name(layer, *part)),
                shape: shape(ours),
            }));
        }
    }
    entries
}

/// The module that ends in the sublayer's last linear map: it adds the residual and norms the sum.
fn place(sites: &[SiteInfo], layer: usize, part: Part) -> &str {
    let module = match part {
        Part::Attention => Module::AttentionOutput,
        Part::FeedForward => Module::FeedForwardOut,
    };
    let is_meant = |info: &&SiteInfo| info.site.layer == Some(layer) && info.site.module == module;
    let path = sites.iter().find(is_meant).map_or("", |info| info.path.as_str());
    path.strip_suffix(".dense").unwrap_or(path)
}
