//! AdapterHub's `adapter_config.json`: a bottleneck's settings, in and out.
//!
//! Its settings are finer than our three placements; what lies between them is refused by name, as are its other methods.

use super::{config_object, invalid_file};
use crate::adapter::bottleneck::{Config as Method, Placement};
use crate::adapter::targets::{self, Layers};
use crate::artifact::base_summary::BaseSummary;
use crate::artifact::validation_errors::ValidationErrors;
use crate::error::{Error, Result};
use crate::model::SiteInfo;
use espalier_tensor::backend::Activation;
use serde_json::{Map, Value, json};

const FILE: &str = "adapter_config.json";

/// What it says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What the adapter is called in the tensors' keys.
    pub name: String,
    /// The base's.
    pub model_name: Option<String>,
    pub method: Method,
}

/// Settings with the one value that is computed, whatever the placement.
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

/// Settings that are read, and those that say how a training began or that `phm_layer` would have to switch on.
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
    /// # Errors
    /// `Invalid`: `unreadable_adapter`, `unsupported_adapter` naming every setting that is not computed here, `other_base` for one of
    /// another size or kind.
    pub fn parse(fields: &Map<String, Value>, summary: &BaseSummary) -> Result<Self> {
        let string_field = |field: &str| fields.get(field).and_then(Value::as_str).map(str::to_string);
        let name = string_field("name").ok_or_else(|| invalid_file(FILE, "name must be a text"))?;
        check_base(fields, summary)?;
        let settings = config_object(FILE, fields)?;
        if settings.get("architecture").is_some_and(|architecture| !architecture.is_null()) {
            let found = &settings["architecture"];
            return Err(unsupported_adapter(&format!(
                "config.architecture is {found}: of AdapterHub's methods only bottlenecks are read"
            )));
        }
        check_settings(settings)?;
        let layers = parse_layers(settings, summary.info.layers)?;
        let reduction_factor = settings.get("reduction_factor").and_then(Value::as_f64);
        let reduction_factor = reduction_factor
            .filter(|factor| *factor > 0.0)
            .ok_or_else(|| unsupported_adapter("config.reduction_factor must be one number above 0 for all layers"))?;
        let method = Method {
            placement: parse_placement(settings)?,
            reduction_factor: Some(reduction_factor),
            activation: Some(parse_activation(FILE, "config.non_linearity", settings.get("non_linearity"))?),
            scaling: Some(parse_scaling(settings)?),
            // Of theirs it is the output's, and nothing is trained any more.
            dropout: 0.0,
            layers,
        };
        Ok(Self { name, model_name: string_field("model_name"), method })
    }

    /// # Errors
    /// `Invalid` (`unreadable_adapter`) naming the setting that does not fit these layers.
    pub fn check_sites(&self, sites: &[SiteInfo]) -> Result<()> {
        let resolved = self.method.resolve(sites);
        resolved.map(drop).map_err(|error| invalid_file(FILE, &error.to_string()))
    }
}

