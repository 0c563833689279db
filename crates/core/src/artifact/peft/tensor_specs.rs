//! Which tensors a PEFT file of a method holds: their keys and shapes, and what each is under our names.
//!
//! Methods for which PEFT has no type keep our own names as keys. Knows nothing of files.

use super::module_naming::{KEY_PREFIX, ModuleNaming};
use crate::adapter::{self, bias, bottleneck, layer_norm, lora, prefix_tuning, targets, vera, virtual_tokens};
use crate::model::{Module, Site, SiteInfo};
use std::ops::Range;

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    pub key: String,
    pub shape: Vec<usize>,
    pub slices: Vec<TensorSlice>,
}

/// One of our tensors, as some columns of a file's tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSlice {
    pub name: String,
    pub shape: Vec<usize>,
    pub column_range: Range<usize>,
}

impl TensorSpec {
    /// The same numbers in our shape.
    fn reshaped(key: String, shape: Vec<usize>, name: String, native_shape: Vec<usize>) -> Self {
        let column_range = 0..shape.last().copied().unwrap_or(1);
        Self { key, shape, slices: vec![TensorSlice { name, shape: native_shape, column_range }] }
    }

    fn with_key(key: String, name: String, shape: Vec<usize>) -> Self {
        Self::reshaped(key, shape.clone(), name, shape)
    }

    /// A tensor that PEFT does not know.
    fn with_native_key(name: String, shape: Vec<usize>) -> Self {
        Self::with_key(name.clone(), name, shape)
    }
}

/// The method's tensors, without the head's. `sites` are those of the adapter's pooling.
pub fn for_method(method: &adapter::Config, sites: &[SiteInfo], naming: ModuleNaming) -> Vec<TensorSpec> {
    let hidden_size = bottleneck::hidden_size(sites);
    match method {
        adapter::Config::Head(_) => Vec::new(),
        adapter::Config::Lora(config) => lora_specs(config, sites, naming),
        adapter::Config::Ia3(config) => {
            let scale_spec = |info: &SiteInfo| {
                let (width, shape) = match config.scales_input(info) {
                    true => (info.in_features, vec![1, info.in_features]),
                    false => (info.out_features, vec![info.out_features, 1]),
                };
                TensorSpec::reshaped(
                    module_key(naming, info, "ia3_l"),
                    shape,
                    format!("{}.ia3", info.site),
                    vec![width],
                )
            };
            config.target_sites(sites).into_iter().map(scale_spec).collect()
        }
        adapter::Config::LayerNorm(config) => {
            let norm_specs = |info: &SiteInfo| {
                let key = |what: &str| module_key(naming, info, &format!("ln_tuning_layers.{what}"));
                let weight = TensorSpec::with_key(
                    key("weight"),
                    layer_norm::weight_tensor_name(info.site),
                    vec![info.out_features],
                );
                let bias = || TensorSpec::with_key(key("bias"), bias::tensor_name(info.site), vec![info.out_features]);
                std::iter::once(weight).chain(info.has_bias.then(bias))
            };
            config.target_sites(sites).into_iter().flat_map(norm_specs).collect()
        }
        adapter::Config::Vera(config) => vera_specs(config, sites, naming),
        adapter::Config::PromptTuning(config) => vec![prompt_spec(config.num_virtual_tokens, hidden_size)],
        adapter::Config::PTuning(config) => vec![prompt_spec(config.num_virtual_tokens, hidden_size)],
        adapter::Config::PrefixTuning(config) => prefix_specs(config, sites),
        adapter::Config::Bias(config) => {
            let bias_spec =
                |info: &SiteInfo| TensorSpec::with_native_key(bias::tensor_name(info.site), vec![info.out_features]);
            config.target_sites(sites).into_iter().map(bias_spec).collect()
        }
        adapter::Config::Bottleneck(config) => {
            let width = config.bottleneck_size(hidden_size);
            let layer_specs = |layer: usize| {
                config.sublayers().iter().flat_map(move |part| {
                    let tensor_spec = |what: &str, shape| {
                        TensorSpec::with_native_key(
                            format!("{}.{what}", bottleneck::tensor_prefix(layer, *part)),
                            shape,
                        )
                    };
                    [
                        tensor_spec("down.weight", vec![width, hidden_size]),
                        tensor_spec("down.bias", vec![width]),
                        tensor_spec("up.weight", vec![hidden_size, width]),
                        tensor_spec("up.bias", vec![hidden_size]),
                    ]
                })
            };
            config.layer_indices(sites).flat_map(layer_specs).collect()
        }
    }
}

/// The key of a module's tensor.
fn module_key(naming: ModuleNaming, info: &SiteInfo, suffix: &str) -> String {
    format!("{KEY_PREFIX}{}.{suffix}", naming.strip_prefix(&info.module_path))
}

