//! Prefix tuning: keys and values in front of every sequence's own, in every layer (Li & Liang 2021). They start from those
//! that the base makes of real tokens, or are made by a small network while they are trained (the paper's
//! reparametrisation).

use super::targets::{self, Check, Layers};
use super::virtual_tokens::{self, Encoder, dense};
use super::{Form, Ground, prompt_tuning};
use crate::adapter::Parameters;
use crate::error::{Error, Result};
use crate::model::hooks::{Lowest, Prefix, Virtual};
use crate::model::{Base, Batch, Hooks, Module, Site, SiteInfo, Tokens, Wanted};
use espalier_tensor::columns::Front;
use espalier_tensor::kernels::Activation;
use espalier_tensor::{Param, Recording, Rows, Tape, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = PrefixTuning)]
pub struct Config {
    pub num_virtual_tokens: usize,
    /// Real tokens, whose keys and values the prefix starts from; of no effect with a `projection_hidden_size`.
    pub init: prompt_tuning::Init,
    /// Width of the network that makes the prefix while it is trained; none where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub projection_hidden_size: Option<usize>,
    pub layers: Layers,
    /// Of the rows that the head reads, in training alone.
    pub dropout: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            num_virtual_tokens: virtual_tokens::DEFAULT,
            init: prompt_tuning::Init::default(),
            projection_hidden_size: None,
            layers: Layers::default(),
            dropout: 0.0,
        }
    }
}

/// Beyond this the network would cost more than the base.
const WIDEST: usize = 8192;

impl Config {
    /// # Errors
    /// `Invalid` (`invalid_method`) with a pointer to each wrong value.
    pub fn resolve(&self, sites: &[SiteInfo], max_tokens: usize) -> Result<Self> {
        let mut check = Check::new(sites);
        virtual_tokens::check_number(&mut check, self.num_virtual_tokens, max_tokens);
        self.init.check(&mut check);
        check.layers(self.layers);
        let fits = self.projection_hidden_size.is_none_or(|width| (1..=WIDEST).contains(&width));
        let message = format!("projection_hidden_size must be between 1 and {WIDEST}");
        check.require(fits, "projection_hidden_size", message);
        check.dropout(self.dropout);
        check.finish(|| true)?;
        Ok(self.clone())
    }

    fn chosen(&self, sites: &[SiteInfo]) -> Vec<usize> {
        let layers = targets::layers(sites);
        (0..layers).filter(|layer| self.layers.contains(*layer, layers)).collect()
    }

    pub fn build(&self, ground: &Ground, parameters: &mut Parameters) -> Result<PrefixTuning> {
        let (count, layers) = (self.num_virtual_tokens, self.chosen(ground.sites));
        let source = match (ground.form, self.projection_hidden_size) {
            (Form::Training, Some(width)) => self.projected(ground, &layers, width, parameters),
            _ => self.plain(ground, &layers, parameters)?,
        };
        Ok(PrefixTuning { source, count })
    }

    fn plain(&self, ground: &Ground, layers: &[usize], parameters: &mut Parameters) -> Result<Source> {
        let (base, count) = (ground.base, self.num_virtual_tokens);
        let mut started: Option<BTreeMap<Site, Tensor>> = None;
        let mut pairs = BTreeMap::new();
        for layer in layers {
            let mut one = |module: Module| {
                let site = Site { layer: Some(*layer), module };
                let start = |seed: u64, _: &str| {
                    let all = match &mut started {
                        Some(all) => all,
                        none => none.insert(keys_and_values(base, &self.init.ids(base, count, seed, "prefix")?)?),
                    };
                    all.remove(&site).ok_or_else(|| Error::internal("a layer without keys and values"))
                };
                parameters.tensor_from(name(site), &[count, width(ground.sites, site)], start)
            };
            pairs.insert(*layer, [one(Module::Key)?, one(Module::Value)?]);
        }
        Ok(Source::Plain(pairs))
    }

    fn projected(&self, ground: &Ground, layers: &[usize], inner: usize, parameters: &mut Parameters) -> Source {
        let widths = [ground.base.info().hidden_size, inner];
        let encoder = Encoder::build(self.num_virtual_tokens, &widths, Activation::Tanh, parameters);
        let mut one = |layer: usize, module: Module| {
            let site = Site { layer: Some(layer), module };
            dense(parameters, &name(site), width(ground.sites, site), inner)
        };
        let pair = |layer: &usize| (*layer, [one(*layer, Module::Key), one(*layer, Module::Value)]);
        Source::Projected { encoder, heads: layers.iter().map(pair).collect() }
    }
}

