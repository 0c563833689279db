//! What the present parameters say behind the prompts of a job's samples.

use super::{Halt, Run};
use crate::error::{Error, Result};
use crate::model::{Base, Batch, Tokens, Virtual, Wanted};
use crate::training::Row;
use crate::training::network::{Network, Uploaded};
use crate::training::speaker::Speaker;
use espalier_tensor::Tape;
use espalier_tensor::past::Past;
use serde_json::json;
use std::sync::Arc;

/// Tokens of a text between two looks at whether to stop.
const LISTEN_EVERY: usize = 16;

impl Run<'_> {
    /// Adds a row with what is said now, where samples are asked for.
    pub(super) fn sample(&mut self, speaker: &mut Speaker) -> Result<(), Halt> {
        let Some(samples) = &self.spec.samples else { return Ok(()) };
        let base = self.network.base();
        let begin = |prompt| Text::begin(base, prompt);
        let mut texts = samples.inputs.iter().map(|input| begin(input.tokens(base)?)).collect::<Result<Vec<_>>>()?;
        let parameters = self.network.upload(&self.state.parameters)?;
        let (network, most) = (Arc::clone(&self.network), samples.max_tokens as usize);
        let go_on = Arc::new(move |text: Text| text.go_on(&network, &parameters, most));
        while texts.iter().any(|text| !text.is_over) {
            speaker.listen()?;
            texts = self.crew.map(texts, &go_on)?;
        }
        // No database keeps a NUL in a text.
        let said = texts.iter().map(|text| base.tokenizer().decode(&text.said).replace('\0', "\u{fffd}"));
        let metrics = json!({"texts": said.collect::<Vec<String>>()});
        self.state.counters.rows.push(Row { step: self.state.counters.step, split: "samples".to_string(), metrics });
        Ok(())
    }
}

/// A text on its way.
struct Text {
    past: Past,
    /// What is read next: the prompt, and then each word.
    next: Vec<u32>,
    said: Vec<u32>,
    is_over: bool,
}

impl Text {
    fn begin(base: &Base, prompt: Vec<u32>) -> Result<Self> {
        let form = base.past().ok_or_else(|| Error::internal("this base does not say what comes next"))?;
        Ok(Self { past: Past::new(form), next: prompt, said: Vec::new(), is_over: false })
    }

    /// The likeliest next tokens, some of them; the one that ends the text is none of it.
    fn go_on(mut self, network: &Network, parameters: &Uploaded, most: usize) -> Result<Self> {
        let (base, hooks) = (network.base(), network.hooks());
        let mut left = LISTEN_EVERY;
        while left > 0 && !self.is_over {
            let front = if self.past.is_fresh() { hooks.virtual_tokens() } else { Virtual::Nothing };
            let tokens = Tokens::whole(self.next);
            let rows = front.rows() + tokens.ids.len();
            let mut tape = Tape::continuing(Arc::clone(base.kernels()), Arc::clone(parameters), vec![self.past]);
            let last = base.encode(&mut tape, &Batch::new([&tokens], front), hooks, Wanted::Last)?;
            let logits = base.language(&mut tape, last)?;
            let logits = tape.read(logits)?.values;
            self.past = tape.into_pasts([rows]).remove(0);
            let likeliest = logits.iter().zip(0..).max_by(|one, other| one.0.total_cmp(other.0)).map(|(_, id)| id);
            let id = likeliest.filter(|id| !base.tokenizer().stops().contains(id));
            self.said.extend(id);
            self.next = id.into_iter().collect();
            self.is_over = id.is_none() || self.said.len() >= most;
            left -= 1;
        }
        Ok(self)
    }
}
