//! The frozen base model: loaded once, never changed.

use super::architecture::{self, Architecture, LoadedArchitecture};
use super::base_model_info::{self, BaseModelInfo};
use super::batch::Batch;
use super::checkpoint::Checkpoint;
use super::classification_head::ClassificationHeadSpec;
use super::hooks::{Hooks, Module, Site, SiteInfo};
use super::lm_head::{self, LmHead};
use super::pooling::{Pooling, RequiredRows};
use super::tokenizer::Tokenizer;
use super::weights;
use crate::error::{Error, Result};
use espalier_tensor::backend::{FrozenLinear, PoolingKind};
use espalier_tensor::{Backend, Tape, Tensor, Var, kv_cache};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The base model, in memory once for the whole process.
pub struct BaseModel {
    architecture: Box<dyn Architecture>,
    classification_head: ClassificationHeadSpec,
    tokenizer: Tokenizer,
    backend: Arc<dyn Backend>,
    info: BaseModelInfo,
    lm_head: Option<LmHead>,
    /// Linear maps that several adapters use, by what they hold.
    shared_linears: Mutex<BTreeMap<String, Weak<FrozenLinear>>>,
}

impl BaseModel {
    /// Loads `config.json`, the safetensors and `tokenizer.json` from a folder, or a GGUF file (see [`hub::locate`] for finding
    /// them).
    ///
    /// # Errors
    /// `Invalid` where a file is missing or damaged, or the `model_type` is not supported (it lists those that are).
    pub fn load(path: &Path, name: &str, backend: Arc<dyn Backend>) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let config = checkpoint.config()?;
        let entry = architecture::entry_for_config(&config)?;
        let (tokenizer, tokenizer_json) = checkpoint.tokenizer()?;
        let generation_config = checkpoint.generation_config(&config, &tokenizer)?;
        let tokenizer = tokenizer.with_generation_config(generation_config);
        let canonical_name =
            |name: &str| lm_head::canonical_name(entry.model_type, name).or_else(|| (entry.canonical_name)(name));
        let mut weights = checkpoint.tensors(canonical_name)?;
        let is_tied = lm_head::ties_word_embeddings(&config);
        let LoadedArchitecture { architecture, config } = (entry.load)(config, &mut weights, backend.as_ref())?;
        let dimensions = architecture.dimensions();
        if let Some((token, id)) = tokenizer.largest_id_from(dimensions.vocabulary_size) {
            let vocabulary = dimensions.vocabulary_size;
            let detail = format!(
                "the tokenizer has the token {token:?} with the id {id}, but the checkpoint has rows for {vocabulary}: \
                 fetch the model again, or resize its embeddings"
            );
            return Err(Error::invalid("base_model_damaged", detail));
        }
        let norm_eps = ["layer_norm_eps", "norm_eps"].into_iter().find_map(|field| config[field].as_f64());
        let lm_head_shape = [dimensions.vocabulary_size, dimensions.hidden_size];
        let lm_head = match architecture.is_causal() {
            true => LmHead::causal(&mut weights, is_tied, lm_head_shape)?,
            false => LmHead::masked(&mut weights, backend.as_ref(), norm_eps.unwrap_or(1e-12), lm_head_shape)?,
        };
        let mut info = base_model_info::describe(path, name, entry, architecture.as_ref())?;
        info.parameters = weights.parameter_count();
        info.fingerprint = weights.fingerprint(&tokenizer_json, &config);
        info.backend = backend.name().to_string();
        info.is_causal_lm = architecture.is_causal() && lm_head.is_some();
        info.chat = info.is_causal_lm && tokenizer.has_chat_template();
        info.mask_token = lm_head.as_ref().and(tokenizer.mask_token()).map(|(_, token)| token.to_string());
        let head = entry.classification_head;
        Ok(Self {
            architecture,
            classification_head: head,
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

    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// sha256 over the weights as they lie in memory now, to show that nothing has changed them.
    pub fn weights_digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let lm_head_buffers = self.lm_head.iter().flat_map(LmHead::buffers);
        for buffer in self.architecture.buffers().into_iter().chain(lm_head_buffers) {
            hash.update(self.backend.download(buffer)?.to_le_bytes());
        }
        Ok(weights::hex(&hash.finalize()))
    }

    /// Every linear map and norm that an adapter may touch under this pooling (`cls` adds the pooler, where it is read).
    pub fn sites(&self, pooling: Pooling) -> Vec<SiteInfo> {
        let mut sites = self.architecture.sites();
        let reads_pooler = pooling == Pooling::Cls && self.classification_head.dense.is_none();
        sites.retain(|info| info.site.module != Module::Pooler || reads_pooler);
        sites
    }

    /// The last layer's hidden states: `(tokens, hidden)`, or of the first tokens alone, `(sequences, hidden)`.
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

    /// What goes into the first layer `(tokens, hidden)`.
    pub fn forward_embeddings(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Var> {
        self.architecture.forward_embeddings(tape, batch, hooks)
    }

    /// What the language model's head makes of rows: `(rows, hidden)` → `(rows, vocabulary)`.
    ///
    /// # Errors
    /// `Invalid` (`no_language_head`) where the checkpoint has none.
    pub fn lm_logits(&self, tape: &mut Tape, rows: Var) -> Result<Var> {
        let transformed = self.lm_head_transform(tape, rows)?;
        Ok(tape.linear(transformed, self.lm_head_linear()?)?)
    }

    /// The rows that the words are compared with: `(rows, hidden)` → `(rows, hidden)`.
    ///
    /// # Errors
    /// As [`Self::language`].
    pub fn lm_head_transform(&self, tape: &mut Tape, rows: Var) -> Result<Var> {
        self.lm_head()?.transform(tape, rows)
    }

    /// The language model's words as a linear map: `(hidden)` → `(vocabulary)`.
    ///
    /// # Errors
    /// As [`Self::language`].
    pub fn lm_head_linear(&self) -> Result<&Arc<FrozenLinear>> {
        let backend = self.backend.as_ref();
        let tied_linear = |bias: Option<Tensor>| -> Result<FrozenLinear> {
            match self.architecture.tied_lm_head(backend, bias.clone())? {
                Some(words) => Ok(words),
                None => {
                    let all = self.embedding_rows(&(0..self.info.vocabulary_size as u32).collect::<Vec<_>>())?;
                    Ok(backend.freeze_linear(all, bias)?)
                }
            }
        };
        self.lm_head()?.linear(backend, tied_linear)
    }

    fn lm_head(&self) -> Result<&LmHead> {
        self.lm_head.as_ref().ok_or_else(|| {
            Error::invalid("no_language_head", "the base model's checkpoint has no language model's head")
        })
    }

    /// Rows of the word embeddings `(ids, hidden)`.
    pub fn embedding_rows(&self, ids: &[u32]) -> Result<Tensor> {
        Ok(self.backend.download(&self.architecture.embedding_rows(self.backend.as_ref(), ids)?)?)
    }

    /// What is remembered of a row while sequences are continued; `None` for encoders.
    pub fn kv_cache_shape(&self) -> Option<kv_cache::KvCacheShape> {
        self.architecture.kv_cache_shape()
    }

    /// Whether its maps are held in fewer bits than 32.
    pub fn is_quantized(&self) -> bool {
        let sites = self.architecture.sites();
        sites.iter().find_map(|info| self.linear_at(info.site)).is_some_and(|map| map.is_quantized())
    }

    /// The frozen linear map at a site of [`Self::sites`].
    pub fn linear_at(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        self.architecture.linear_at(site)
    }

    /// The bias of the linear map, or the shift of the norm, at a site of [`Self::sites`] `(width)`.
    pub fn bias_at(&self, site: Site) -> Result<Option<Tensor>> {
        if let Some([_, shift]) = self.norm_at(site)? {
            return Ok(Some(shift));
        }
        let bias =
            self.linear_at(site).and_then(|map| map.bias()).map(|bias| self.backend.download(bias)).transpose()?;
        Ok(bias.map(|bias| Tensor::new([bias.values.len()], bias.values)))
    }

    /// A frozen linear map `(output, input)` without bias that is in memory once, however many adapters bring it.
    pub fn share_linear(&self, weight: Tensor) -> Result<Arc<FrozenLinear>> {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}", weight.shape));
        hash.update(weight.to_le_bytes());
        let key = weights::hex(&hash.finalize());
        let mut shared = self.shared_linears.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = shared.get(&key).and_then(Weak::upgrade) {
            return Ok(map);
        }
        let map = Arc::new(self.backend.freeze_linear(weight, None)?);
        shared.retain(|_, map| map.strong_count() > 0);
        shared.insert(key, Arc::downgrade(&map));
        Ok(map)
    }

    /// Gain and shift, each `(width)`, of the frozen norm at a site of [`Self::sites`].
    pub fn norm_at(&self, site: Site) -> Result<Option<[Tensor; 2]>> {
        let Some(norm) = self.architecture.norm_at(site) else { return Ok(None) };
        let mut parts = norm.weighted.buffers().map(|buffer| {
            let vector = self.backend.download(buffer)?;
            Ok::<_, Error>(Tensor::new([vector.values.len()], vector.values))
        });
        parts.next().zip(parts.next()).map(|(gain, shift)| Ok([gain?, shift?])).transpose()
    }

    /// Some neighbouring layers; `wanted` says which rows of the last layer will be looked at.
    pub fn forward_layers(
        &self,
        tape: &mut Tape,
        hidden: Var,
        range: Range<usize>,
        hooks: &dyn Hooks,
        required_rows: RequiredRows,
    ) -> Result<Var> {
        self.architecture.forward_layers(tape, hidden, range, hooks, required_rows)
    }

    /// One row per sequence `(sequences, hidden)`.
    pub fn pool(&self, tape: &mut Tape, hidden: Var, pooling: Pooling, hooks: &dyn Hooks) -> Result<Var> {
        match pooling {
            Pooling::Mean => Ok(tape.kind(hidden, PoolingKind::Mean)?),
            Pooling::Cls if self.classification_head.dense.is_none() => {
                self.architecture.forward_pooler(tape, hidden, hooks)
            }
            Pooling::Cls | Pooling::First => Ok(tape.kind(hidden, PoolingKind::First)?),
            Pooling::Last => Ok(tape.kind(hidden, PoolingKind::Last)?),
        }
    }
}
