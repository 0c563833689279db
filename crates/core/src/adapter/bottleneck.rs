//! Bottleneck adapters: a narrow layer beside or behind a sublayer, `x + s·up(f(down(x)))`.
//!
//! `houlsby` (Houlsby et al. 2019) has one behind attention and one behind the feed-forward part; `pfeiffer` (Pfeiffer et al.
//! 2020) only the second, which reads the normed sum with the residual; `parallel` (He et al. 2021) has one beside the
//! feed-forward part. What each reads and adds to is what AdapterHub's configurations of these names do.

use super::Ground;
use super::targets::{self, Check, Layers};
use crate::adapter::{Init, Parameters};
use crate::error::Result;
use crate::model::hooks::{Part, Sublayer};
use crate::model::{Hooks, Lowest, Module, SiteInfo};
use espalier_tensor::kernels::Activation;
use espalier_tensor::{Param, Rows, Tape};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Bottleneck)]
pub struct Config {
    pub placement: Placement,
    /// The base's width over the bottleneck's: 16, for `parallel` 2, where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reduction_factor: Option<f64>,
    /// `relu`, for `houlsby` `silu`, where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// What the bottleneck's output is multiplied by: 1, for `parallel` 4, where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling: Option<f64>,
    /// Of what goes into the bottleneck, in training.
    pub dropout: f64,
    pub layers: Layers,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            placement: Placement::Pfeiffer,
            reduction_factor: None,
            activation: None,
            scaling: None,
            dropout: 0.0,
            layers: Layers::default(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    Houlsby,
    Pfeiffer,
    Parallel,
}

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo]) -> Result<Self> {
        let is_parallel = self.placement == Placement::Parallel;
        let factor = self.reduction_factor.unwrap_or(if is_parallel { 2.0 } else { 16.0 });
        let scaling = self.scaling.unwrap_or(if is_parallel { 4.0 } else { 1.0 });
        let default = if self.placement == Placement::Houlsby { Activation::Silu } else { Activation::Relu };
        let mut check = Check::new(sites);
        check.layers(self.layers);
        check.dropout(self.dropout);
        let hidden = hidden(sites);
        let message = format!("reduction_factor must be a number above 0 and at most {hidden}");
        check.require(factor.is_finite() && factor > 0.0 && factor <= hidden as f64, "reduction_factor", message);
        check.require(scaling.is_finite() && scaling != 0.0, "scaling", "scaling must be a number, and not 0");
        let activation = Some(self.activation.unwrap_or(default));
        let resolved = Self { reduction_factor: Some(factor), scaling: Some(scaling), activation, ..self.clone() };
        check.finish(|| resolved.chosen(sites).next().is_some())?;
        Ok(resolved)
    }

    /// Numbers in the bottleneck.
    pub fn width(&self, hidden: usize) -> usize {
        ((hidden as f64 / self.reduction_factor.unwrap_or(1.0)) as usize).max(1)
    }

    pub fn parts(&self) -> &'static [Part] {
        match self.placement {
            Placement::Houlsby => &[Part::Attention, Part::FeedForward],
            Placement::Pfeiffer | Placement::Parallel => &[Part::FeedForward],
        }
    }

    /// The layers that it is in.
    pub fn chosen<'a>(&'a self, sites: &'a [SiteInfo]) -> impl Iterator<Item = usize> + 'a {
        let layers = targets::layers(sites);
        (0..layers).filter(move |layer| self.layers.contains(*layer, layers))
    }
}

/// The base's width.
pub fn hidden(sites: &[SiteInfo]) -> usize {
    sites.iter().find(|info| info.site.module == Module::AttentionOutput).map_or(0, |info| info.output)
}

/// A bottleneck's name, for its tensors.
pub fn name(layer: usize, part: Part) -> String {
    let part = match part {
        Part::Attention => "attention",
        Part::FeedForward => "feed_forward",
    };
    format!("layer.{layer}.{part}_adapter")
}

pub struct Bottleneck {
    layers: BTreeMap<(usize, Part), Layer>,
    placement: Placement,
    activation: Activation,
    scaling: f64,
    dropout: f64,
}

struct Layer {
    /// Weight `(bottleneck, hidden)` and bias.
    down: (Param, Param),
    /// Weight `(hidden, bottleneck)` and bias, zero at first: a fresh adapter leaves the base as it is.
    up: (Param, Param),
}

impl Bottleneck {
    pub fn build(config: &Config, ground: &Ground, parameters: &mut Parameters) -> Self {
        let hidden = hidden(ground.sites);
        let width = config.width(hidden);
        let mut layers = BTreeMap::new();
        for layer in config.chosen(ground.sites) {
            for part in config.parts() {
                let name = name(layer, *part);
                let mut tensor =
                    |what: &str, shape: &[usize], init| parameters.tensor(format!("{name}.{what}"), shape, init);
                let down = (
                    tensor("down.weight", &[width, hidden], Init::KaimingUniform),
                    tensor("down.bias", &[width], Init::Zeros),
                );
                let up =
                    (tensor("up.weight", &[hidden, width], Init::Zeros), tensor("up.bias", &[hidden], Init::Zeros));
                layers.insert((layer, *part), Layer { down, up });
            }
        }
        Self {
            layers,
            placement: config.placement,
            activation: config.activation.unwrap_or(Activation::Relu),
            scaling: config.scaling.unwrap_or(1.0),
            dropout: config.dropout,
        }
    }
}

impl Hooks for Bottleneck {
    fn lowest(&self) -> Lowest {
        self.layers.keys().next().map_or(Lowest::Head, |(layer, _)| Lowest::Layer(*layer))
    }

    fn touches_sublayer(&self, layer: usize, part: Part) -> bool {
        self.layers.contains_key(&(layer, part))
    }

    fn sublayer(&self, tape: &mut Tape, at: &Sublayer, output: Rows) -> Result<Rows> {
        let Some(layer) = self.layers.get(&(at.layer, at.part)) else { return Ok(output) };
        let input = match (self.placement, at.norm) {
            (Placement::Houlsby, _) => output,
            (Placement::Parallel, _) => at.residual,
            (Placement::Pfeiffer, Some(norm)) => tape.norm(output, Some(at.residual), norm)?,
            (Placement::Pfeiffer, None) => {
                let copy = tape.copy(output)?;
                tape.add_rows(copy, at.residual, 1.0)?
            }
        };
        let place = Module::ALL.len() as u64 + 2 * at.layer as u64 + at.part as u64;
        let input = tape.dropout(input, self.dropout, place << 32)?;
        let narrow = tape.dense(input, layer.down.0, layer.down.1)?;
        let narrow = tape.activate(self.activation, narrow)?;
        let wide = tape.dense(narrow, layer.up.0, layer.up.1)?;
        Ok(tape.add_rows(output, wide, self.scaling)?)
    }
}
