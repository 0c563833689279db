//! VeRA: one pair of frozen random matrices for all sites and two trainable vectors per site (Kopiczko et al. 2023),
//! `y + λb ⊙ B·(λd ⊙ A·x)`.
//!
//! The matrices are drawn from `projection_seed`, so adapters with the same seed share them in memory. They are published
//! with the adapter, because other implementations draw other numbers from the same seed.
//!
//! [`PeftConfig`] maps it to PEFT's files.

use super::method::{Method, TrainingDefaults};
use super::parameter_builder::{BuildContext, ParameterBuilder, TensorInit, TensorMap};
use super::peft::{ModuleNaming, PeftMapping};
use super::target_modules::{self, Layers, TargetModules, linear_sites};
use super::tensor_spec::TensorSpec;
use super::validator::MethodValidator;
use crate::adapter::peft::mapping::{
    FAN_IN_FAN_OUT, are_same_sites, dropout_field, f64_field, fields_that_differ, positive_integer,
};
use crate::adapter::peft::target_selector::TargetSelector;
use crate::adapter::peft::{ConfigFields, ExportContext, PeftFields};
use crate::error::Result;
use crate::model::{BaseModelInfo, FirstTrainableLayer, Hooks, Site, SiteInfo};
use espalier_tensor::backend::FrozenLinear;
use espalier_tensor::{ParamId, Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Vera)]
pub struct Config {
    pub rank: usize,
    /// Initial value of λd.
    pub d_initial: f64,
    /// Dropout rate of the adapter's input during training.
    pub dropout: f64,
    /// Seed of the random matrices.
    pub projection_seed: u64,
    pub target_modules: TargetModules,
    pub layers: Layers,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rank: 256,
            d_initial: 0.1,
            dropout: 0.0,
            projection_seed: 0,
            target_modules: TargetModules::from_names(&["query", "value"]),
            layers: Layers::default(),
        }
    }
}

/// Names of the frozen matrices.
const PROJECTION_A_NAME: &str = "vera_A";
const PROJECTION_B_NAME: &str = "vera_B";
const MAX_RANK: usize = 4096;

impl Config {
    /// The sites of a resolved configuration.
    pub fn target_sites<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        target_modules::selected_sites(&self.target_modules, self.layers, sites)
    }

    /// Shapes of the frozen matrices: `(rank, widest input)` and `(widest output, rank)`.
    pub fn projection_shapes(&self, sites: &[SiteInfo]) -> [[usize; 2]; 2] {
        let max_width =
            |width: fn(&SiteInfo) -> usize| self.target_sites(sites).into_iter().map(width).max().unwrap_or(0);
        [[self.rank, max_width(|info| info.in_features)], [max_width(|info| info.out_features), self.rank]]
    }
}

impl Method for Config {
    fn resolve(&self, _: &BaseModelInfo, sites: &[SiteInfo]) -> Result<Self> {
        let linear_sites = linear_sites(sites);
        let mut validator = MethodValidator::new(sites);
        validator.require(
            (1..=MAX_RANK).contains(&self.rank),
            "rank",
            format!("rank must be between 1 and {MAX_RANK}"),
        );
        let is_valid_initial = self.d_initial.is_finite() && self.d_initial != 0.0;
        validator.require(is_valid_initial, "d_initial", "d_initial must be a number, and not 0");
        validator.check_dropout(self.dropout);
        validator.check_layers(self.layers);
        let target_modules = validator.resolve_modules("target_modules", &self.target_modules, &linear_sites);
        let resolved = Self { target_modules, ..self.clone() };
        validator.finish(|| !resolved.target_sites(sites).is_empty())?;
        Ok(resolved)
    }

    fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Box<dyn Hooks>> {
        let [a_shape, b_shape] = self.projection_shapes(context.sites);
        let projection_a = builder.add_frozen(PROJECTION_A_NAME, &a_shape, self.projection_seed);
        let projection_b = builder.add_frozen(PROJECTION_B_NAME, &b_shape, self.projection_seed);
        let mut sites = BTreeMap::new();
        for info in self.target_sites(context.sites) {
            let mut lambda = |suffix: &str, width: usize, init| {
                builder.add(format!("{}.vera_lambda_{suffix}", info.site), &[width], init)
            };
            let lambda_d = lambda("d", self.rank, TensorInit::Constant(self.d_initial as f32));
            let lambda_b = lambda("b", info.out_features, TensorInit::Zeros);
            let (matrix_a, matrix_b) =
                (leading_columns(&projection_a, info.in_features), leading_rows(&projection_b, info.out_features));
            let (linear_a, linear_b) = (context.base.share_linear(matrix_a)?, context.base.share_linear(matrix_b)?);
            sites.insert(info.site, VeraSite { projection_a: linear_a, projection_b: linear_b, lambda_d, lambda_b });
        }
        Ok(Box::new(Vera { sites, dropout: self.dropout }))
    }

    fn num_virtual_tokens(&self) -> usize {
        0
    }

    fn head_dropout(&self) -> f64 {
        0.0
    }

    fn training_defaults(&self) -> TrainingDefaults {
        TrainingDefaults::with_learning_rate(3e-3)
    }

    fn learning_rate_ratio(&self, _: &str) -> f64 {
        1.0
    }

    fn is_identity_at_init(&self) -> bool {
        true
    }

    fn inference_weights(&self, _: &BuildContext, weights: TensorMap) -> Result<TensorMap> {
        Ok(weights)
    }

