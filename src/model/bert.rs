//! BERT (Devlin et al. 2018): absolute positions, post-norm layers, exact gelu, and a tanh pooler.
//!
//! Written once, forward only, against the tape. Knows an adapter only as [`Hooks`].

mod config;

pub use config::Config;

use super::adapted::{self, Norm};
use super::hooks::{Part, Sublayer};
use super::{Batch, Hooks, Module, Site, SiteInfo, Wanted, weights::Weights};
use crate::compute::kernels::{Activation, FrozenLinear, FrozenNorm, FrozenTable, Pool};
use crate::compute::{Buffer, Kernels, Rows, Tape, Tensor};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

pub struct Bert {
    config: Config,
    word: FrozenTable,
    position: FrozenTable,
    token_type: FrozenTable,
    norm: Norm,
    layers: Vec<Layer>,
    pooler: Option<Arc<FrozenLinear>>,
}

struct Layer {
    query: Arc<FrozenLinear>,
    key: Arc<FrozenLinear>,
    value: Arc<FrozenLinear>,
    attention_output: Arc<FrozenLinear>,
    attention_norm: Norm,
    feed_forward_in: Arc<FrozenLinear>,
    feed_forward_out: Arc<FrozenLinear>,
    output_norm: Norm,
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
        let mut loader = Loader { weights, kernels, epsilon: config.layer_norm_eps, bare: None };
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
        let mut all: Vec<&Buffer> = tables.chain(self.norm.whole.buffers()).collect();
        for layer in &self.layers {
            let linear = [&layer.query, &layer.key, &layer.value, &layer.attention_output];
            let linear = linear.into_iter().chain([&layer.feed_forward_in, &layer.feed_forward_out]);
            all.extend(linear.flat_map(|map| map.buffers()));
            all.extend([&layer.attention_norm, &layer.output_norm].into_iter().flat_map(|norm| norm.whole.buffers()));
        }
        all.extend(self.pooler.iter().flat_map(|map| map.buffers()));
        all
    }

    /// What goes into the first layer `(tokens, hidden)`.
    pub fn embed(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Rows> {
        let word: (&FrozenTable, &[u32]) = (&self.word, &batch.ids);
        let others: [(&FrozenTable, &[u32]); 2] =
            [(&self.position, &batch.positions), (&self.token_type, &batch.type_ids)];
        let prompts = hooks.prompt(tape, 0..batch.layout.sequences())?;
        let embedded = match prompts.is_empty() {
            true => tape.embed(&[word, others[0], others[1]], Arc::clone(&batch.layout))?,
            false => {
                let words = tape.embed(&[word], Arc::clone(&batch.layout))?;
                let all = tape.prepend(words, &prompts)?;
                tape.embed_onto(&others, all)?
            }
        };
        let site = Site { layer: None, module: Module::EmbeddingNorm };
        adapted::norm(tape, hooks, site, &self.norm, embedded, None)
    }

    /// Rows of the word embeddings `(ids, hidden)`.
    pub fn words(&self, kernels: &dyn Kernels, ids: &[u32]) -> Result<Buffer> {
        kernels.embed(&[(&self.word, ids)], None)
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
        let query = adapted::linear(tape, hooks, at(Module::Query), &layer.query, asking)?;
        let key = adapted::linear(tape, hooks, at(Module::Key), &layer.key, input)?;
        let value = adapted::linear(tape, hooks, at(Module::Value), &layer.value, input)?;
        let [key, value] = adapted::prefixed(tape, hooks, index, [key, value])?;
        let attended = tape.attention(query, key, value, self.config.num_attention_heads)?;
        let attended = adapted::linear(tape, hooks, at(Module::AttentionOutput), &layer.attention_output, attended)?;
        let norm = &layer.attention_norm;
        let place = Sublayer { layer: index, part: Part::Attention, residual: asking, norm: Some(&norm.whole) };
        let attended = adapted::sublayer(tape, hooks, &place, attended)?;
        let middle = adapted::norm(tape, hooks, at(Module::AttentionNorm), norm, attended, Some(asking))?;
        let wide = adapted::linear(tape, hooks, at(Module::FeedForwardIn), &layer.feed_forward_in, middle)?;
        let wide = tape.activate(Activation::Gelu, wide)?;
        let narrow = adapted::linear(tape, hooks, at(Module::FeedForwardOut), &layer.feed_forward_out, wide)?;
        let norm = &layer.output_norm;
        let place = Sublayer { layer: index, part: Part::FeedForward, residual: middle, norm: Some(&norm.whole) };
        let narrow = adapted::sublayer(tape, hooks, &place, narrow)?;
        adapted::norm(tape, hooks, at(Module::FeedForwardNorm), norm, narrow, Some(middle))
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
        let dense = adapted::linear(tape, hooks, Site { layer: None, module: Module::Pooler }, pooler, first)?;
        tape.activate(Activation::Tanh, dense)
    }

    /// Every linear map and norm of the layers, those before and after them last.
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
                Module::AttentionNorm => ("attention.output.LayerNorm", hidden, hidden),
                Module::FeedForwardNorm => ("output.LayerNorm", hidden, hidden),
                Module::Pooler | Module::EmbeddingNorm => return None,
            };
            let path = format!("bert.encoder.layer.{layer}.{path}");
            Some(SiteInfo { site: Site { layer: Some(layer), module }, input, output, path })
        };
        let layers = 0..self.layers.len();
        let mut sites: Vec<SiteInfo> =
            layers.flat_map(|layer| Module::ALL.into_iter().filter_map(move |module| info(layer, module))).collect();
        let mut single = |module, path: &str| {
            let site = Site { layer: None, module };
            sites.push(SiteInfo { site, input: hidden, output: hidden, path: path.to_string() });
        };
        single(Module::EmbeddingNorm, "bert.embeddings.LayerNorm");
        if self.pooler.is_some() {
            single(Module::Pooler, "bert.pooler.dense");
        }
        sites
    }

    /// The frozen linear map at a site.
    pub fn map(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        let layer = || site.layer.and_then(|index| self.layers.get(index));
        Some(match site.module {
            Module::Query => &layer()?.query,
            Module::Key => &layer()?.key,
            Module::Value => &layer()?.value,
            Module::AttentionOutput => &layer()?.attention_output,
            Module::FeedForwardIn => &layer()?.feed_forward_in,
            Module::FeedForwardOut => &layer()?.feed_forward_out,
            Module::Pooler => self.pooler.as_ref()?,
            Module::EmbeddingNorm | Module::AttentionNorm | Module::FeedForwardNorm => return None,
        })
    }

    /// The frozen norm at a site.
    pub fn norm(&self, site: Site) -> Option<&Norm> {
        let layer = || site.layer.and_then(|index| self.layers.get(index));
        match site.module {
            Module::EmbeddingNorm => Some(&self.norm),
            Module::AttentionNorm => Some(&layer()?.attention_norm),
            Module::FeedForwardNorm => Some(&layer()?.output_norm),
            _ => None,
        }
    }
}

struct Loader<'a> {
    weights: &'a mut Weights,
    kernels: &'a dyn Kernels,
    epsilon: f64,
    /// All norms are equally wide.
    bare: Option<Arc<FrozenNorm>>,
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

    fn norm(&mut self, name: &str, width: usize) -> Result<Norm> {
        let gain = self.weights.take(&format!("{name}.weight"), &[width])?;
        let shift = self.weights.take(&format!("{name}.bias"), &[width])?;
        let whole = Arc::new(self.kernels.freeze_norm(gain, shift, self.epsilon)?);
        let bare = match &self.bare {
            Some(bare) => Arc::clone(bare),
            None => {
                let ones = Tensor::new([width], vec![1.0; width]);
                Arc::new(self.kernels.freeze_norm(ones, Tensor::zeros([width]), self.epsilon)?)
            }
        };
        self.bare = Some(Arc::clone(&bare));
        Ok(Norm { whole, bare })
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
