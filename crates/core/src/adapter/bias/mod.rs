//! BitFit: trains biases of the base as differences from the frozen ones (Ben Zaken et al. 2021), those of linear maps and of norms.
//!
//! The bias of the key projection is left out: it adds the same number to every score of a query, so softmax cancels it.

use super::delta_vector::{BiasDeltas, bias_tensor_name};
use super::method::{Method, TrainingDefaults};
use super::parameter_builder::{BuildContext, ParameterBuilder, TensorMap};
use super::peft::{ModuleNaming, PeftMapping};
use super::target_modules::{self, Layers, TargetModules};
use super::tensor_spec::TensorSpec;
use super::validator::MethodValidator;
use crate::error::Result;
use crate::model::{BaseModelInfo, FirstTrainableLayer, Hooks, Module, Site, SiteInfo};
use espalier_tensor::{Tape, Var};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Bias)]
pub struct Config {
    /// Linear maps and norms; by default all that have a bias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_modules: Option<TargetModules>,
    pub layers: Layers,
    /// Dropout rate of the head's input during training.
    pub dropout: f64,
}

impl Config {
    /// The sites of a resolved configuration.
    pub fn target_sites<'a>(&self, sites: &'a [SiteInfo]) -> Vec<&'a SiteInfo> {
        let select = |modules| target_modules::selected_sites(modules, self.layers, sites);
        self.target_modules.as_ref().map_or_else(Vec::new, select)
    }
}

/// The sites that have a bias which can be trained.
pub fn trainable_biases<'a>(sites: impl IntoIterator<Item = &'a SiteInfo>) -> Vec<&'a SiteInfo> {
    sites.into_iter().filter(|info| info.has_bias && info.site.module != Module::Key).collect()
}

impl Method for Config {
    fn resolve(&self, _: &BaseModelInfo, sites: &[SiteInfo]) -> Result<Self> {
        let trainable_sites: Vec<SiteInfo> = trainable_biases(sites).into_iter().cloned().collect();
        let mut validator = MethodValidator::new(sites);
        validator.check_dropout(self.dropout);
        let modules =
            validator.resolve_modules_or_all(self.target_modules.as_ref(), self.layers, &trainable_sites, sites)?;
        Ok(Self { target_modules: Some(modules), ..self.clone() })
    }

    fn build(&self, context: &BuildContext, builder: &mut ParameterBuilder) -> Result<Box<dyn Hooks>> {
        Ok(Box::new(Bias(BiasDeltas::build(self.target_sites(context.sites), context, builder)?)))
    }

    fn num_virtual_tokens(&self) -> usize {
        0
    }

    fn head_dropout(&self) -> f64 {
        self.dropout
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

    fn tensor_specs(&self, sites: &[SiteInfo], _: ModuleNaming) -> Vec<TensorSpec> {
        let spec = |info: &SiteInfo| TensorSpec::with_native_key(bias_tensor_name(info.site), vec![info.out_features]);
        self.target_sites(sites).into_iter().map(spec).collect()
    }

    fn peft(&self) -> Option<&dyn PeftMapping> {
        None
    }
}

struct Bias(BiasDeltas);

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

    fn on_norm_output(&self, tape: &mut Tape, site: Site, _normalized: Var, output: Var) -> Result<Var> {
        self.0.add_to(tape, site, output)
    }
}