/// The tensor's name: `layer.0.prefix_key`, `layer.0.prefix_value`, each `(virtual tokens, key width)`.
pub fn name(site: Site) -> String {
    format!("layer.{}.prefix_{}", site.layer.unwrap_or_default(), site.module.name())
}

/// How wide keys, or values, are at their site, which may be a part of a fused one.
pub fn width(sites: &[SiteInfo], site: Site) -> usize {
    let fused = Site { module: Module::QueryKeyValue, ..site };
    let of = |info: &SiteInfo| match info.site {
        own if own == site => Some(info.output),
        own if own == fused => Some(info.output / 3),
        _ => None,
    };
    sites.iter().find_map(of).unwrap_or(0)
}

/// What the bare base makes of these tokens at every key and value projection.
fn keys_and_values(base: &Base, ids: &[u32]) -> Result<BTreeMap<Site, Tensor>> {
    let tokens = Tokens::whole(ids.to_vec());
    let taken = Taken(Mutex::default());
    let mut tape = Tape::new(Arc::clone(base.kernels()), Arc::from([]), Recording::Off);
    base.encode(&mut tape, &Batch::new([&tokens], Virtual::Nothing), &taken, Wanted::All)?;
    Ok(taken.0.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Changes nothing, and keeps what it sees.
struct Taken(Mutex<BTreeMap<Site, Tensor>>);

impl Hooks for Taken {
    fn lowest(&self) -> Lowest {
        Lowest::Layer(0)
    }

    fn touches(&self, site: Site) -> bool {
        matches!(site.module, Module::Key | Module::Value | Module::QueryKeyValue)
    }

    fn after(&self, tape: &mut Tape, site: Site, _input: Rows, output: Rows) -> Result<Rows> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match site.module {
            Module::QueryKeyValue => {
                let width = tape.width(output) / 3;
                for (part, module) in [(1, Module::Key), (2, Module::Value)] {
                    let columns = tape.columns(output, part * width..(part + 1) * width)?;
                    all.insert(Site { module, ..site }, tape.read(columns)?);
                }
            }
            _ => {
                all.insert(site, tape.read(output)?);
            }
        }
        Ok(output)
    }
}

enum Source {
    /// Keys and values by layer.
    Plain(BTreeMap<usize, [Param; 2]>),
    Projected {
        encoder: Encoder,
        /// By layer, the dense layers that end in keys and in values.
        heads: BTreeMap<usize, [(Param, Param); 2]>,
    },
}

pub struct PrefixTuning {
    source: Source,
    count: usize,
}

impl PrefixTuning {
    /// Keys and values of a layer, each `(virtual tokens, key width)`.
    pub fn pair(&self, tape: &mut Tape, layer: usize) -> Result<Option<[Rows; 2]>> {
        match &self.source {
            Source::Plain(pairs) => match pairs.get(&layer) {
                Some([key, value]) => Ok(Some([tape.parameter(*key)?, tape.parameter(*value)?])),
                None => Ok(None),
            },
            Source::Projected { encoder, heads } => match heads.get(&layer) {
                Some([key, value]) => {
                    let rows = encoder.rows(tape, true)?;
                    Ok(Some([tape.dense(rows, key.0, key.1)?, tape.dense(rows, value.0, value.1)?]))
                }
                None => Ok(None),
            },
        }
    }

    /// The tensors without the network that made them.
    pub fn published(&self, tape: &mut Tape) -> Result<BTreeMap<String, Tensor>> {
        let layers: Vec<usize> = match &self.source {
            Source::Plain(pairs) => pairs.keys().copied().collect(),
            Source::Projected { heads, .. } => heads.keys().copied().collect(),
        };
        let mut tensors = BTreeMap::new();
        for layer in layers {
            let rows = self.pair(tape, layer)?.into_iter().flatten();
            for (module, rows) in [Module::Key, Module::Value].into_iter().zip(rows) {
                tensors.insert(name(Site { layer: Some(layer), module }), tape.read(rows)?);
            }
        }
        Ok(tensors)
    }
}

impl Hooks for PrefixTuning {
    /// Real tokens are counted on from the prefix, so their embeddings are others.
    fn lowest(&self) -> Lowest {
        Lowest::Embeddings
    }

    fn virtual_tokens(&self) -> Virtual {
        Virtual::Prefix(self.count)
    }

    fn prefix(&self, tape: &mut Tape, layer: usize, sequences: Range<usize>) -> Result<Vec<Prefix>> {
        let front = |rows| Front { sequences: sequences.clone(), rows };
        let pair = self.pair(tape, layer)?;
        Ok(pair.map(|[key, value]| Prefix { key: front(key), value: front(value) }).into_iter().collect())
    }
}
