//! AdapterHub's format of a bottleneck: the object `config` of `adapter_config.json`, and the tensor keys.
//!
//! AdapterHub's settings allow more than the three placements; other combinations are rejected by name.

use super::{BottleneckTensor, Config, Placement};
use crate::adapter::target_modules::{Layers, num_layers};
use crate::adapter::tensor_spec::{CONFIG_FILE, TensorSpec, ValidationErrors, unsupported_file};
use crate::error::{Error, Result};
use crate::model::hooks::Sublayer;
use crate::model::{Module, SiteInfo};
use espalier_tensor::backend::Activation;
use serde_json::{Map, Value, json};
use std::fmt::Display;

/// Settings of which one value is implemented, for every placement.
fn required_settings() -> [(&'static str, Value); 10] {
    [
        ("original_ln_after", json!(true)),
        ("ln_before", json!(false)),
        ("ln_after", json!(false)),
        ("adapter_residual_before_ln", json!(false)),
        ("cross_adapter", json!(false)),
        ("use_gating", json!(false)),
        ("phm_layer", json!(false)),
        ("inv_adapter", Value::Null),
        ("stochastic_depth", json!(0.0)),
        ("output_adapter", json!(true)),
    ]
}

/// Settings that are read or have no effect: those of the initialisation, and those that only `phm_layer` enables.
const KNOWN_SETTINGS: [&str; 24] = [
    "mh_adapter",
    "original_ln_before",
    "residual_before_ln",
    "is_parallel",
    "non_linearity",
    "reduction_factor",
    "scaling",
    "leave_out",
    "dropout",
    "architecture",
    "init_weights",
    "init_weights_seed",
    "inv_adapter_reduction_factor",
    "phm_dim",
    "phm_rank",
    "phm_bias",
    "phm_c_init",
    "phm_init_range",
    "factorized_phm_W",
    "factorized_phm_rule",
    "shared_W_phm",
    "shared_phm_rule",
    "learn_phm",
    "hypercomplex_nonlinearity",
];

impl Config {
    /// Parses AdapterHub's settings for a base of `num_layers` layers.
    ///
    /// # Errors
    /// `Invalid` (`unsupported_adapter`) naming every setting that is not implemented.
    pub fn from_adapterhub(settings: &Map<String, Value>, num_layers: usize) -> Result<Self> {
        if let Some(found) = settings.get("architecture").filter(|architecture| !architecture.is_null()) {
            return Err(unsupported_setting(format!(
                "config.architecture is {found}: of AdapterHub's methods only bottlenecks are read"
            )));
        }
        check_settings(settings)?;
        let layers = parse_layers(settings, num_layers)?;
        let reduction_factor = settings.get("reduction_factor").and_then(Value::as_f64);
        let reduction_factor = reduction_factor
            .filter(|factor| *factor > 0.0)
            .ok_or_else(|| unsupported_setting("config.reduction_factor must be one number above 0 for all layers"))?;
        let activation = settings.get("non_linearity");
        Ok(Self {
            placement: parse_placement(settings)?,
            reduction_factor: Some(reduction_factor),
            activation: Some(parse_activation(CONFIG_FILE, "config.non_linearity", activation)?),
            scaling: Some(parse_scaling(settings)?),
            // AdapterHub applies its dropout to the output, which has no effect outside training.
            dropout: 0.0,
            layers,
        })
    }

    /// AdapterHub's settings, each one for which `adapters` would otherwise choose a default.
    pub fn to_adapterhub(&self, sites: &[SiteInfo]) -> Value {
        let num_layers = num_layers(sites);
        let left_out: Vec<usize> = (0..num_layers).filter(|layer| !self.layers.contains(*layer, num_layers)).collect();
        let mut settings: Map<String, Value> =
            required_settings().into_iter().map(|(field, value)| (field.to_string(), value)).collect();
        settings.extend(
            [
                ("mh_adapter", json!(self.placement == Placement::Houlsby)),
                ("original_ln_before", json!(self.placement == Placement::Pfeiffer)),
                ("is_parallel", json!(self.placement == Placement::Parallel)),
                ("residual_before_ln", json!(true)),
                ("non_linearity", json!(activation_name(self.activation.unwrap_or(Activation::Relu)))),
                ("reduction_factor", json!(self.reduction_factor.unwrap_or(1.0))),
                // A number, not a string: `adapters` distinguishes a constant from a trained scaling by the type.
                ("scaling", json!(self.scaling.unwrap_or(1.0))),
                ("leave_out", json!(left_out)),
                ("dropout", json!(0.0)),
                ("init_weights", json!("mam_adapter")),
            ]
            .map(|(field, value)| (field.to_string(), value)),
        );
        Value::Object(settings)
    }

    /// Every tensor of an adapter called `name`, in models whose layers are named as BERT's.
    pub fn adapterhub_tensor_specs(&self, sites: &[SiteInfo], name: &str) -> Vec<TensorSpec> {
        let tensors = self.tensors(sites);
        let specs = |(layer, sublayer): (usize, Sublayer)| {
            let module_path = sublayer_path(sites, layer, sublayer);
            tensors.clone().map(|(tensor, shape)| {
                let suffix = match tensor {
                    BottleneckTensor::DownWeight => "adapter_down.0.weight",
                    BottleneckTensor::DownBias => "adapter_down.0.bias",
                    BottleneckTensor::UpWeight => "adapter_up.weight",
                    BottleneckTensor::UpBias => "adapter_up.bias",
                };
                let key = format!("{module_path}.adapters.{name}.{suffix}");
                TensorSpec::with_key(key, tensor.name(layer, sublayer), shape)
            })
        };
        self.positions(sites).into_iter().flat_map(specs).collect()
    }
}

/// Path of the module that ends in the sublayer's last linear map; it adds the residual and normalises the sum.
fn sublayer_path(sites: &[SiteInfo], layer: usize, sublayer: Sublayer) -> &str {
    let module = match sublayer {
        Sublayer::Attention => Module::AttentionOutput,
        Sublayer::FeedForward => Module::FeedForwardOut,
    };
    let is_sublayer_site = |info: &&SiteInfo| info.site.layer == Some(layer) && info.site.module == module;
    let path = sites.iter().find(is_sublayer_site).map_or("", |info| info.module_path.as_str());
    path.strip_suffix(".dense").unwrap_or(path)
}

fn check_settings(settings: &Map<String, Value>) -> Result<()> {
    let mut errors = ValidationErrors::default();
    for (field, value) in settings {
        match required_settings().iter().find(|(name, _)| name == field) {
            Some((_, required))
                if value == required || (value.as_f64().is_some() && value.as_f64() == required.as_f64()) => {}
            Some((_, required)) => errors.push(format!("config.{field} is {value}, expected {required}")),
            None if KNOWN_SETTINGS.contains(&field.as_str()) => {}
            None => errors.push(format!("config.{field} is not known here")),
        }
    }
    errors.into_result("unsupported_adapter", "adapter_config.json asks for what this server does not support")
}

/// Parses a boolean setting of `file`; `default` if it is absent.
pub fn bool_setting(file: &str, settings: &Map<String, Value>, field: &str, default: bool) -> Result<bool> {
    match settings.get(field) {
        None => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(unsupported_file(file, format!("config.{field} is {other}, expected true or false"))),
    }
}

fn parse_placement(settings: &Map<String, Value>) -> Result<Placement> {
    let has_attention_adapter = bool_setting(CONFIG_FILE, settings, "mh_adapter", false)?;
    let has_norm_before = bool_setting(CONFIG_FILE, settings, "original_ln_before", false)?;
    let placement = match (
        bool_setting(CONFIG_FILE, settings, "is_parallel", false)?,
        has_attention_adapter,
        has_norm_before,
    ) {
        (true, false, _) => return Ok(Placement::Parallel),
        (false, true, false) => Placement::Houlsby,
        (false, false, true) => Placement::Pfeiffer,
        (is_parallel, ..) => {
            return Err(unsupported_setting(format!(
                "config.is_parallel {is_parallel}, config.mh_adapter {has_attention_adapter} and config.original_ln_before \
                 {has_norm_before} \
                 together are none of double_seq_bn (houlsby), seq_bn (pfeiffer) and par_bn"
            )));
        }
    };
    match bool_setting(CONFIG_FILE, settings, "residual_before_ln", true)? {
        true => Ok(placement),
        false => Err(unsupported_setting("config.residual_before_ln is false, expected true")),
    }
}

/// Parses an activation by its name in transformers.
pub fn parse_activation(file: &str, field: &str, value: Option<&Value>) -> Result<Activation> {
    let name = value.and_then(Value::as_str).map(str::to_lowercase);
    match name.as_deref() {
        Some("relu") => Ok(Activation::Relu),
        Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_new") => Ok(Activation::GeluTanh),
        Some("tanh") => Ok(Activation::Tanh),
        Some("swish" | "silu") => Ok(Activation::Silu),
        _ => {
            let found = value.unwrap_or(&Value::Null);
            Err(unsupported_file(file, format!("{field} is {found}, expected relu, gelu, gelu_new, tanh or swish")))
        }
    }
}

/// Name of an activation in transformers.
pub fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Relu => "relu",
        Activation::Gelu => "gelu",
        Activation::GeluTanh => "gelu_new",
        Activation::Tanh => "tanh",
        Activation::Silu => "swish",
    }
}

