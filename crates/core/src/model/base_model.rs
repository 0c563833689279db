//! The frozen base model, which the whole process shares.

use super::architectures::{self, LoadedArchitecture};
use super::base_model_info::{self, BaseModelInfo};
use super::checkpoint::Checkpoint;
use super::classification_head::ClassificationHeadSpec;
use super::hooks::Hooks;
use super::lm_head::{self, LmHead};
use super::pooling::{Pooling, RequiredRows};
use super::site::{Module, Site, SiteInfo};
use super::stack::Stack;
use super::tokenizer::Tokenizer;
use super::tokens::Batch;
use crate::error::{Error, Result};
use espalier_tensor::backend::{FrozenLinear, PoolingKind};
use espalier_tensor::kv_cache::KvCacheShape;
use espalier_tensor::quant::StoredWeight;
use espalier_tensor::{Backend, Buffer, Tape, Tensor, Var};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A base model. Adapters are arguments of its functions; nothing changes its weights.
pub struct BaseModel {
    stack: Stack,
    classification_head: ClassificationHeadSpec,
    tokenizer: Tokenizer,
    backend: Arc<dyn Backend>,
    info: BaseModelInfo,
    lm_head: Option<LmHead>,
    /// Linear maps that several adapters share, by the hash of their weights.
    shared_linears: Mutex<BTreeMap<String, Weak<FrozenLinear>>>,
}

