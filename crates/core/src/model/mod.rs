//! The frozen base model: loaded once, never changed. Knows nothing of training, tasks or adapters' insides.

mod adapted;
mod architecture;
mod attention;
mod batch;
mod bert;
pub mod chat;
mod checkpoint;
mod distilbert;
mod embeddings;
mod esm;
mod gguf;
mod gpt2;
mod head;
pub mod hooks;
pub mod hub;
mod info;
mod language;
mod llama;
mod loader;
mod modernbert;
mod mpnet;
mod parts;
mod pooler;
mod pooling;
mod post_norm;
mod roberta;
mod speech;
pub mod tokenizer;
pub mod weights;

pub use architecture::SUPPORTED;
pub use batch::Batch;
pub use head::HeadForm;
pub use hooks::{Hooks, Lowest, Module, Site, SiteInfo, Virtual};
pub use info::Info;
pub use pooling::{Pooling, Wanted};
pub use tokenizer::{Masking, Span, Tokenizer, Tokens};

use crate::error::{Error, Result};
use architecture::{Architecture, Loaded};
use checkpoint::Checkpoint;
use espalier_tensor::kernels::{FrozenLinear, Pool};
use espalier_tensor::{Kernels, Rows, Tape, Tensor, past};
use language::LanguageHead;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The base model, in memory once for the whole process.
pub struct Base {
    architecture: Box<dyn Architecture>,
    head: HeadForm,
    tokenizer: Tokenizer,
    kernels: Arc<dyn Kernels>,
    info: Info,
    language: Option<LanguageHead>,
    /// Linear maps that several adapters use, by what they hold.
    shared: Mutex<BTreeMap<String, Weak<FrozenLinear>>>,
}

