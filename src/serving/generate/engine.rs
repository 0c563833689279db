//! The loop: who joins, what is computed, who leaves. One thread leads, and a crew computes the parts of a step.

use super::line::Line;
use super::request::{Ask, Generation};
use super::sequence::{Sequence, check};
use super::step::{self, Done, Part};
use super::turns::{self, Products, Turn};
use super::{Settings, Stats};
use espalier_core::error::{Error, Result};
use espalier_core::model::Base;
use espalier_tensor::Kernels;
use espalier_tensor::cpu::together;
use espalier_tensor::held::Activations;
use espalier_tensor::past::{Form, PAGE};
use espalier_tensor::pool::{self, Crew, Priority};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::unbounded_channel;

/// What a client is told to wait before it asks again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The handle that requests use.
pub struct Generator {
    inner: Arc<Inner>,
    leader: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    base: Arc<Base>,
    kernels: Arc<dyn Kernels>,
    products: Products,
    form: Form,
    settings: Settings,
    line: Mutex<Line>,
    changed: Condvar,
}

impl Generator {
    /// Starts the threads; `None` where the base does not say what comes next.
    pub fn start(base: &Arc<Base>, settings: Settings) -> Result<Option<Self>> {
        let Some(form) = base.past().filter(|_| base.info().generates) else { return Ok(None) };
        let kernels = kernels(base, settings.activations)?;
        let products = if base.is_reduced() { Products::Shared } else { Products::Apart };
        let line = Mutex::new(Line::new(&settings, form.page_bytes()));
        let crew = Crew::new("generate", Priority::Normal, settings.threads)?;
        let inner = Arc::new(Inner {
            base: Arc::clone(base),
            kernels,
            products,
            form,
            settings,
            line,
            changed: Condvar::new(),
        });
        let lead = Arc::clone(&inner);
        let leader = pool::spawn("generate", Priority::Normal, move || lead.run(&crew))?;
        Ok(Some(Self { inner, leader: Mutex::new(Some(leader)) }))
    }

    /// Queues sequences that belong to one request: all of them, or none.
    ///
    /// # Errors
    /// `Invalid` where one is too long, `Busy` where too many wait or the server goes down.
    pub fn submit(&self, asks: Vec<Ask>) -> Result<Vec<Generation>> {
        let inner = &self.inner;
        for ask in &asks {
            check(&inner.base, &ask.resident, &ask.prompt, ask.limits.max_tokens as usize)?;
        }
        let make = |ask: Ask| {
            let (sender, events) = unbounded_channel();
            let generation = Generation { events, prompt_tokens: ask.prompt.len(), finish: None };
            (Sequence::new(&inner.base, inner.form, ask, sender), generation)
        };
        let (sequences, generations): (Vec<Sequence>, Vec<Generation>) = asks.into_iter().map(make).unzip();
        let mut line = inner.lock();
        if line.is_closed {
            let detail = "the server is going down: send the request again in a moment";
            return Err(Error::busy("shutting_down", detail, RETRY_AFTER));
        }
        if let Some(sequence) = sequences.iter().find(|sequence| sequence.pages > line.most_pages()) {
            let rows = sequence.pages * PAGE;
            let detail = format!(
                "prompt and answer may take {rows} tokens, more than this server has memory for: lower max_tokens, \
                 or start the server with a larger --generation-memory"
            );
            return Err(Error::invalid("too_long", detail));
        }
        if !line.waiting.is_empty() && line.waiting.len() + sequences.len() > inner.settings.max_waiting {
            let detail = format!("{} sequences are waiting to be generated: try again in a moment", line.waiting.len());
            return Err(Error::busy("generation_queue_full", detail, RETRY_AFTER));
        }
        for mut sequence in sequences {
            line.arrivals += 1;
            sequence.arrival = line.arrivals;
            line.waiting.push_back(sequence);
        }
        inner.changed.notify_all();
        Ok(generations)
    }

    /// Rows that a sequence may have at most.
    pub fn most_rows(&self) -> usize {
        self.inner.lock().most_pages() * PAGE
    }

    pub fn stats(&self) -> Stats {
        self.inner.lock().stats()
    }

    /// Takes no more requests; those that wait or run are finished.
    pub fn close(&self) {
        self.inner.lock().is_closed = true;
        self.inner.changed.notify_all();
    }

    /// Waits for the end of the threads, after [`Self::close`].
    pub fn join(&self) {
        let leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner).take();
        if leader.is_some_and(|leader| leader.join().is_err()) {
            tracing::error!("the thread that generates had panicked");
        }
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.close();
    }
}