impl BaseModel {
    /// Loads a folder with `config.json`, safetensors and `tokenizer.json`, or a GGUF file. [`super::hub::locate`] finds them.
    ///
    /// # Errors
    /// `Invalid` if a file is missing or damaged, or the `model_type` is not supported (with the list of those that are).
    pub fn load(path: &Path, name: &str, backend: Arc<dyn Backend>) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let config = checkpoint.config()?;
        let entry = architectures::entry_for_config(&config)?;
        let (tokenizer, tokenizer_json) = checkpoint.tokenizer()?;
        let generation_config = checkpoint.generation_config(&config, &tokenizer)?;
        let tokenizer = tokenizer.with_generation_config(generation_config);
        let canonical_name =
            |name: &str| lm_head::canonical_name(&entry.lm_head, name).or_else(|| (entry.canonical_name)(name));
        let mut weights = checkpoint.tensors(canonical_name)?;
        let is_tied = lm_head::ties_word_embeddings(&config);
        let is_causal = entry.lm_head.transform.is_none();
        let causal_lm_head = if is_causal { LmHead::causal(&mut weights, backend.as_ref(), is_tied)? } else { None };
        let LoadedArchitecture { stack, config } = (entry.load)(config, &mut weights, backend.as_ref())?;
        check_vocabulary(&tokenizer, stack.dimensions.vocabulary_size)?;
        let norm_eps = ["layer_norm_eps", "norm_eps"].into_iter().find_map(|field| config[field].as_f64());
        let lm_head_shape = [stack.dimensions.vocabulary_size, stack.dimensions.hidden_size];
        let lm_head = match is_causal {
            true => causal_lm_head,
            false => LmHead::masked(&mut weights, backend.as_ref(), norm_eps.unwrap_or(1e-12), lm_head_shape)?,
        };
        lm_head.iter().try_for_each(|head| head.check_shape(lm_head_shape))?;
        let mut info = base_model_info::describe(path, name, entry, &stack)?;
        info.parameters = weights.parameter_count();
        info.fingerprint = weights.fingerprint(&tokenizer_json, &config);
        info.backend = backend.name().to_string();
        info.is_causal_lm = stack.is_causal() && lm_head.is_some();
        info.chat = info.is_causal_lm && tokenizer.has_chat_template();
        info.mask_token = lm_head.as_ref().and(tokenizer.mask_token()).map(|(_, token)| token.to_string());
        Ok(Self {
            stack,
            classification_head: entry.classification_head,
            tokenizer,
            backend,
            info,
            lm_head,
            shared_linears: Mutex::default(),
        })
    }

    pub fn info(&self) -> &BaseModelInfo {
        &self.info
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Number of leading logits that stand for tokens. Those after them pad the vocabulary and have no text, so they are not sampled.
    pub fn sampled_vocabulary_size(&self) -> usize {
        self.tokenizer.id_count().min(self.info.vocabulary_size)
    }

    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// sha256 of the weights in memory, for tests that the weights do not change.
    pub fn weights_digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let lm_head_buffers = self.lm_head.iter().flat_map(LmHead::buffers);
        for buffer in self.stack.buffers().into_iter().chain(lm_head_buffers) {
            hash.update(self.backend.download(buffer)?.to_le_bytes());
        }
        Ok(hex::encode(hash.finalize()))
    }

    /// Sites that an adapter can target under a pooling. The pooler is among them if the pooling reads it.
    pub fn sites(&self, pooling: Pooling) -> Vec<SiteInfo> {
        let mut sites = self.stack.sites();
        let reads_pooler = pooling == Pooling::Cls && self.classification_head.dense.is_none();
        sites.retain(|info| info.site.module != Module::Pooler || reads_pooler);
        sites
    }

    /// Whether the backend stores the linear weights in a quantized format.
    pub fn is_quantized(&self) -> bool {
        let sites = self.stack.sites();
        sites.iter().find_map(|info| self.linear_at(info.site)).is_some_and(|linear| linear.is_quantized())
    }

    /// Builds the int8 copies of all linear weights now, so that no request waits for them.
    pub fn prepack_linears(&self, backend: &dyn Backend) -> Result<()> {
        let sites = self.stack.sites();
        sites.iter().filter_map(|info| self.linear_at(info.site)).for_each(|linear| backend.prepack_linear(linear));
        if self.info.is_causal_lm {
            backend.prepack_linear(self.lm_head_linear()?);
        }
        Ok(())
    }

    /// The frozen linear map at a site; `None` for norms.
    pub fn linear_at(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        self.stack.linear_at(site)
    }

    /// Weight and bias, each `(width)`, of the frozen norm at a site; `None` for linear maps.
    pub fn norm_at(&self, site: Site) -> Result<Option<[Tensor; 2]>> {
        let Some(norm) = self.stack.norm_at(site) else { return Ok(None) };
        let mut parts = norm.weighted.buffers().map(|buffer| self.download_vector(buffer));
        parts.next().zip(parts.next()).map(|(weight, bias)| Ok([weight?, bias?])).transpose()
    }

    /// The bias `(width)` of the linear map or norm at a site.
    pub fn bias_at(&self, site: Site) -> Result<Option<Tensor>> {
        if let Some([_, bias]) = self.norm_at(site)? {
            return Ok(Some(bias));
        }
        let bias = self.linear_at(site).and_then(|linear| linear.bias());
        bias.map(|bias| self.download_vector(bias)).transpose()
    }

    fn download_vector(&self, buffer: &Buffer) -> Result<Tensor> {
        let vector = self.backend.download(buffer)?;
        Ok(Tensor::new([vector.values.len()], vector.values))
    }

    /// A frozen linear map `(output, input)` without bias. Adapters with equal weights share one copy in memory.
    pub fn share_linear(&self, weight: Tensor) -> Result<Arc<FrozenLinear>> {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}", weight.shape));
        hash.update(weight.to_le_bytes());
        let key = hex::encode(hash.finalize());
        let mut shared = self.shared_linears.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(linear) = shared.get(&key).and_then(Weak::upgrade) {
            return Ok(linear);
        }
        let linear = Arc::new(self.backend.freeze_linear(weight, None)?);
        shared.retain(|_, linear| linear.strong_count() > 0);
        shared.insert(key, Arc::downgrade(&linear));
        Ok(linear)
    }

    /// Rows of the word embeddings `(ids, hidden)`.
    pub fn embedding_rows(&self, ids: &[u32]) -> Result<Tensor> {
        Ok(self.backend.download(&self.stack.embeddings.word_rows(self.backend.as_ref(), ids)?)?)
    }
}

/// The forward pass.
impl BaseModel {
    /// Hidden states of the last layer `(rows, hidden)`, or of the required rows alone `(sequences, hidden)`.
    pub fn encode(
        &self,
        tape: &mut Tape,
        batch: &Batch,
        hooks: &dyn Hooks,
        required_rows: RequiredRows,
    ) -> Result<Var> {
        let hidden = self.forward_embeddings(tape, batch, hooks)?;
        self.forward_layers(tape, hidden, 0..self.info.layers, hooks, required_rows)
    }

