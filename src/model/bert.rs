//! BERT (Devlin et al. 2018): absolute positions, post-norm layers, exact gelu, and a tanh pooler.
//!
//! Written once, forward only, against the tape. Knows an adapter only as [`Hooks`].

use super::{Batch, Hooks, Module, Site, SiteInfo, Wanted, weights::Weights};
use crate::compute::kernels::{FrozenLinear, FrozenNorm, FrozenTable, Pool};
use crate::compute::{Buffer, Kernels, Rows, Tape};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::sync::Arc;

/// The fields of `config.json` that change arithmetic; they enter the base's fingerprint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    #[serde(default = "default_epsilon")]
    pub layer_norm_eps: f64,
    #[serde(default = "default_activation")]
    pub hidden_act: String,
    #[serde(default = "default_positions")]
    pub position_embedding_type: String,
}

fn default_epsilon() -> f64 {
    1e-12
}

fn default_activation() -> String {
    "gelu".to_string()
}

fn default_positions() -> String {
    "absolute".to_string()
}

impl Config {
    /// # Errors
    /// `Invalid` (`unsupported_model`) for what this architecture does not compute.
    pub fn check(&self) -> Result<()> {
        let unsupported = |what: String| Err(Error::invalid("unsupported_model", what));
        if self.hidden_act != "gelu" {
            return unsupported(format!(
                "hidden_act \"{}\" is not supported for bert: only \"gelu\" is",
                self.hidden_act
            ));
        }
        if self.position_embedding_type != "absolute" {
            let kind = &self.position_embedding_type;
            return unsupported(format!("position_embedding_type \"{kind}\" is not supported: only \"absolute\" is"));
        }
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return unsupported("hidden_size must be a multiple of num_attention_heads".to_string());
        }
        Ok(())
    }
}

pub struct Bert {
    config: Config,
    word: FrozenTable,
    position: FrozenTable,
    token_type: FrozenTable,
    norm: Arc<FrozenNorm>,
    layers: Vec<Layer>,
    pooler: Option<Arc<FrozenLinear>>,
}

struct Layer {
    query: Arc<FrozenLinear>,
    key: Arc<FrozenLinear>,
    value: Arc<FrozenLinear>,
    attention_output: Arc<FrozenLinear>,
    attention_norm: Arc<FrozenNorm>,
    feed_forward_in: Arc<FrozenLinear>,
    feed_forward_out: Arc<FrozenLinear>,
    output_norm: Arc<FrozenNorm>,
}

/// Our name for a checkpoint's tensor: without the `bert.` prefix, `None` for heads and buffers.
pub fn canonical(name: &str) -> Option<String> {
    let name = name.strip_prefix("bert.").unwrap_or(name);
    // Checkpoints converted from TensorFlow call a norm's gain gamma and its shift beta.
    let name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias");
    let ours = ["embeddings.", "encoder.", "pooler."].iter().any(|start| name.starts_with(start));
    (ours && !name.ends_with("position_ids")).then_some(name)
}

