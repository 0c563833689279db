//! The order of a request: admit, resolve, load, tokenise, wait, compute, decode.
//!
//! Nothing here computes on an async thread: tokenising and, unless it is a few microseconds' work, decoding run on
//! blocking threads, everything else on computing threads of our own.

use super::batch::{self, Forward, Group};
use super::cache::Cache;
use super::generate::Generator;
use super::generate::grammar::Grammars;
use super::generate::text::Alphabet;
use super::mixed;
use super::queue::{Limits, Queue};
use super::resident::{Loader, Resident};
use super::wish::Room;
use super::{Answer, Ask, Settings, Started, Stats, Wish, decode, inputs};
use crate::store::{Adapter, Reference, Store};
use espalier_core::artifact::Adapted;
use espalier_core::error::{Context, Error, Result};
use espalier_core::model::Base;
use espalier_core::task::Input;
use espalier_tensor::pool::{self, Priority};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio_util::task::TaskTracker;

/// So many logits are labels sooner than a thread is awake for it.
const LITTLE: usize = 4096;

/// The handle that requests use; cloned freely.
#[derive(Clone)]
pub struct Serving {
    inner: Arc<Inner>,
}

struct Inner {
    base: Arc<Base>,
    store: Arc<dyn Store>,
    loader: Arc<Loader>,
    cache: Arc<Cache<Adapted>>,
    queue: Arc<Queue<Resident>>,
    counted: Arc<Counted>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Set once: no new requests.
    draining: AtomicBool,
    requests: TaskTracker,
    max_inputs: usize,
    /// Where the base says what comes next.
    generator: Option<Generator>,
    usual_tokens: u32,
    alphabet: Alphabet,
    grammars: Arc<Grammars>,
}

#[derive(Default)]
struct Counted {
    batches: AtomicU64,
    inputs: AtomicU64,
}

impl Serving {
    /// Starts the computing threads. `adapters` is the folder whose sub-folders are versions.
    pub fn start(base: Arc<Base>, store: Arc<dyn Store>, adapters: PathBuf, settings: Settings) -> Result<Self> {
        let Settings { max_waiting, batch_tokens, batch_window, .. } = settings;
        let count = settings.threads.max(1);
        let queue = Queue::new(Limits { max_waiting, batch_tokens, batch_window });
        let counted = Arc::new(Counted::default());
        let alphabet = Alphabet::of(|token| base.tokenizer().id(token).is_some());
        let inner = Inner {
            loader: Loader::new(Arc::clone(&base), adapters, &settings),
            cache: Cache::new(settings.cache_bytes),
            threads: Mutex::new(Vec::new()),
            draining: AtomicBool::new(false),
            requests: TaskTracker::new(),
            max_inputs: settings.max_inputs,
            usual_tokens: settings.generation.usual_tokens,
            alphabet,
            grammars: Arc::new(Grammars::new(Arc::clone(&base), alphabet)),
            generator: Generator::start(&base, settings.generation)?,
            queue: Arc::clone(&queue),
            counted: Arc::clone(&counted),
            base: Arc::clone(&base),
            store,
        };
        for number in 0..count {
            let (queue, base, counted) = (Arc::clone(&queue), Arc::clone(&base), Arc::clone(&counted));
            let work = move || run(&queue, &forward(base), &counted);
            inner.threads().push(pool::spawn(&format!("serve-{number}"), Priority::Normal, work)?);
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// # Errors
    /// `NotFound` for the adapter; `Invalid` for inputs that are empty or too many; `Busy` when the queue is full or the
    /// server goes down; `Conflict` (`adapter_damaged`, `other_base`, `probe_failed`) where the adapter fails its checks.
    pub async fn predict(
        &self,
        owner: &str,
        reference: Option<&Reference>,
        inputs: Vec<Input>,
        ask: Ask,
    ) -> Result<Answer> {
        // Counted first, so that `drain` either sees this request or is seen by it.
        let _request = self.inner.requests.token();
        self.inner.check(&inputs)?;
        let place = self.inner.queue.admit(inputs.len())?;
        let (adapter, resident) = match reference {
            None => (None, Resident(None)),
            Some(reference) => self.inner.resident(owner, reference).await?,
        };
        let coming = place.announce();
        let (base, asked) = (Arc::clone(&self.inner.base), resident.clone());
        let tokens =
            spawn_blocking(move || -> Result<_> { Ok((inputs::tokens(&base, &asked, &inputs)?, inputs)) }).await;
        let (tokens, inputs) = tokens.context("making tokens of the inputs")??;
        // The request holds the adapter until it is answered: a hot swap or a deletion cannot touch it.
        let answer = coming.push(resident.clone(), tokens).await;
        let rows = answer.unwrap_or_else(|_| Err(Error::internal("a batch was lost before it was computed")))?;
        let predictions = match rows.iter().map(Vec::len).sum::<usize>() <= LITTLE {
            true => decode::predictions(&self.inner.base, &resident, rows, &inputs, ask)?,
            false => {
                let base = Arc::clone(&self.inner.base);
                let decode = move || decode::predictions(&base, &resident, rows, &inputs, ask);
                let decoded = spawn_blocking(decode).await;
                decoded.context("decoding predictions")??
            }
        };
        Ok(Answer { adapter, predictions })
    }

    /// Starts to go on from a prompt.
    ///
    /// # Errors
    /// `Invalid` where the base or the adapter does not say what comes next, or for the prompt; `NotFound`, `Conflict` and
    /// `Busy` as [`Self::predict`].
    pub async fn generate(&self, owner: &str, reference: Option<&Reference>, wish: Wish) -> Result<Started> {
        let request = self.inner.requests.token();
        self.inner.open()?;
        let Some(generator) = &self.inner.generator else {
            let detail = "this base model does not say what comes next: it is an encoder, or its checkpoint has no language model's head";
            return Err(Error::invalid("no_generation", detail));
        };
        let (adapter, resident) = match reference {
            None => (None, Resident(None)),
            Some(reference) => self.inner.resident(owner, reference).await?,
        };
        let (base, grammars) = (Arc::clone(&self.inner.base), Arc::clone(&self.inner.grammars));
        let room =
            Room { usual_tokens: self.inner.usual_tokens, rows: generator.most_rows(), texts: self.inner.max_inputs };
        let version = adapter.as_ref().map(|adapter| adapter.description.version.clone()).unwrap_or_default();
        let asks = spawn_blocking(move || wish.asks(&base, &grammars, &resident, &version, room)).await;
        let generations = generator.submit(asks.context("making tokens of a prompt")??)?;
        Ok(Started { adapter, generations, _request: request })
    }

    /// How a token is written, in bytes: perhaps only a part of a character.
    pub fn spelled(&self, id: u32) -> Vec<u8> {
        let token = self.inner.base.tokenizer().token(id).unwrap_or_default();
        self.inner.alphabet.bytes(&token)
    }

    /// Forgets a deleted adapter; requests that are under way keep it.
    pub fn forget(&self, version: &str) {
        self.inner.cache.forget(version);
    }

    /// Takes no new requests, answers those that are under way, and ends the computing threads.
    pub async fn drain(&self) {
        self.inner.draining.store(true, Ordering::SeqCst);
        self.inner.requests.close();
        self.inner.requests.wait().await;
        self.inner.queue.close();
        let threads = std::mem::take(&mut *self.inner.threads());
        let inner = Arc::clone(&self.inner);
        let joined = spawn_blocking(move || {
            if let Some(generator) = &inner.generator {
                generator.close();
                generator.join();
            }
            threads.into_iter().try_for_each(JoinHandle::join)
        });
        let joined = joined.await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("a computing thread had panicked");
        }
    }

    pub fn stats(&self) -> Stats {
        let cache = self.inner.cache.stats();
        Stats {
            resident_adapters: cache.resident,
            resident_bytes: cache.bytes,
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            evictions: cache.evictions,
            waiting: self.inner.queue.count() as u64,
            batches: self.inner.counted.batches.load(Ordering::Relaxed),
            batched_inputs: self.inner.counted.inputs.load(Ordering::Relaxed),
            generation: self.inner.generator.as_ref().map(Generator::stats).unwrap_or_default(),
        }
    }
}

impl Inner {
    fn check(&self, inputs: &[Input]) -> Result<()> {
        self.open()?;
        inputs::check(inputs, self.max_inputs)
    }

