//! Causal language modelling: what comes next (Radford et al. 2018). Learned from prompts with their completions, from
//! conversations, of which the assistant's turns are learned, or from plain texts.

use super::{Conversation, Example, Target};
use crate::error::{Error, Result};
use crate::model::{Tokenizer, Tokens};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = CausalLanguageModel)]
pub struct Config {}

/// The sequences of an example, each at most `max_length` long; `picked` are the rows behind which a learned token comes. Nothing
/// is picked of one whose completion does not fit.
///
/// # Errors
/// `Invalid` where the conversation does not fit the base's chat template.
pub fn sequences(tokenizer: &Tokenizer, example: &Example, max_length: usize) -> Result<Vec<Tokens>> {
    match &example.target {
        Target::Completion(completion) => Ok(vec![completed(tokenizer, &example.text, completion, max_length)?]),
        Target::Chosen { chosen, rejected } => {
            let one = |answer: &str| completed(tokenizer, &example.text, answer, max_length);
            Ok(vec![one(chosen)?, one(rejected)?])
        }
        Target::Conversation(conversation) => Ok(vec![spoken(tokenizer, conversation, max_length)?]),
        Target::ChosenTurns { chosen, rejected } => {
            Ok(vec![spoken(tokenizer, chosen, max_length)?, spoken(tokenizer, rejected, max_length)?])
        }
        _ => texts(tokenizer, &example.text, max_length),
    }
}

/// The next tokens behind the rows that are picked.
pub fn next(tokens: &Tokens) -> impl Iterator<Item = u32> {
    tokens.picked.iter().map(|row| tokens.ids[*row as usize + 1])
}

/// A prompt as it will be asked, what is to follow it, and the end.
fn completed(tokenizer: &Tokenizer, prompt: &str, completion: &str, max_length: usize) -> Result<Tokens> {
    let asked = tokenizer.prompt(prompt)?;
    let ids = ended(tokenizer, tokenizer.continued(&asked, prompt, completion)?);
    Ok(cut(ids, |row| row >= asked.len(), max_length))
}

/// A conversation as the base's chat template writes it.
fn spoken(tokenizer: &Tokenizer, conversation: &Conversation, max_length: usize) -> Result<Tokens> {
    let (ids, is_learned) = tokenizer.conversation(&conversation.messages, conversation.tools.as_ref())?;
    Ok(cut(ids, |row| is_learned[row], max_length))
}

/// With the token that ends a text, where it is not there already.
fn ended(tokenizer: &Tokenizer, mut ids: Vec<u32>) -> Vec<u32> {
    ids.extend(tokenizer.end().filter(|end| ids.last() != Some(end)));
    ids
}

/// At most `max_length` tokens; `is_learned` says of each whether it is to be found from those before it.
fn cut(mut ids: Vec<u32>, is_learned: impl Fn(usize) -> bool, max_length: usize) -> Tokens {
    let truncated = ids.len() > max_length;
    ids.truncate(max_length);
    let picked = (1..ids.len()).filter(|row| is_learned(*row)).map(|row| row as u32 - 1).collect();
    Tokens { picked, truncated, ..Tokens::whole(ids) }
}

/// A text of any length: where one sequence ends the next goes on.
fn texts(tokenizer: &Tokenizer, text: &str, max_length: usize) -> Result<Vec<Tokens>> {
    let ids = ended(tokenizer, tokenizer.prompt(text)?);
    let step = max_length.max(2) - 1;
    let starts = (0..ids.len().saturating_sub(1).max(1)).step_by(step);
    let piece = |start: usize| cut(ids[start..ids.len().min(start + step + 1)].to_vec(), |_| true, max_length.max(2));
    Ok(starts.map(piece).collect())
}

/// Why nothing could be learned from an example with these sequences, if nothing can. Of a preference both must teach something.
///
/// # Errors
/// `Invalid` (`nothing_to_learn`), saying what to do.
pub fn check(target: &Target, sequences: &[Tokens]) -> Result<()> {
    let teaches = |tokens: &Tokens| !tokens.picked.is_empty();
    let is_enough = match target {
        Target::Chosen { .. } | Target::ChosenTurns { .. } => sequences.iter().all(teaches),
        _ => sequences.iter().any(teaches),
    };
    if is_enough {
        return Ok(());
    }
    let detail = match sequences.iter().any(|tokens| tokens.truncated) {
        true => {
            "what is to be learned lies behind the first `max_length` tokens: shorten the prompt, or raise `max_length`"
        }
        false => {
            "there is nothing to be learned in it: no turn of the assistant's with a weight, and no text behind a prompt"
        }
    };
    Err(Error::invalid("nothing_to_learn", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learned_lies_behind_the_rows_that_are_picked() {
        let tokens = cut(vec![5, 6, 7, 8, 9], |row| row >= 3, 10);
        assert_eq!((tokens.picked.clone(), next(&tokens).collect::<Vec<_>>()), (vec![2, 3], vec![8, 9]));
        let tokens = cut(vec![5, 6, 7, 8, 9], |row| row >= 3, 4);
        assert_eq!((tokens.picked, tokens.truncated), (vec![2], true));
        let tokens = cut(vec![5, 6, 7, 8, 9], |row| row >= 3, 3);
        assert_eq!(check(&Target::Text, &[tokens]).unwrap_err().code(), "nothing_to_learn");
    }
}