impl Bert {
    pub fn load(config: Config, weights: &mut Weights, kernels: &dyn Kernels) -> Result<Self> {
        config.check()?;
        let hidden = config.hidden_size;
        let mut loader = Loader { weights, kernels, epsilon: config.layer_norm_eps };
        let word = loader.table("embeddings.word_embeddings", config.vocab_size, hidden)?;
        let position = loader.table("embeddings.position_embeddings", config.max_position_embeddings, hidden)?;
        let token_type = loader.table("embeddings.token_type_embeddings", config.type_vocab_size, hidden)?;
        let norm = loader.norm("embeddings.LayerNorm", hidden)?;
        let layers = (0..config.num_hidden_layers).map(|index| loader.layer(index, &config)).collect::<Result<_>>()?;
        let pooler = match loader.weights.has("pooler.dense.weight") {
            true => Some(loader.linear("pooler.dense", hidden, hidden)?),
            false => None,
        };
        Ok(Self { config, word, position, token_type, norm, layers, pooler })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn has_pooler(&self) -> bool {
        self.pooler.is_some()
    }

    /// Every frozen tensor on the device.
    pub fn buffers(&self) -> Vec<&Buffer> {
        let tables = [&self.word, &self.position, &self.token_type].into_iter().flat_map(FrozenTable::buffers);
        let mut all: Vec<&Buffer> = tables.chain(self.norm.buffers()).collect();
        for layer in &self.layers {
            let linear = [&layer.query, &layer.key, &layer.value, &layer.attention_output];
            let linear = linear.into_iter().chain([&layer.feed_forward_in, &layer.feed_forward_out]);
            all.extend(linear.flat_map(|map| map.buffers()));
            all.extend([&layer.attention_norm, &layer.output_norm].into_iter().flat_map(|norm| norm.buffers()));
        }
        all.extend(self.pooler.iter().flat_map(|map| map.buffers()));
        all
    }

    /// What goes into the first layer `(tokens, hidden)`.
    pub fn embed(&self, tape: &mut Tape, batch: &Batch) -> Result<Rows> {
        let tables: [(&FrozenTable, &[u32]); 3] =
            [(&self.word, &batch.ids), (&self.position, &batch.positions), (&self.token_type, &batch.type_ids)];
        let embedded = tape.embed(&tables, Arc::clone(&batch.layout))?;
        tape.norm(embedded, None, &self.norm)
    }

    /// Some neighbouring layers: `(tokens, hidden)` → `(tokens, hidden)`, or after the last layer, where no others are
    /// wanted, that of the first tokens alone, `(sequences, hidden)`.
    pub fn layers(
        &self,
        tape: &mut Tape,
        mut hidden: Rows,
        range: Range<usize>,
        hooks: &dyn Hooks,
        wanted: Wanted,
    ) -> Result<Rows> {
        let start = tape.mark();
        for index in range {
            let layer = &self.layers[index];
            let is_last = index + 1 == self.layers.len();
            let wanted = if is_last { wanted } else { Wanted::All };
            hidden = self.layer(tape, index, layer, hidden, hooks, wanted)?;
            tape.release(start, hidden);
        }
        Ok(hidden)
    }

    /// (tokens, hidden) → (tokens, hidden), or (sequences, hidden): all rows are asked, but only those wanted ask.
    fn layer(
        &self,
        tape: &mut Tape,
        index: usize,
        layer: &Layer,
        input: Rows,
        hooks: &dyn Hooks,
        wanted: Wanted,
    ) -> Result<Rows> {
        let at = |module| Site { layer: Some(index), module };
        let asking = match wanted {
            Wanted::All => input,
            Wanted::First => tape.pool(input, Pool::First)?,
        };
        let query = mapped(tape, hooks, at(Module::Query), &layer.query, asking)?;
        let key = mapped(tape, hooks, at(Module::Key), &layer.key, input)?;
        let value = mapped(tape, hooks, at(Module::Value), &layer.value, input)?;
        let attended = tape.attention(query, key, value, self.config.num_attention_heads)?;
        let attended = mapped(tape, hooks, at(Module::AttentionOutput), &layer.attention_output, attended)?;
        let middle = tape.norm(attended, Some(asking), &layer.attention_norm)?;
        let wide = mapped(tape, hooks, at(Module::FeedForwardIn), &layer.feed_forward_in, middle)?;
        let wide = tape.gelu(wide)?;
        let narrow = mapped(tape, hooks, at(Module::FeedForwardOut), &layer.feed_forward_out, wide)?;
        tape.norm(narrow, Some(middle), &layer.output_norm)
    }

    /// The first token of each sequence through the pooler: `(sequences, hidden)`.
    pub fn pooler(&self, tape: &mut Tape, hidden: Rows, hooks: &dyn Hooks) -> Result<Rows> {
        let Some(pooler) = &self.pooler else {
            return Err(Error::invalid(
                "no_pooler",
                "this base model has no pooler: use \"mean\" or \"first\" pooling",
            ));
        };
        let first = tape.pool(hidden, Pool::First)?;
        let dense = mapped(tape, hooks, Site { layer: None, module: Module::Pooler }, pooler, first)?;
        tape.tanh(dense)
    }

    /// Every linear map of the layers, and the pooler's.
    pub fn sites(&self) -> Vec<SiteInfo> {
        let (hidden, wide) = (self.config.hidden_size, self.config.intermediate_size);
        let info = |layer: usize, module: Module| {
            let (path, input, output) = match module {
                Module::Query => ("attention.self.query", hidden, hidden),
                Module::Key => ("attention.self.key", hidden, hidden),
                Module::Value => ("attention.self.value", hidden, hidden),
                Module::AttentionOutput => ("attention.output.dense", hidden, hidden),
                Module::FeedForwardIn => ("intermediate.dense", hidden, wide),
                Module::FeedForwardOut => ("output.dense", wide, hidden),
                Module::Pooler => return None,
            };
            let path = format!("bert.encoder.layer.{layer}.{path}");
            Some(SiteInfo { site: Site { layer: Some(layer), module }, input, output, path })
        };
        let layers = 0..self.layers.len();
        let mut sites: Vec<SiteInfo> =
            layers.flat_map(|layer| Module::ALL.into_iter().filter_map(move |module| info(layer, module))).collect();
        if self.pooler.is_some() {
            let site = Site { layer: None, module: Module::Pooler };
            sites.push(SiteInfo { site, input: hidden, output: hidden, path: "bert.pooler.dense".to_string() });
        }
        sites
    }
}

/// A frozen linear map, and what the adapter makes of it.
fn mapped(tape: &mut Tape, hooks: &dyn Hooks, site: Site, map: &Arc<FrozenLinear>, input: Rows) -> Result<Rows> {
    let output = tape.linear(input, map)?;
    match hooks.touches(site) {
        true => hooks.after(tape, site, input, output),
        false => Ok(output),
    }
}

struct Loader<'a> {
    weights: &'a mut Weights,
    kernels: &'a dyn Kernels,
    epsilon: f64,
}