    fn tensor_specs(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Vec<TensorSpec> {
        let [shape_a, shape_b] = self.projection_shapes(sites).map(|shape| shape.to_vec());
        let projection =
            |name: &str, shape| TensorSpec::with_key(format!("base_model.{name}"), name.to_string(), shape);
        let mut specs = vec![projection(PROJECTION_A_NAME, shape_a), projection(PROJECTION_B_NAME, shape_b)];
        for info in self.target_sites(sites) {
            for (suffix, width) in [("vera_lambda_b", info.out_features), ("vera_lambda_d", self.rank)] {
                let key = naming.module_key(info, suffix);
                specs.push(TensorSpec::with_key(key, format!("{}.{suffix}", info.site), vec![width]));
            }
        }
        specs
    }

    fn peft(&self) -> Option<&dyn PeftMapping> {
        Some(self)
    }
}

struct Vera {
    sites: BTreeMap<Site, VeraSite>,
    dropout: f64,
}

struct VeraSite {
    projection_a: Arc<FrozenLinear>,
    projection_b: Arc<FrozenLinear>,
    /// λd, `(rank)`.
    lambda_d: ParamId,
    /// λb, `(output)`, zero at initialisation.
    lambda_b: ParamId,
}

fn leading_columns(matrix: &Tensor, count: usize) -> Tensor {
    let (rows, width) = (matrix.shape[0], matrix.shape[1]);
    Tensor::new([rows, count], matrix.values.chunks_exact(width).flat_map(|row| &row[..count]).copied().collect())
}

fn leading_rows(matrix: &Tensor, count: usize) -> Tensor {
    let width = matrix.shape[1];
    Tensor::new([count, width], matrix.values[..count * width].to_vec())
}

impl Hooks for Vera {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        FirstTrainableLayer::of_sites(self.sites.keys().copied())
    }

    fn has_output_hook(&self, site: Site) -> bool {
        self.sites.contains_key(&site)
    }

    fn on_linear_output(&self, tape: &mut Tape, site: Site, input: Var, output: Var) -> Result<Var> {
        let Some(vera_site) = self.sites.get(&site) else { return Ok(output) };
        let input = tape.dropout(input, self.dropout, site.dropout_site_id())?;
        let (lambda_d, lambda_b) = (tape.parameter(vera_site.lambda_d)?, tape.parameter(vera_site.lambda_b)?);
        let low_rank = tape.linear(input, &vera_site.projection_a)?;
        let scaled_low_rank = tape.scale_channels(low_rank, lambda_d)?;
        let projected = tape.linear(scaled_low_rank, &vera_site.projection_b)?;
        let update_rows = tape.scale_channels(projected, lambda_b)?;
        Ok(tape.add_rows_scaled(output, update_rows, 1.0)?)
    }
}

impl PeftMapping for Config {
    fn peft_type(&self, _: &[SiteInfo]) -> Option<&'static str> {
        Some(PeftConfig::PEFT_TYPE)
    }

    fn config_fields(&self, context: &ExportContext) -> ConfigFields {
        ConfigFields::from([
            ("bias", json!("none")),
            ("d_initial", json!(self.d_initial)),
            (FAN_IN_FAN_OUT, json!(context.info.fan_in_fan_out())),
            ("init_weights", json!(true)),
            ("layers_pattern", Value::Null),
            ("layers_to_transform", Value::Null),
            ("projection_prng_key", json!(self.projection_seed)),
            ("r", json!(self.rank)),
            ("save_projection", json!(true)),
            ("target_modules", context.target_modules(&self.target_sites(context.sites))),
            ("vera_dropout", json!(self.dropout)),
        ])
    }
}

/// The fields of `VERA`.
#[derive(Debug, Clone)]
pub struct PeftConfig {
    rank: usize,
    projection_seed: u64,
    d_initial: f64,
    dropout: f64,
    targets: TargetSelector,
}

impl PeftFields for PeftConfig {
    type Config = Config;
    const PEFT_TYPE: &'static str = "VERA";
    const ACCEPTED_FIELDS: &'static [&'static str] =
        &["r", "projection_prng_key", "save_projection", "vera_dropout", "d_initial", "init_weights", FAN_IN_FAN_OUT];

    fn value_error(field: &str, value: &Value) -> Option<String> {
        let is_unsupported = field == "save_projection" && *value == false;
        let message = "save_projection is false, and its random matrices cannot be drawn again here: train with \
                       save_projection=True";
        is_unsupported.then(|| message.to_string())
    }

    fn parse(fields: &Map<String, Value>) -> Result<Self> {
        Ok(Self {
            rank: positive_integer(fields, "r")?,
            projection_seed: fields.get("projection_prng_key").and_then(Value::as_u64).unwrap_or(0),
            d_initial: f64_field(fields, "d_initial")?.unwrap_or(0.1),
            dropout: dropout_field(fields, "vera_dropout")?,
            targets: TargetSelector::from_fields(fields)?,
        })
    }

    fn to_config(&self, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Config> {
        Ok(Config {
            rank: self.rank,
            d_initial: self.d_initial,
            dropout: self.dropout,
            projection_seed: self.projection_seed,
            target_modules: self.targets.linear_modules(sites, naming)?,
            ..Config::default()
        })
    }

    fn differing_fields(&self, config: &Config, sites: &[SiteInfo], naming: ModuleNaming) -> Result<Vec<&'static str>> {
        let found = self.to_config(sites, naming)?;
        Ok(fields_that_differ([
            ("r", config.rank == self.rank),
            ("d_initial", config.d_initial == self.d_initial),
            ("vera_dropout", config.dropout == self.dropout),
            ("projection_prng_key", config.projection_seed == self.projection_seed),
            ("target_modules", are_same_sites(&found.target_sites(sites), &config.target_sites(sites))),
        ]))
    }

    fn num_virtual_tokens(&self) -> Option<usize> {
        None
    }

    fn accepts_kv_size(&self) -> bool {
        false
    }
}