fn check_base(fields: &Map<String, Value>, summary: &BaseSummary) -> Result<()> {
    let info = &summary.info;
    let expected = [("hidden_size", json!(info.hidden_size)), ("model_type", json!(info.model_type))];
    for (field, expected_value) in expected {
        if let Some(found) = fields.get(field).filter(|theirs| **theirs != expected_value) {
            let detail = format!("{FILE}: {field} is {found}, this server's base has {expected_value}");
            return Err(Error::invalid("other_base", detail));
        }
    }
    super::keys::model_class(info).map(drop).map_err(|_| {
        unsupported_adapter(&format!("a base of the type {} takes none in AdapterHub's form here", info.model_type))
    })
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

fn bool_setting(settings: &Map<String, Value>, field: &str, default: bool) -> Result<bool> {
    match settings.get(field) {
        None => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(unsupported_adapter(&format!("config.{field} is {other}, expected true or false"))),
    }
}

fn parse_placement(settings: &Map<String, Value>) -> Result<Placement> {
    let has_attention_adapter = bool_setting(settings, "mh_adapter", false)?;
    let has_norm_before = bool_setting(settings, "original_ln_before", false)?;
    let placement = match (bool_setting(settings, "is_parallel", false)?, has_attention_adapter, has_norm_before) {
        (true, false, _) => return Ok(Placement::Parallel),
        (false, true, false) => Placement::Houlsby,
        (false, false, true) => Placement::Pfeiffer,
        (is_parallel, ..) => {
            return Err(unsupported_adapter(&format!(
                "config.is_parallel {is_parallel}, config.mh_adapter {has_attention_adapter} and config.original_ln_before {has_norm_before} \
                 together are none of double_seq_bn (houlsby), seq_bn (pfeiffer) and par_bn"
            )));
        }
    };
    match bool_setting(settings, "residual_before_ln", true)? {
        true => Ok(placement),
        false => Err(unsupported_adapter("config.residual_before_ln is false, expected true")),
    }
}

/// By transformers' names.
pub fn parse_activation(file: &str, field: &str, value: Option<&Value>) -> Result<Activation> {
    let name = value.and_then(Value::as_str).map(str::to_lowercase);
    match name.as_deref() {
        Some("relu") => Ok(Activation::Relu),
        Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_new") => Ok(Activation::GeluTanh),
        Some("tanh") => Ok(Activation::Tanh),
        Some("swish" | "silu") => Ok(Activation::Silu),
        _ => Err(Error::invalid(
            "unsupported_adapter",
            format!(
                "{file}: {field} is {}, expected relu, gelu, gelu_new, tanh or swish",
                value.unwrap_or(&Value::Null)
            ),
        )),
    }
}

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
            unsupported_adapter(&format!("config.scaling is {value}, expected a number, not a learned one"))
        }),
    }
}

/// `leave_out` names the layers without an adapter.
fn parse_layers(settings: &Map<String, Value>, num_layers: usize) -> Result<Layers> {
    let left_out: Option<Vec<usize>> = match settings.get("leave_out") {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(|item| item.as_u64()?.try_into().ok()).collect(),
        Some(_) => None,
    };
    let left_out_layers =
        left_out.ok_or_else(|| unsupported_adapter("config.leave_out must be a list of layers' numbers"))?;
    let adapted_layers: Vec<usize> = (0..num_layers).filter(|layer| !left_out_layers.contains(layer)).collect();
    match adapted_layers.as_slice() {
        [] => Err(unsupported_adapter("config.leave_out leaves no layer")),
        _ if adapted_layers.len() == num_layers => Ok(Layers::default()),
        [first, .., last] if last - first + 1 == adapted_layers.len() => Ok(Layers::Range { from: *first, to: *last }),
        [one] => Ok(Layers::Range { from: *one, to: *one }),
        _ => Err(unsupported_adapter("config.leave_out leaves a gap between layers, expected neighbouring layers")),
    }
}

/// The settings, every one that `adapters` would fill in otherwise.
pub fn settings_json(method: &Method, sites: &[SiteInfo]) -> Value {
    let num_layers = targets::num_layers(sites);
    let left_out: Vec<usize> = (0..num_layers).filter(|layer| !method.layers.contains(*layer, num_layers)).collect();
    let mut settings: Map<String, Value> =
        required_settings().into_iter().map(|(field, value)| (field.to_string(), value)).collect();
    settings.extend(
        [
            ("mh_adapter", json!(method.placement == Placement::Houlsby)),
            ("original_ln_before", json!(method.placement == Placement::Pfeiffer)),
            ("is_parallel", json!(method.placement == Placement::Parallel)),
            ("residual_before_ln", json!(true)),
            ("non_linearity", json!(activation_name(method.activation.unwrap_or(Activation::Relu)))),
            ("reduction_factor", json!(method.reduction_factor.unwrap_or(1.0))),
            // `adapters` tells a number from a learned one by its type.
            ("scaling", json!(method.scaling.unwrap_or(1.0))),
            ("leave_out", json!(left_out)),
            ("dropout", json!(0.0)),
            ("init_weights", json!("mam_adapter")),
        ]
        .map(|(field, value)| (field.to_string(), value)),
    );
    Value::Object(settings)
}

fn unsupported_adapter(what: &str) -> Error {
    Error::invalid("unsupported_adapter", format!("{FILE}: {what}"))
}