impl Base {
    /// Loads `config.json`, the safetensors and `tokenizer.json` from a folder, or a GGUF file (see [`hub::locate`] for finding
    /// them).
    ///
    /// # Errors
    /// `Invalid` where a file is missing or damaged, or the `model_type` is not supported (it lists those that are).
    pub fn load(folder: &Path, name: &str, kernels: Arc<dyn Kernels>) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        let config = checkpoint.config()?;
        let family = architecture::family(&config)?;
        let (tokenizer, parts) = checkpoint.tokenizer()?;
        let speech = checkpoint.speech(&config, &tokenizer)?;
        let tokenizer = tokenizer.with_speech(speech);
        let canonical = |name: &str| language::canonical(family.model_type, name).or_else(|| (family.canonical)(name));
        let mut weights = checkpoint.weights(canonical)?;
        let is_tied = language::is_tied(&config);
        let Loaded { architecture, config } = (family.load)(config, &mut weights, kernels.as_ref())?;
        let facts = architecture.facts();
        if let Some((word, id)) = tokenizer.beyond(facts.vocabulary_size) {
            let vocabulary = facts.vocabulary_size;
            let detail = format!(
                "the tokenizer has the token {word:?} with the id {id}, but the checkpoint has rows for {vocabulary}: \
                 fetch the model again, or resize its embeddings"
            );
            return Err(Error::invalid("base_model_damaged", detail));
        }
        let epsilon = ["layer_norm_eps", "norm_eps"].into_iter().find_map(|field| config[field].as_f64());
        let shape = [facts.vocabulary_size, facts.hidden_size];
        let language = match architecture.is_causal() {
            true => LanguageHead::causal(&mut weights, is_tied, shape)?,
            false => LanguageHead::masked(&mut weights, kernels.as_ref(), epsilon.unwrap_or(1e-12), shape)?,
        };
        let mut info = info::describe(folder, name, family, architecture.as_ref())?;
        info.parameters = weights.parameters();
        info.fingerprint = weights.fingerprint(&parts, &config);
        info.kernels = kernels.name().to_string();
        info.generates = architecture.is_causal() && language.is_some();
        info.chat = info.generates && tokenizer.has_chat_template();
        info.mask_token = language.as_ref().and(tokenizer.mask()).map(|(_, token)| token.to_string());
        let head = family.head;
        Ok(Self { architecture, head, tokenizer, kernels, info, language, shared: Mutex::default() })
    }

    pub fn info(&self) -> &Info {
        &self.info
    }

    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub fn kernels(&self) -> &Arc<dyn Kernels> {
        &self.kernels
    }

    /// sha256 over the weights as they lie in memory now, to show that nothing has changed them.
    pub fn digest(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let language = self.language.iter().flat_map(LanguageHead::buffers);
        for buffer in self.architecture.buffers().into_iter().chain(language) {
            hash.update(self.kernels.download(buffer)?.to_le_bytes());
        }
        Ok(weights::hex(&hash.finalize()))
    }

    /// Every linear map and norm that an adapter may touch under this pooling (`cls` adds the pooler, where it is read).
    pub fn sites(&self, pooling: Pooling) -> Vec<SiteInfo> {
        let mut sites = self.architecture.sites();
        let reads_pooler = pooling == Pooling::Cls && self.head.dense.is_none();
        sites.retain(|info| info.site.module != Module::Pooler || reads_pooler);
        sites
    }

    /// The last layer's hidden states: `(tokens, hidden)`, or of the first tokens alone, `(sequences, hidden)`.
    pub fn encode(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks, wanted: Wanted) -> Result<Rows> {
        let hidden = self.embed(tape, batch, hooks)?;
        self.layers(tape, hidden, 0..self.info.layers, hooks, wanted)
    }

    /// What goes into the first layer `(tokens, hidden)`.
    pub fn embed(&self, tape: &mut Tape, batch: &Batch, hooks: &dyn Hooks) -> Result<Rows> {
        self.architecture.embed(tape, batch, hooks)
    }

    /// What the language model's head makes of rows: `(rows, hidden)` → `(rows, vocabulary)`.
    ///
    /// # Errors
    /// `Invalid` (`no_language_head`) where the checkpoint has none.
    pub fn language(&self, tape: &mut Tape, rows: Rows) -> Result<Rows> {
        let transformed = self.before_words(tape, rows)?;
        Ok(tape.linear(transformed, self.words_map()?)?)
    }

    /// The rows that the words are compared with: `(rows, hidden)` → `(rows, hidden)`.
    ///
    /// # Errors
    /// As [`Self::language`].
    pub fn before_words(&self, tape: &mut Tape, rows: Rows) -> Result<Rows> {
        self.language_head()?.transformed(tape, rows)
    }

    /// The language model's words as a linear map: `(hidden)` → `(vocabulary)`.
    ///
    /// # Errors
    /// As [`Self::language`].
    pub fn words_map(&self) -> Result<&Arc<FrozenLinear>> {
        let kernels = self.kernels.as_ref();
        let embedded = |bias: Option<Tensor>| -> Result<FrozenLinear> {
            match self.architecture.tied(kernels, bias.clone())? {
                Some(words) => Ok(words),
                None => {
                    let all = self.words(&(0..self.info.vocabulary_size as u32).collect::<Vec<_>>())?;
                    Ok(kernels.freeze_linear(all, bias)?)
                }
            }
        };
        self.language_head()?.words(kernels, embedded)
    }

    fn language_head(&self) -> Result<&LanguageHead> {
        self.language.as_ref().ok_or_else(|| {
            Error::invalid("no_language_head", "the base model's checkpoint has no language model's head")
        })
    }

    /// Rows of the word embeddings `(ids, hidden)`.
    pub fn words(&self, ids: &[u32]) -> Result<Tensor> {
        Ok(self.kernels.download(&self.architecture.words(self.kernels.as_ref(), ids)?)?)
    }

    /// What is remembered of a row while sequences are continued; `None` for encoders.
    pub fn past(&self) -> Option<past::Form> {
        self.architecture.past()
    }

    /// Whether its maps are held in fewer bits than 32.
    pub fn is_reduced(&self) -> bool {
        let sites = self.architecture.sites();
        sites.iter().find_map(|info| self.map(info.site)).is_some_and(|map| map.is_reduced())
    }

    /// The frozen linear map at a site of [`Self::sites`].
    pub fn map(&self, site: Site) -> Option<&Arc<FrozenLinear>> {
        self.architecture.map(site)
    }

    /// The bias of the linear map, or the shift of the norm, at a site of [`Self::sites`] `(width)`.
    pub fn bias(&self, site: Site) -> Result<Option<Tensor>> {
        if let Some([_, shift]) = self.norm(site)? {
            return Ok(Some(shift));
        }
        let bias = self.map(site).and_then(|map| map.bias()).map(|bias| self.kernels.download(bias)).transpose()?;
        Ok(bias.map(|bias| Tensor::new([bias.values.len()], bias.values)))
    }

    /// A frozen linear map `(output, input)` without bias that is in memory once, however many adapters bring it.
    pub fn shared_linear(&self, weight: Tensor) -> Result<Arc<FrozenLinear>> {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}", weight.shape));
        hash.update(weight.to_le_bytes());
        let key = weights::hex(&hash.finalize());
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = shared.get(&key).and_then(Weak::upgrade) {
            return Ok(map);
        }
        let map = Arc::new(self.kernels.freeze_linear(weight, None)?);
        shared.retain(|_, map| map.strong_count() > 0);
        shared.insert(key, Arc::downgrade(&map));
        Ok(map)
    }

    /// Gain and shift, each `(width)`, of the frozen norm at a site of [`Self::sites`].
    pub fn norm(&self, site: Site) -> Result<Option<[Tensor; 2]>> {
        let Some(norm) = self.architecture.norm(site) else { return Ok(None) };
        let mut parts = norm.whole.buffers().map(|buffer| {
            let vector = self.kernels.download(buffer)?;
            Ok::<_, Error>(Tensor::new([vector.values.len()], vector.values))
        });
        parts.next().zip(parts.next()).map(|(gain, shift)| Ok([gain?, shift?])).transpose()
    }

    /// Some neighbouring layers; `wanted` says which rows of the last layer will be looked at.
    pub fn layers(
        &self,
        tape: &mut Tape,
        hidden: Rows,
        range: Range<usize>,
        hooks: &dyn Hooks,
        wanted: Wanted,
    ) -> Result<Rows> {
        self.architecture.layers(tape, hidden, range, hooks, wanted)
    }

    /// One row per sequence `(sequences, hidden)`.
    pub fn pool(&self, tape: &mut Tape, hidden: Rows, pooling: Pooling, hooks: &dyn Hooks) -> Result<Rows> {
        match pooling {
            Pooling::Mean => Ok(tape.pool(hidden, Pool::Mean)?),
            Pooling::Cls if self.head.dense.is_none() => self.architecture.pooler(tape, hidden, hooks),
            Pooling::Cls | Pooling::First => Ok(tape.pool(hidden, Pool::First)?),
            Pooling::Last => Ok(tape.pool(hidden, Pool::Last)?),
        }
    }
}
