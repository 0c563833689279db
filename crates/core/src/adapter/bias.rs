//! BitFit: the base's biases, learned as differences (Ben Zaken et al. 2021), those of linear maps and the shifts of norms.
//!
//! The key projection's bias is left out: it adds the same to all of a query's scores, and softmax takes it away again.

use super::BuildContext;
use super::targets::{self, Layers, MethodValidator, TargetModules};
use crate::adapter::ParameterBuilder;
use crate::error::{Error, Result};
use crate::model::{FirstTrainableLayer, Hooks, Module, Site, SiteInfo};
use espalier_tensor::{Buffer, ParamId, RaggedLayout, Tape, Tensor, Var};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Bias)]
pub struct Config {
    /// Linear maps and norms; all that have a bias where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_modules: Option<TargetModules>,
    pub layers: Layers,
    /// Of the rows that the head reads, in training alone.
    pub dropout: f64,
}

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo]) -> Result<Self> {
        let trainable_sites: Vec<SiteInfo> = trainable_biases(sites).into_iter().cloned().collect();
        let mut validator = MethodValidator::new(sites);
        validator.check_dropout(self.dropout);
        let modules =
            validator.resolve_modules_or_all(self.target_modules.as_ref(), self.layers, &trainable_sites, sites)?;
        Ok(Self { target_modules: Some(modules), ..self.clone() })
    }

    /// The sites of a resolved configuration.
    pub fn target_sites<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        let select = |modules| targets::selected_sites(modules, self.layers, sites);
        self.target_modules.as_ref().map_or_else(Vec::new, select)
    }
}

/// Where there is a bias that can be learned from.
pub fn trainable_biases<'a>(sites: impl IntoIterator<Item = &'a SiteInfo>) -> Vec<&'a SiteInfo> {
    sites.into_iter().filter(|info| info.has_bias && info.site.module != Module::Key).collect()
}

/// A vector of the base's that is learned: the tensor is what it has become, as PEFT stores it, and the base is changed by
/// the difference alone.
pub struct DeltaVector {
    trained: ParamId,
    /// The base's own, with the other sign `(1, width)`.
    negated_base: Buffer,
}

impl DeltaVector {
    pub fn build(
        context: &BuildContext,
        name: String,
        base_value: &Tensor,
        builder: &mut ParameterBuilder,
    ) -> Result<Self> {
        let init = |_: u64, _: &str| Ok::<_, Error>(base_value.clone());
        let trained = builder.add_with(name, &base_value.shape, init)?;
        let negated = base_value.values.iter().map(|value| -value).collect();
        let negated_base = context.base.backend().upload(&Tensor::new([1, base_value.values.len()], negated))?;
        Ok(Self { trained, negated_base })
    }

    /// What has been added to the base's own `(1, width)`: zero at first.
    pub fn delta(&self, tape: &mut Tape) -> Result<Var> {
        let trained = tape.parameter(self.trained)?;
        let negated_base = tape.constant(self.negated_base.clone(), Arc::new(RaggedLayout::one_row_per_sequence(1)));
        Ok(tape.add_channels(trained, negated_base)?)
    }
}

/// Learned biases.
#[derive(Default)]
pub struct BiasDeltas(BTreeMap<Site, DeltaVector>);

impl BiasDeltas {
    pub fn build<'a>(
        sites: impl IntoIterator<Item = &'a SiteInfo>,
        context: &BuildContext,
        builder: &mut ParameterBuilder,
    ) -> Result<Self> {
        let mut deltas = BTreeMap::new();
        for info in sites {
            let missing_bias = || Error::internal(format!("the base has no bias at {}", info.site));
            let base_value = context.base.bias_at(info.site)?.ok_or_else(missing_bias)?;
            deltas.insert(info.site, DeltaVector::build(context, tensor_name(info.site), &base_value, builder)?);
        }
        Ok(Self(deltas))
    }

    pub fn contains(&self, site: Site) -> bool {
        self.0.contains_key(&site)
    }

    pub fn sites(&self) -> impl Iterator<Item = Site> + '_ {
        self.0.keys().copied()
    }

    /// The output with the site's difference, where it has one.
    pub fn add_to(&self, tape: &mut Tape, site: Site, output: Var) -> Result<Var> {
        let Some(delta_vector) = self.0.get(&site) else { return Ok(output) };
        let delta = delta_vector.delta(tape)?;
        Ok(tape.add_channels(output, delta)?)
    }
}

/// The tensor's name: `layer.0.query.bias`.
pub fn tensor_name(site: Site) -> String {
    format!("{site}.bias")
}

pub struct Bias(BiasDeltas);

impl Bias {
    pub fn build(config: &Config, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Self> {
        Ok(Self(BiasDeltas::build(config.target_sites(context.sites), context, builder)?))
    }
}

impl Hooks for Bias {
    fn first_trainable_layer(&self) -> FirstTrainableLayer {
        FirstTrainableLayer::of_sites(self.0.sites())
    }

    fn has_output_hook(&self, site: Site) -> bool {
        self.0.contains(site)
    }

    fn on_linear_output(&self, tape: &mut Tape, site: Site, _input: Var, output: Var) -> Result<Var> {
        self.0.add_to(tape, site, output)
    }

    fn on_norm_output(&self, tape: &mut Tape, site: Site, _normalised: Var, output: Var) -> Result<Var> {
        self.0.add_to(tape, site, output)
    }
}