    /// Input of the first layer `(rows, hidden)`.
    pub fn forward_embeddings(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Var> {
        self.stack.forward_embeddings(tape, batch, hooks)
    }

    /// Computes a range of layers. After the last layer only the required rows are computed.
    pub fn forward_layers(
        &self,
        tape: &mut Tape,
        hidden: Var,
        range: Range<usize>,
        hooks: &dyn Hooks,
        required_rows: RequiredRows,
    ) -> Result<Var> {
        self.stack.forward_layers(tape, hidden, range, hooks, required_rows)
    }

    /// Pools each sequence to one row `(sequences, hidden)`.
    pub fn pool(&self, tape: &mut Tape, hidden: Var, pooling: Pooling, hooks: &dyn Hooks) -> Result<Var> {
        match pooling {
            Pooling::Mean => Ok(tape.pool(hidden, PoolingKind::Mean)?),
            Pooling::Cls if self.classification_head.dense.is_none() => self.stack.forward_pooler(tape, hidden, hooks),
            Pooling::Cls | Pooling::First => Ok(tape.pool(hidden, PoolingKind::First)?),
            Pooling::Last => Ok(tape.pool(hidden, PoolingKind::Last)?),
        }
    }

    /// Logits of the language model's head: `(rows, hidden)` → `(rows, vocabulary)`.
    ///
    /// # Errors
    /// `Invalid` (`no_language_head`) if the checkpoint has no head.
    pub fn lm_logits(&self, tape: &mut Tape, rows: Var) -> Result<Var> {
        let transformed = self.lm_head_transform(tape, rows)?;
        Ok(tape.linear(transformed, self.lm_head_linear()?)?)
    }

    /// Input of the head's output projection: `(rows, hidden)` → `(rows, hidden)`.
    ///
    /// # Errors
    /// `Invalid` (`no_language_head`) if the checkpoint has no head.
    pub fn lm_head_transform(&self, tape: &mut Tape, rows: Var) -> Result<Var> {
        self.lm_head()?.transform(tape, rows)
    }

    /// Output projection of the head, `(hidden)` → `(vocabulary)`.
    ///
    /// # Errors
    /// `Invalid` (`no_language_head`) if the checkpoint has no head.
    pub fn lm_head_linear(&self) -> Result<&Arc<FrozenLinear>> {
        let backend = self.backend.as_ref();
        let tied_linear = |bias: Option<Tensor>| -> Result<FrozenLinear> {
            match self.stack.tied_lm_head(backend, bias.clone())? {
                Some(linear) => Ok(linear),
                None => {
                    let words = self.embedding_rows(&(0..self.info.vocabulary_size as u32).collect::<Vec<_>>())?;
                    Ok(backend.load_linear(StoredWeight::Dense(words), bias)?)
                }
            }
        };
        self.lm_head()?.linear(tied_linear)
    }

    /// Whether the head's output projection is the word embeddings.
    pub fn ties_lm_head(&self) -> bool {
        self.lm_head.as_ref().is_some_and(LmHead::is_tied)
    }

    fn lm_head(&self) -> Result<&LmHead> {
        self.lm_head.as_ref().ok_or_else(|| {
            Error::invalid("no_language_head", "the base model's checkpoint has no language model's head")
        })
    }

    /// Shape of the KV cache of one sequence; `None` for encoders.
    pub fn kv_cache_shape(&self) -> Option<KvCacheShape> {
        self.stack.kv_cache_shape()
    }
}

/// # Errors
/// `Invalid` (`base_model_damaged`) if the tokenizer has ids without a row in the embeddings.
fn check_vocabulary(tokenizer: &Tokenizer, vocabulary: usize) -> Result<()> {
    let Some((token, id)) = tokenizer.largest_id_from(vocabulary) else { return Ok(()) };
    let detail = format!(
        "the tokenizer has the token {token:?} with the id {id}, but the checkpoint has rows for {vocabulary}: \
         fetch the model again, or resize its embeddings"
    );
    Err(Error::invalid("base_model_damaged", detail))
}
