//! One step of some sequences: their next rows through the base, each with its own adapter, and the tokens that they say then.

use super::sequence::{Sequence, fail_all};
use crate::serving::mixed::Mixed;
use espalier_core::artifact::Adapted;
use espalier_core::error::Result;
use espalier_core::model::{Base, Batch, Tokens, Virtual, Wanted};
use espalier_tensor::past::Past;
use espalier_tensor::{Kernels, Tape};
use std::sync::Arc;

/// Sequences of one part of a step, neighbours of the same adapter side by side, and how many tokens each may read.
pub struct Part {
    pub sequences: Vec<Sequence>,
    pub most: Vec<usize>,
    /// Threads that share its products, where weights are held in fewer bits.
    pub threads: usize,
}

/// What a part has become: those that go on, and what was counted.
#[derive(Default)]
pub struct Done {
    pub sequences: Vec<Sequence>,
    /// Those that have said their last word.
    pub ended: Vec<Sequence>,
    pub said: usize,
}

/// Computes a part; where that fails, its sequences are told.
pub fn run(base: &Base, kernels: &Arc<dyn Kernels>, mut part: Part) -> Done {
    match forward(base, kernels, &mut part) {
        Ok(mut logits) => {
            let said = logits.iter().flatten().count();
            let mut done = Done { said, ..Done::default() };
            for (mut sequence, logits) in part.sequences.into_iter().zip(&mut logits) {
                match logits.as_mut().is_some_and(|logits| sequence.say(logits)) {
                    true => done.ended.push(sequence),
                    false => done.sequences.push(sequence),
                }
            }
            done
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "a step of generation failed");
            fail_all(&part.sequences, &error);
            Done::default()
        }
    }
}

/// The logits of each sequence that has nothing unread any more.
fn forward(base: &Base, kernels: &Arc<dyn Kernels>, part: &mut Part) -> Result<Vec<Option<Vec<f32>>>> {
    let pieces: Vec<(Tokens, Virtual)> = part
        .sequences
        .iter()
        .zip(&part.most)
        .map(|(sequence, most)| (Tokens::whole(sequence.piece(*most).to_vec()), sequence.front()))
        .collect();
    let form = part.sequences[0].past.form();
    let take = |sequence: &mut Sequence| std::mem::replace(&mut sequence.past, Past::new(form));
    let pasts: Vec<Past> = part.sequences.iter_mut().map(take).collect();
    let rows: Vec<usize> = pieces.iter().map(|(tokens, front)| front.rows() + tokens.ids.len()).collect();
    let residents: Vec<_> = part.sequences.iter().map(|sequence| sequence.resident.clone()).collect();
    let mixed = Mixed::of(groups(&residents));
    let mut tape = Tape::continuing(Arc::clone(kernels), Arc::from([]), pasts);
    let batch = Batch::mixed(pieces.iter().map(|(tokens, front)| (tokens, *front)));
    let last = base.encode(&mut tape, &batch, &mixed, Wanted::Last)?;
    let is_due: Vec<bool> = part
        .sequences
        .iter()
        .zip(&pieces)
        .map(|(sequence, (tokens, _))| tokens.ids.len() == sequence.unread())
        .collect();
    let first: &[u32] = &[0];
    let picked = tape.pick(last, is_due.iter().map(|is_due| if *is_due { first } else { &[] }))?;
    let mut each = Vec::new();
    if is_due.contains(&true) {
        let logits = base.language(&mut tape, picked)?;
        let logits = tape.read(logits)?.values;
        each = logits.chunks_exact(base.info().vocabulary_size).map(<[f32]>::to_vec).collect();
    }
    let mut each = each.into_iter();
    let pasts = tape.into_pasts(rows);
    for ((sequence, past), (tokens, _)) in part.sequences.iter_mut().zip(pasts).zip(&pieces) {
        sequence.remembered(past, tokens.ids.len());
    }
    Ok(is_due.into_iter().map(|is_due| is_due.then(|| each.next().unwrap_or_default())).collect())
}

/// Runs of sequences with the same adapter.
fn groups(residents: &[crate::serving::resident::Resident]) -> Vec<(Option<&Adapted>, usize)> {
    let runs = residents.chunk_by(|one, other| one == other);
    runs.map(|run| (run[0].0.as_deref(), run.len())).collect()
}