impl Loader<'_> {
    fn table(&mut self, name: &str, rows: usize, width: usize) -> Result<FrozenTable> {
        let table = self.weights.take(&format!("{name}.weight"), &[rows, width])?;
        self.kernels.freeze_table(table)
    }

    fn linear(&mut self, name: &str, input: usize, output: usize) -> Result<Arc<FrozenLinear>> {
        let weight = self.weights.take(&format!("{name}.weight"), &[output, input])?;
        let bias = self.weights.take(&format!("{name}.bias"), &[output])?;
        self.kernels.freeze_linear(weight, Some(bias)).map(Arc::new)
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Arc<FrozenNorm>> {
        let gain = self.weights.take(&format!("{name}.weight"), &[width])?;
        let shift = self.weights.take(&format!("{name}.bias"), &[width])?;
        self.kernels.freeze_norm(gain, shift, self.epsilon).map(Arc::new)
    }

    fn layer(&mut self, index: usize, config: &Config) -> Result<Layer> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        Ok(Layer {
            query: self.linear(&name("attention.self.query"), hidden, hidden)?,
            key: self.linear(&name("attention.self.key"), hidden, hidden)?,
            value: self.linear(&name("attention.self.value"), hidden, hidden)?,
            attention_output: self.linear(&name("attention.output.dense"), hidden, hidden)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"), hidden)?,
            feed_forward_in: self.linear(&name("intermediate.dense"), hidden, wide)?,
            feed_forward_out: self.linear(&name("output.dense"), wide, hidden)?,
            output_norm: self.norm(&name("output.LayerNorm"), hidden)?,
        })
    }
}