fn parse_scaling(settings: &Map<String, Value>) -> Result<f64> {
    match settings.get("scaling") {
        None => Ok(1.0),
        Some(value) => value.as_f64().ok_or_else(|| {
            unsupported_setting(format!("config.scaling is {value}, expected a number, not a learned one"))
        }),
    }
}

/// Parses `leave_out`, the layers without an adapter.
fn parse_layers(settings: &Map<String, Value>, num_layers: usize) -> Result<Layers> {
    let left_out: Option<Vec<usize>> = match settings.get("leave_out") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(|item| item.as_u64()?.try_into().ok()).collect(),
        Some(_) => None,
    };
    let left_out_layers =
        left_out.ok_or_else(|| unsupported_setting("config.leave_out must be a list of layers' numbers"))?;
    let adapted_layers: Vec<usize> = (0..num_layers).filter(|layer| !left_out_layers.contains(layer)).collect();
    match adapted_layers.as_slice() {
        [] => Err(unsupported_setting("config.leave_out leaves no layer")),
        _ if adapted_layers.len() == num_layers => Ok(Layers::default()),
        [first, .., last] if last - first + 1 == adapted_layers.len() => Ok(Layers::Range { from: *first, to: *last }),
        [one] => Ok(Layers::Range { from: *one, to: *one }),
        _ => Err(unsupported_setting("config.leave_out leaves a gap between layers, expected neighbouring layers")),
    }
}

fn unsupported_setting(reason: impl Display) -> Error {
    unsupported_file(CONFIG_FILE, reason)
}
