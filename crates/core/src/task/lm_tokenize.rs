//! Tokenization of texts for the tasks that train a causal language model on next tokens.

use super::Conversation;
use crate::error::{Error, Result};
use crate::model::{Tokenizer, Tokens};

/// Token ids that follow the target positions: the labels of the language model's loss.
pub fn next_token_ids(tokens: &Tokens) -> impl Iterator<Item = u32> {
    tokens.target_positions.iter().map(|row| tokens.ids[*row as usize + 1])
}

/// Prompt, completion and end token, of which the completion and the end token are learned.
pub fn tokenize_completion(tokenizer: &Tokenizer, prompt: &str, completion: &str, max_length: usize) -> Result<Tokens> {
    let prompt_ids = tokenizer.encode_prompt(prompt)?;
    let ids = with_eos(tokenizer, tokenizer.encode_completion(&prompt_ids, prompt, completion)?);
    Ok(with_target_positions(ids, |row| row >= prompt_ids.len(), max_length))
}

/// Conversation rendered by the base's chat template, of which the assistant's messages are learned.
///
/// # Errors
/// `Invalid` where the template refuses the conversation.
pub fn tokenize_conversation(tokenizer: &Tokenizer, conversation: &Conversation, max_length: usize) -> Result<Tokens> {
    let (ids, is_target) = tokenizer.encode_conversation(&conversation.messages, conversation.tools.as_ref())?;
    Ok(with_target_positions(ids, |row| is_target[row], max_length))
}

/// Raw text of any length, cut into windows: each begins with the last token of the one before it.
pub fn tokenize_windows(tokenizer: &Tokenizer, text: &str, max_length: usize) -> Result<Vec<Tokens>> {
    let ids = with_eos(tokenizer, tokenizer.encode_prompt(text)?);
    let stride = max_length.max(2) - 1;
    let starts = (0..ids.len().saturating_sub(1).max(1)).step_by(stride);
    let window = |start: usize| {
        with_target_positions(ids[start..ids.len().min(start + stride + 1)].to_vec(), |_| true, max_length.max(2))
    };
    Ok(starts.map(window).collect())
}

/// Whether any token of the sequence is learned.
pub fn has_targets(tokens: &Tokens) -> bool {
    !tokens.target_positions.is_empty()
}

/// Error for an example whose sequences have no target positions.
pub fn nothing_to_learn(sequences: &[Tokens]) -> Error {
    let detail = match sequences.iter().any(|tokens| tokens.truncated) {
        true => {
            "all tokens to learn are behind the first `max_length` tokens: shorten the prompt, or raise `max_length`"
        }
        false => "it has no tokens to learn: no message of the assistant with a weight, and no text after a prompt",
    };
    Error::invalid("nothing_to_learn", detail)
}

/// Appends the token that ends a text, where it is missing.
fn with_eos(tokenizer: &Tokenizer, mut ids: Vec<u32>) -> Vec<u32> {
    ids.extend(tokenizer.eos().filter(|end| ids.last() != Some(end)));
    ids
}

/// At most `max_length` tokens. `is_target` decides for each token whether it is predicted from those before it.
fn with_target_positions(mut ids: Vec<u32>, is_target: impl Fn(usize) -> bool, max_length: usize) -> Tokens {
    let truncated = ids.len() > max_length;
    ids.truncate(max_length);
    let target_positions = (1..ids.len()).filter(|row| is_target(*row)).map(|row| row as u32 - 1).collect();
    Tokens { target_positions, truncated, ..Tokens::from_ids(ids) }
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
        assert!(!has_targets(&tokens));
        assert_eq!(nothing_to_learn(&[tokens]).code(), "nothing_to_learn");
    }
}
