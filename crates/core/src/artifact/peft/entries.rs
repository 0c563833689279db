//! Which tensors a PEFT file of a method holds: their keys and shapes, and what each is under our names.
//!
//! Methods for which PEFT has no type keep our own names as keys. Knows nothing of files.

use super::keys::{Form, PREFIX};
use crate::adapter::{self, bias, bottleneck, layer_norm, lora, prefix_tuning, targets, vera, virtual_tokens};
use crate::model::{Module, Site, SiteInfo};
use std::ops::Range;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    pub shape: Vec<usize>,
    pub parts: Vec<Part>,
}

/// One of our tensors, as some columns of a file's tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub name: String,
    pub shape: Vec<usize>,
    pub columns: Range<usize>,
}

impl Entry {
    /// The same numbers in our shape.
    fn whole(key: String, shape: Vec<usize>, name: String, ours: Vec<usize>) -> Self {
        let columns = 0..shape.last().copied().unwrap_or(1);
        Self { key, shape, parts: vec![Part { name, shape: ours, columns }] }
    }

    fn same(key: String, name: String, shape: Vec<usize>) -> Self {
        Self::whole(key, shape.clone(), name, shape)
    }

    /// A tensor that PEFT does not know.
    fn own(name: String, shape: Vec<usize>) -> Self {
        Self::same(name.clone(), name, shape)
    }
}

/// The method's tensors, without the head's. `sites` are those of the adapter's pooling.
pub fn of(method: &adapter::Config, sites: &[SiteInfo], form: Form) -> Vec<Entry> {
    let hidden = bottleneck::hidden(sites);
    match method {
        adapter::Config::Head(_) => Vec::new(),
        adapter::Config::Lora(config) => of_lora(config, sites, form),
        adapter::Config::Ia3(config) => {
            let entry = |info: &SiteInfo| {
                let (width, shape) = match config.scales_input(info) {
                    true => (info.input, vec![1, info.input]),
                    false => (info.output, vec![info.output, 1]),
                };
                Entry::whole(at(form, info, "ia3_l"), shape, format!("{}.ia3", info.site), vec![width])
            };
            config.targets(sites).into_iter().map(entry).collect()
        }
        adapter::Config::LayerNorm(config) => {
            let pair = |info: &SiteInfo| {
                let key = |what: &str| at(form, info, &format!("ln_tuning_layers.{what}"));
                let gain = Entry::same(key("weight"), layer_norm::gain_name(info.site), vec![info.output]);
                let shift = || Entry::same(key("bias"), bias::name(info.site), vec![info.output]);
                std::iter::once(gain).chain(info.bias.then(shift))
            };
            config.targets(sites).into_iter().flat_map(pair).collect()
        }
        adapter::Config::Vera(config) => of_vera(config, sites, form),
        adapter::Config::PromptTuning(config) => vec![prompt(config.num_virtual_tokens, hidden)],
        adapter::Config::PTuning(config) => vec![prompt(config.num_virtual_tokens, hidden)],
        adapter::Config::PrefixTuning(config) => of_prefix(config, sites),
        adapter::Config::Bias(config) => {
            let entry = |info: &SiteInfo| Entry::own(bias::name(info.site), vec![info.output]);
            config.targets(sites).into_iter().map(entry).collect()
        }
        adapter::Config::Bottleneck(config) => {
            let width = config.width(hidden);
            let layer = |layer: usize| {
                config.parts().iter().flat_map(move |part| {
                    let own =
                        |what: &str, shape| Entry::own(format!("{}.{what}", bottleneck::name(layer, *part)), shape);
                    [
                        own("down.weight", vec![width, hidden]),
                        own("down.bias", vec![width]),
                        own("up.weight", vec![hidden, width]),
                        own("up.bias", vec![hidden]),
                    ]
                })
            };
            config.chosen(sites).flat_map(layer).collect()
        }
    }
}