/// What multiplies.
fn kernels(base: &Base, activations: Activations) -> Result<Arc<dyn Kernels>> {
    let rounding = match activations {
        Activations::F32 => return Ok(Arc::clone(base.kernels())),
        Activations::Int8 => base.kernels().rounding(),
    };
    rounding.ok_or_else(|| {
        let detail = "on a GPU activations are not rounded: leave --generation-activations int8 out";
        Error::invalid("conflicting_settings", detail)
    })
}

/// A part's step; a panic is its own sequences' affair alone.
fn computed(base: &Base, kernels: &Arc<dyn Kernels>, part: Part) -> Done {
    catch_unwind(AssertUnwindSafe(|| step::run(base, kernels, part))).unwrap_or_else(|payload| {
        let error = Error::panicked("a step of generation", payload.as_ref());
        tracing::error!(error = format!("{error:#}"), "a step of generation was lost");
        Done::default()
    })
}

/// Whoever waits learns that nothing will come, however the leader ends.
struct End<'a>(&'a Inner);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut line = self.0.lock();
        line.is_closed = true;
        line.waiting.clear();
        line.running.clear();
    }
}

impl Inner {
    fn run(self: Arc<Self>, crew: &Crew) {
        let (base, kernels) = (Arc::clone(&self.base), Arc::clone(&self.kernels));
        let compute = Arc::new(move |part: Part| -> Result<_> { Ok(computed(&base, &kernels, part)) });
        let _end = End(&self);
        while let Some(mut parts) = self.take() {
            let began = Instant::now();
            let promised: usize = parts.iter().flat_map(|part| &part.sequences).map(|sequence| sequence.pages).sum();
            let alone = if parts.len() == 1 { parts.pop() } else { None };
            let done = match alone {
                // Always on this thread, which has helpers.
                Some(part) => together(part.threads, || compute(part)).map(|done| vec![done]),
                None => crew.map(parts, &compute),
            };
            let done = done.unwrap_or_else(|error| {
                tracing::error!(error = format!("{error:#}"), "a step of generation was lost");
                Vec::new()
            });
            self.put(done, promised);
            self.leave_some(began.elapsed());
        }
    }

    /// Leaves the cores alone for a moment after so much work, where a job would use them.
    fn leave_some(&self, worked: Duration) {
        let share = self.settings.training_share;
        if share > 0.0 && pool::lowest_would_work() {
            std::thread::park_timeout(worked.mul_f64(share / (1.0 - share)));
        }
    }

    /// Waits for sequences and takes all that run, in at most as many parts as there are threads; `None` once nothing is left and
    /// the line is closed.
    fn take(&self) -> Option<Vec<Part>> {
        let mut line = self.lock();
        loop {
            line.admit();
            if !line.running.is_empty() {
                let running = std::mem::take(&mut line.running);
                line.counted.steps += 1;
                let (parts, idle) = self.parts(running);
                // Their turn comes with the next step.
                line.running = idle;
                line.computed = parts.iter().map(|part| part.sequences.len()).sum();
                return Some(parts);
            }
            if line.is_closed && line.waiting.is_empty() {
                return None;
            }
            line = self.changed.wait(line).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What is computed now, and what is not.
    fn parts(&self, running: Vec<Sequence>) -> (Vec<Part>, Vec<Sequence>) {
        let Settings { threads, prompt_tokens, .. } = self.settings;
        let turns: Vec<Turn> = running.iter().map(Sequence::turn).collect();
        let pieces = turns::pieces(&turns, threads, prompt_tokens);
        let cut = turns::parts(&turns, &pieces, threads, self.products);
        let threads = if cut.len() == 1 { threads } else { 1 };
        let mut running: Vec<Option<Sequence>> = running.into_iter().map(Some).collect();
        let part = |indices: Vec<usize>| {
            let sequences = indices.iter().filter_map(|index| running[*index].take()).collect();
            Part { sequences, most: indices.iter().map(|index| pieces[*index]).collect(), threads }
        };
        let parts = cut.into_iter().map(part).collect();
        (parts, running.into_iter().flatten().collect())
    }

    fn put(&self, done: Vec<Done>, promised: usize) {
        let mut line = self.lock();
        let kept: usize = done.iter().flat_map(|done| &done.sequences).map(|sequence| sequence.pages).sum();
        line.release(promised - kept);
        line.computed = 0;
        for done in done {
            line.counted.generated_tokens += done.said as u64;
            for mut sequence in done.ended {
                line.keep(&mut sequence);
            }
            for mut sequence in done.sequences {
                line.keep(&mut sequence);
                let place = line.running.partition_point(|other| other.version <= sequence.version);
                line.running.insert(place, sequence);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
