//! Samples of a run: greedy completions of the job's prompts by the current parameters.

use super::Trainer;
use crate::error::{Error, Result};
use crate::model::{BaseModel, Batch, RequiredRows, Tokens, VirtualTokens};
use crate::training::network::{DeviceParameters, Network};
use crate::training::progress::{Interrupted, MetricsRow, ProgressReporter};
use espalier_tensor::Tape;
use espalier_tensor::kv_cache::SequenceKvCache;
use serde_json::json;
use std::sync::Arc;

/// Tokens per text between two checks of the stop signal.
const STOP_CHECK_TOKENS: usize = 16;

impl Trainer<'_> {
    /// Adds a metrics row with generated texts, where the job has samples.
    pub(super) fn generate_samples(&mut self, reporter: &mut ProgressReporter) -> Result<(), Interrupted> {
        let Some(samples) = &self.spec.samples else { return Ok(()) };
        let base = self.network.base();
        let start = |prompt| SampledText::new(base, prompt);
        let mut texts = samples.inputs.iter().map(|input| start(input.tokenize(base)?)).collect::<Result<Vec<_>>>()?;
        let parameters = self.network.upload(&self.state.parameters)?;
        let (network, max_tokens) = (Arc::clone(&self.network), samples.max_tokens as usize);
        let decode = Arc::new(move |text: SampledText| text.decode_tokens(&network, &parameters, max_tokens));
        while texts.iter().any(|text| !text.is_finished) {
            reporter.check_stop()?;
            texts = self.pool.map(texts, &decode)?;
        }
        // Postgres stores no NUL in a text.
        let decoded = texts.iter().map(|text| base.tokenizer().decode(&text.generated).replace('\0', "\u{fffd}"));
        let metrics = json!({"texts": decoded.collect::<Vec<String>>()});
        self.state.trainer_state.metrics_rows.push(MetricsRow {
            step: self.state.trainer_state.step,
            split: "samples".to_string(),
            metrics,
        });
        Ok(())
    }
}

/// Text that is being generated.
struct SampledText {
    kv_cache: SequenceKvCache,
    /// Tokens of the next forward pass: the prompt, then each generated token.
    next_ids: Vec<u32>,
    generated: Vec<u32>,
    is_finished: bool,
}

impl SampledText {
    fn new(base: &BaseModel, prompt: Vec<u32>) -> Result<Self> {
        let cache_shape = base.kv_cache_shape().ok_or_else(|| Error::internal("this base generates no text"))?;
        Ok(Self {
            kv_cache: SequenceKvCache::new(cache_shape),
            next_ids: prompt,
            generated: Vec::new(),
            is_finished: false,
        })
    }

    /// Decodes up to [`STOP_CHECK_TOKENS`] tokens. The end token is not part of the text.
    fn decode_tokens(mut self, network: &Network, parameters: &DeviceParameters, max_tokens: usize) -> Result<Self> {
        let (base, hooks) = (network.base(), network.hooks());
        let mut remaining = STOP_CHECK_TOKENS;
        while remaining > 0 && !self.is_finished {
            let virtual_tokens =
                if self.kv_cache.is_empty() { hooks.virtual_tokens() } else { VirtualTokens::Disabled };
            let tokens = Tokens::from_ids(self.next_ids);
            let rows = virtual_tokens.prompt_rows() + tokens.ids.len();
            let mut tape = Tape::with_kv_cache(Arc::clone(base.backend()), Arc::clone(parameters), vec![self.kv_cache]);
            let last_hidden =
                base.encode(&mut tape, &Batch::new([&tokens], virtual_tokens), hooks, RequiredRows::Last)?;
            let logits = base.lm_logits(&mut tape, last_hidden)?;
            let mut logits = tape.to_host(logits)?.values;
            logits.truncate(base.sampled_vocabulary_size());
            self.kv_cache = tape.into_kv_caches([rows]).remove(0);
            let argmax = logits.iter().zip(0..).max_by(|one, other| one.0.total_cmp(other.0)).map(|(_, id)| id);
            let id = argmax.filter(|id| !base.tokenizer().eos_ids().contains(id));
            self.generated.extend(id);
            self.next_ids = id.into_iter().collect();
            self.is_finished = id.is_none() || self.generated.len() >= max_tokens;
            remaining -= 1;
        }
        Ok(self)
    }
}