    fn open(&self) -> Result<()> {
        if self.draining.load(Ordering::SeqCst) {
            let detail = "the server is going down: send the request again in a moment";
            return Err(Error::busy("shutting_down", detail, Duration::from_secs(1)));
        }
        Ok(())
    }

    /// The row that the reference names now, and its adapter in memory. The request keeps both to its end.
    async fn resident(&self, owner: &str, reference: &Reference) -> Result<(Option<Arc<Adapter>>, Resident)> {
        loop {
            let adapter = self.store.adapter(owner, reference).await?;
            let version = adapter.description.version.clone();
            let load = Arc::clone(&self.loader).load(version.clone());
            let error = match self.cache.get_or_load(&version, load).await {
                Ok(adapted) => return Ok((Some(Arc::new(adapter)), Resident(Some(adapted)))),
                Err(error) => error,
            };
            match self.store.adapter(owner, &Reference::Id(adapter.id)).await {
                Ok(_) => return Err(error),
                // Deleted between the look-up and the load: a name may point to another one by now.
                Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads know only the queue, so the last handle can send them home.
impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Takes batches until the queue is closed and empty.
fn run(queue: &Queue<Resident>, forward: &Forward<Resident>, counted: &Counted) {
    while let Some(parts) = queue.take() {
        let inputs: usize = parts.iter().map(|part| part.inputs.len()).sum();
        counted.batches.fetch_add(1, Ordering::Relaxed);
        counted.inputs.fetch_add(inputs as u64, Ordering::Relaxed);
        batch::compute(&parts, forward);
    }
}

fn forward(base: Arc<Base>) -> Box<Forward<Resident>> {
    Box::new(move |groups| {
        let group = |group: Group<Resident>| mixed::Group { adapted: group.adapter.0, inputs: group.inputs };
        mixed::forward(&base, &groups.into_iter().map(group).collect::<Vec<_>>())
    })
}