/// The key of a module's tensor.
fn at(form: Form, info: &SiteInfo, what: &str) -> String {
    format!("{PREFIX}{}.{what}", form.path(&info.path))
}

fn of_lora(config: &lora::Config, sites: &[SiteInfo], form: Form) -> Vec<Entry> {
    let mut entries = Vec::new();
    for info in config.targets(sites) {
        let (site, rank) = (info.site, config.rank_at(info));
        let a = at(form, info, "lora_A.weight");
        entries.push(Entry::same(a, format!("{site}.lora_A"), vec![rank, info.input]));
        let b = at(form, info, "lora_B.weight");
        entries.push(Entry::same(b, format!("{site}.lora_B"), vec![info.output, rank]));
        if config.dora {
            let key = at(form, info, "lora_magnitude_vector");
            entries.push(Entry::same(key, format!("{site}.lora_magnitude"), vec![info.output]));
        }
        if info.bias && config.bias == lora::BiasKind::LoraOnly {
            let key = at(form, info, "base_layer.bias");
            entries.push(Entry::same(key, bias::name(site), vec![info.output]));
        }
    }
    entries
}

fn of_vera(config: &vera::Config, sites: &[SiteInfo], form: Form) -> Vec<Entry> {
    let [a, b] = config.shapes(sites).map(|shape| shape.to_vec());
    let mut entries = vec![
        Entry::same(format!("base_model.{}", vera::A), vera::A.to_string(), a),
        Entry::same(format!("base_model.{}", vera::B), vera::B.to_string(), b),
    ];
    for info in config.targets(sites) {
        for (what, width) in [("vera_lambda_b", info.output), ("vera_lambda_d", config.rank)] {
            entries.push(Entry::same(at(form, info, what), format!("{}.{what}", info.site), vec![width]));
        }
    }
    entries
}

/// PEFT's one key for virtual tokens of any kind.
const PROMPT: &str = "prompt_embeddings";

fn prompt(count: usize, hidden: usize) -> Entry {
    Entry::same(PROMPT.to_string(), virtual_tokens::NAME.to_string(), vec![count, hidden])
}

/// All layers in one tensor: the first layer's keys, its values, the second layer's keys, … Fewer layers have no PEFT form.
fn of_prefix(config: &prefix_tuning::Config, sites: &[SiteInfo]) -> Vec<Entry> {
    let count = config.num_virtual_tokens;
    let (layers, mut parts, mut end) = (targets::layers(sites), Vec::new(), 0);
    for layer in (0..layers).filter(|layer| config.layers.contains(*layer, layers)) {
        for module in [Module::Key, Module::Value] {
            let site = Site { layer: Some(layer), module };
            let width = prefix_tuning::width(sites, site);
            parts.push(Part { name: prefix_tuning::name(site), shape: vec![count, width], columns: end..end + width });
            end += width;
        }
    }
    if parts.len() == 2 * layers {
        return vec![Entry { key: PROMPT.to_string(), shape: vec![count, end], parts }];
    }
    parts.into_iter().map(|part| Entry::own(part.name, part.shape)).collect()
}

/// PEFT's word for the method; `None` where it has none, or none for these settings.
pub fn peft_type(method: &adapter::Config, sites: &[SiteInfo]) -> Option<&'static str> {
    match method {
        adapter::Config::Lora(_) => Some("LORA"),
        adapter::Config::Ia3(_) => Some("IA3"),
        adapter::Config::PromptTuning(_) => Some("PROMPT_TUNING"),
        adapter::Config::PTuning(_) => Some("P_TUNING"),
        adapter::Config::PrefixTuning(config) => (of_prefix(config, sites).len() == 1).then_some("PREFIX_TUNING"),
        adapter::Config::LayerNorm(_) => Some("LN_TUNING"),
        adapter::Config::Vera(_) => Some("VERA"),
        adapter::Config::Bottleneck(_) | adapter::Config::Bias(_) | adapter::Config::Head(_) => None,
    }
}
