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
pub fn tokenize_example(tokenizer: &Tokenizer, example: &Example, max_length: usize) -> Result<Vec<Tokens>> {
    match &example.target {
        Target::Completion(completion) => {
            Ok(vec![tokenize_completion(tokenizer, &example.text, completion, max_length)?])
        }
        Target::Preference { chosen, rejected } => {
            let tokenize = |answer: &str| tokenize_completion(tokenizer, &example.text, answer, max_length);
            Ok(vec![tokenize(chosen)?, tokenize(rejected)?])
        }
        Target::Conversation(conversation) => Ok(vec![tokenize_conversation(tokenizer, conversation, max_length)?]),
        Target::ConversationPreference { chosen, rejected } => Ok(vec![
            tokenize_conversation(tokenizer, chosen, max_length)?,
            tokenize_conversation(tokenizer, rejected, max_length)?,
        ]),
        _ => tokenize_windows(tokenizer, &example.text, max_length),
    }
}

/// The next tokens behind the rows that are picked.
pub fn next_token_ids(tokens: &Tokens) -> impl Iterator<Item = u32> {
    tokens.target_positions.iter().map(|row| tokens.ids[*row as usize + 1])
}

/// A prompt as it will be asked, what is to follow it, and the end.
fn tokenize_completion(tokenizer: &Tokenizer, prompt: &str, completion: &str, max_length: usize) -> Result<Tokens> {
    let prompt_ids = tokenizer.encode_prompt(prompt)?;
    let ids = with_eos(tokenizer, tokenizer.encode_completion(&prompt_ids, prompt, completion)?);
    Ok(with_target_positions(ids, |row| row >= prompt_ids.len(), max_length))
}

/// A conversation as the base's chat template writes it.
fn tokenize_conversation(tokenizer: &Tokenizer, conversation: &Conversation, max_length: usize) -> Result<Tokens> {
    let (ids, is_target) = tokenizer.encode_conversation(&conversation.messages, conversation.tools.as_ref())?;
    Ok(with_target_positions(ids, |row| is_target[row], max_length))
}

/// With the token that ends a text, where it is not there already.
fn with_eos(tokenizer: &Tokenizer, mut ids: Vec<u32>) -> Vec<u32> {
    ids.extend(tokenizer.eos().filter(|end| ids.last() != Some(end)));
    ids
}

/// At most `max_length` tokens; `is_learned` says of each whether it is to be found from those before it.
fn with_target_positions(mut ids: Vec<u32>, is_target: impl Fn(usize) -> bool, max_length: usize) -> Tokens {
    let truncated = ids.len() > max_length;
    ids.truncate(max_length);
    let target_positions = (1..ids.len()).filter(|row| is_target(*row)).map(|row| row as u32 - 1).collect();
    Tokens { target_positions, truncated, ..Tokens::from_ids(ids) }
}

/// A text of any length: where one sequence ends the next goes on.
fn tokenize_windows(tokenizer: &Tokenizer, text: &str, max_length: usize) -> Result<Vec<Tokens>> {
    let ids = with_eos(tokenizer, tokenizer.encode_prompt(text)?);
    let stride = max_length.max(2) - 1;
    let starts = (0..ids.len().saturating_sub(1).max(1)).step_by(stride);
    let window = |start: usize| {
        with_target_positions(ids[start..ids.len().min(start + stride + 1)].to_vec(), |_| true, max_length.max(2))
    };
    Ok(starts.map(window).collect())
}

/// Why nothing could be learned from an example with these sequences, if nothing can. Of a preference both must teach something.
///
/// # Errors
/// `Invalid` (`nothing_to_learn`), saying what to do.
pub fn check_trainable(target: &Target, sequences: &[Tokens]) -> Result<()> {
    let has_targets = |tokens: &Tokens| !tokens.target_positions.is_empty();
    let is_trainable = match target {
        Target::Preference { .. } | Target::ConversationPreference { .. } => sequences.iter().all(has_targets),
        _ => sequences.iter().any(has_targets),
    };
    if is_trainable {
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
    fn target_positions_precede_the_target_tokens() {
        let tokens = with_target_positions(vec![5, 6, 7, 8, 9], |row| row >= 3, 10);
        assert_eq!(
            (tokens.target_positions.clone(), next_token_ids(&tokens).collect::<Vec<_>>()),
            (vec![2, 3], vec![8, 9])
        );
        let tokens = with_target_positions(vec![5, 6, 7, 8, 9], |row| row >= 3, 4);
        assert_eq!((tokens.target_positions, tokens.truncated), (vec![2], true));
        let tokens = with_target_positions(vec![5, 6, 7, 8, 9], |row| row >= 3, 3);
        assert_eq!(check_trainable(&Target::Text, &[tokens]).unwrap_err().code(), "nothing_to_learn");
    }
}
