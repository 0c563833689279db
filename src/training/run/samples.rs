//! What the present parameters say behind the prompts of a job's samples.

use super::{Halt, Run};
use crate::compute::Tape;
use crate::compute::past::Past;
use crate::error::{Error, Result};
use crate::model::{Batch, Tokens, Virtual, Wanted};
use crate::training::network::{Network, Uploaded};
use crate::training::speaker::Speaker;
use crate::training::{Row, pieces};
use serde_json::json;
use std::sync::Arc;

impl Run<'_> {
    /// Adds a row with what is said now, where samples are asked for.
    pub(super) fn sample(&mut self, speaker: &mut Speaker) -> Result<(), Halt> {
        let Some(samples) = &self.spec.samples else { return Ok(()) };
        let base = self.network.base();
        let prompts = samples.inputs.iter().map(|input| input.tokens(base)).collect::<Result<Vec<_>>>()?;
        let parameters = self.network.upload(&self.state.parameters)?;
        let (network, most) = (Arc::clone(&self.network), samples.max_tokens as usize);
        let each: Vec<Vec<usize>> = (0..prompts.len()).map(|index| vec![index]).collect();
        let say = move |piece: Vec<usize>| {
            let all = piece.iter().map(|index| said(&network, &parameters, &prompts[*index], most));
            Ok(all.collect::<Result<Vec<_>>>()?.concat())
        };
        let mut texts = Vec::new();
        pieces::each(&self.crew, &each, say, speaker, |_, ids: &[u32]| {
            texts.push(base.tokenizer().decode(ids));
            Ok(())
        })?;
        let metrics = json!({"texts": texts});
        self.state.counters.rows.push(Row { step: self.state.counters.step, split: "samples".to_string(), metrics });
        Ok(())
    }
}

/// The likeliest tokens behind a prompt, without the one that ends the text.
fn said(network: &Network, parameters: &Uploaded, prompt: &[u32], most: usize) -> Result<Vec<u32>> {
    let (base, hooks) = (network.base(), network.hooks());
    let form = base.past().ok_or_else(|| Error::internal("this base does not say what comes next"))?;
    let (mut past, mut next, mut said) = (Past::new(form), prompt.to_vec(), Vec::new());
    while said.len() < most {
        let front = if past.is_fresh() { hooks.virtual_tokens() } else { Virtual::Nothing };
        let tokens = Tokens::whole(next);
        let rows = front.rows() + tokens.ids.len();
        let mut tape = Tape::continuing(Arc::clone(base.kernels()), Arc::clone(parameters), vec![past]);
        let last = base.encode(&mut tape, &Batch::new([&tokens], front), hooks, Wanted::Last)?;
        let logits = base.language(&mut tape, last)?;
        let logits = tape.read(logits)?.values;
        let likeliest = logits.iter().zip(0..).max_by(|one, other| one.0.total_cmp(other.0)).map(|(_, id)| id);
        let Some(id) = likeliest.filter(|id| !base.tokenizer().stops().contains(id)) else { break };
        said.push(id);
        next = vec![id];
        past = tape.into_pasts([rows]).remove(0);
    }
    Ok(said)
}