fn lora_specs(config: &lora::Config, sites: &[SiteInfo], naming: ModuleNaming) -> Vec<TensorSpec> {
    let mut specs = Vec::new();
    for info in config.target_sites(sites) {
        let (site, rank) = (info.site, config.rank_for(info));
        let key_a = module_key(naming, info, "lora_A.weight");
        specs.push(TensorSpec::with_key(key_a, format!("{site}.lora_A"), vec![rank, info.in_features]));
        let key_b = module_key(naming, info, "lora_B.weight");
        specs.push(TensorSpec::with_key(key_b, format!("{site}.lora_B"), vec![info.out_features, rank]));
        if config.dora {
            let key = module_key(naming, info, "lora_magnitude_vector");
            specs.push(TensorSpec::with_key(key, format!("{site}.lora_magnitude"), vec![info.out_features]));
        }
        if info.has_bias && config.bias == lora::BiasKind::LoraOnly {
            let key = module_key(naming, info, "base_layer.bias");
            specs.push(TensorSpec::with_key(key, bias::tensor_name(site), vec![info.out_features]));
        }
    }
    specs
}

fn vera_specs(config: &vera::Config, sites: &[SiteInfo], naming: ModuleNaming) -> Vec<TensorSpec> {
    let [shape_a, shape_b] = config.projection_shapes(sites).map(|shape| shape.to_vec());
    let mut specs = vec![
        TensorSpec::with_key(
            format!("base_model.{}", vera::PROJECTION_A_NAME),
            vera::PROJECTION_A_NAME.to_string(),
            shape_a,
        ),
        TensorSpec::with_key(
            format!("base_model.{}", vera::PROJECTION_B_NAME),
            vera::PROJECTION_B_NAME.to_string(),
            shape_b,
        ),
    ];
    for info in config.target_sites(sites) {
        for (suffix, width) in [("vera_lambda_b", info.out_features), ("vera_lambda_d", config.rank)] {
            specs.push(TensorSpec::with_key(
                module_key(naming, info, suffix),
                format!("{}.{suffix}", info.site),
                vec![width],
            ));
        }
    }
    specs
}

/// PEFT's one key for virtual tokens of any kind.
const PROMPT_EMBEDDINGS_KEY: &str = "prompt_embeddings";

fn prompt_spec(count: usize, hidden_size: usize) -> TensorSpec {
    TensorSpec::with_key(
        PROMPT_EMBEDDINGS_KEY.to_string(),
        virtual_tokens::PROMPT_TENSOR_NAME.to_string(),
        vec![count, hidden_size],
    )
}

/// All layers in one tensor: the first layer's keys, its values, the second layer's keys, … Fewer layers have no PEFT form.
fn prefix_specs(config: &prefix_tuning::Config, sites: &[SiteInfo]) -> Vec<TensorSpec> {
    let count = config.num_virtual_tokens;
    let (num_layers, mut slices, mut end) = (targets::num_layers(sites), Vec::new(), 0);
    for layer in (0..num_layers).filter(|layer| config.layers.contains(*layer, num_layers)) {
        for module in [Module::Key, Module::Value] {
            let site = Site { layer: Some(layer), module };
            let width = prefix_tuning::key_value_width(sites, site);
            slices.push(TensorSlice {
                name: prefix_tuning::tensor_name(site),
                shape: vec![count, width],
                column_range: end..end + width,
            });
            end += width;
        }
    }
    if slices.len() == 2 * num_layers {
        return vec![TensorSpec { key: PROMPT_EMBEDDINGS_KEY.to_string(), shape: vec![count, end], slices }];
    }
    slices.into_iter().map(|part| TensorSpec::with_native_key(part.name, part.shape)).collect()
}

/// PEFT's word for the method; `None` where it has none, or none for these settings.
pub fn peft_type(method: &adapter::Config, sites: &[SiteInfo]) -> Option<&'static str> {
    match method {
        adapter::Config::Lora(_) => Some("LORA"),
        adapter::Config::Ia3(_) => Some("IA3"),
        adapter::Config::PromptTuning(_) => Some("PROMPT_TUNING"),
        adapter::Config::PTuning(_) => Some("P_TUNING"),
        adapter::Config::PrefixTuning(config) => (prefix_specs(config, sites).len() == 1).then_some("PREFIX_TUNING"),
        adapter::Config::LayerNorm(_) => Some("LN_TUNING"),
        adapter::Config::Vera(_) => Some("VERA"),
        adapter::Config::Bottleneck(_) | adapter::Config::Bias(_) | adapter::Config::Head(_) => None,
    }
}
