//! Validates and tokenizes the inputs of a predict request, and converts output rows into predictions.

use super::owner_queue::OutputRow;
use crate::serving::adapters::AdapterHandle;
use crate::serving::{LogitsOutput, LongInputs};
use espalier_core::error::{Error, FieldError, Problem, Result};
use espalier_core::model::{BaseModel, TextLimits, Tokens};
use espalier_core::task::{Embedding, Input, InputProblem, PostprocessContext, Prediction, Threshold};

/// Checks everything that needs no adapter.
///
/// # Errors
/// `Invalid`: `no_inputs`, `too_many_inputs`, or `empty_input` and `two_texts` with a pointer to each input.
pub fn validate(inputs: &[Input], max_inputs: usize) -> Result<()> {
    if inputs.is_empty() {
        return Err(Error::invalid("no_inputs", "\"inputs\" is empty: give at least one text"));
    }
    if inputs.len() > max_inputs {
        let detail = format!("{} inputs are too many for one request: send at most {max_inputs}", inputs.len());
        return Err(Error::invalid("too_many_inputs", detail));
    }
    let has_text_and_tokens =
        |input: &Input| input.tokens.is_some() && !(input.text.is_empty() && input.text_pair.is_none());
    reject_inputs(
        inputs,
        has_text_and_tokens,
        "two_texts",
        "give either \"text\" or \"tokens\", and no pair with tokens",
    )?;
    let is_blank = |text: &String| text.trim().is_empty();
    let blank = |input: &Input| match &input.tokens {
        None => is_blank(&input.text),
        Some(tokens) => tokens.is_empty() || tokens.iter().any(is_blank),
    };
    reject_inputs(inputs, blank, "empty_input", "there is no text in it, or in one of its tokens")
}

fn reject_inputs(
    inputs: &[Input],
    mut is_wrong: impl FnMut(&Input) -> bool,
    code: &'static str,
    message: &str,
) -> Result<()> {
    let invalid_inputs = inputs.iter().enumerate().filter(|(_, input)| is_wrong(input));
    let field_errors: Vec<FieldError> =
        invalid_inputs.map(|(index, _)| FieldError::at_pointer(format!("/inputs/{index}"), message)).collect();
    match field_errors.len() {
        0 => Ok(()),
        count => {
            let detail = format!("{count} of the inputs cannot be answered: {message}");
            Err(Error::Invalid(Problem::new(code, detail).with_errors(field_errors)))
        }
    }
}

/// Tokenizes the inputs and truncates them to the adapter's maximum length, or to the context length of the base model,
/// within the limits.
///
/// # Errors
/// `Invalid`: `no_predictions` for a generative task, `no_pairs` for a text pair given to a task that reads one text,
/// `no_mask` for a masked-language-model input without a mask token, `text_too_long`, `input_too_long` for an input that would be
/// truncated and must not be.
pub fn tokenize(
    base: &BaseModel,
    handle: &AdapterHandle,
    inputs: &[Input],
    limits: TextLimits,
    long_inputs: LongInputs,
) -> Result<Vec<Tokens>> {
    let Some(adapter) = handle.loaded() else {
        let encode =
            |input: &Input| base.tokenizer().encode_within(&input.joined_text(), input.text_pair.as_deref(), limits);
        let tokens = encode_each(inputs, encode)?;
        reject_truncated(inputs, &tokens, limits.max_length, long_inputs)?;
        return Ok(tokens);
    };
    if adapter.manifest.task.is_generative() {
        let name = adapter.manifest.task.type_name();
        let detail = format!("an adapter for {name} generates text: use POST /generate");
        return Err(Error::invalid("no_predictions", detail));
    }
    if !adapter.manifest.task.accepts_text_pairs() {
        let name = adapter.manifest.task.type_name();
        let message =
            format!("an adapter for {name} reads one text: leave \"text_pair\" out, or send it as an input of its own");
        reject_inputs(inputs, |input| input.text_pair.is_some(), "no_pairs", &message)?;
    }
    let tokens = encode_each(inputs, |input| adapter.tokenize_within(base, input, limits))?;
    reject_truncated(inputs, &tokens, adapter.max_input_tokens(base), long_inputs)?;
    let problems: Vec<Option<InputProblem>> =
        tokens.iter().map(|tokens| adapter.manifest.task.input_problem(base.info(), tokens)).collect();
    if let Some(first) = problems.iter().flatten().next() {
        let mut has_problem = problems.iter().map(Option::is_some);
        reject_inputs(inputs, |_| has_problem.next().unwrap_or_default(), first.code, &first.message)?;
    }
    Ok(tokens)
}

/// Refuses inputs that were truncated, where the request does not want that.
fn reject_truncated(inputs: &[Input], tokens: &[Tokens], max_length: usize, long_inputs: LongInputs) -> Result<()> {
    if long_inputs == LongInputs::Truncate {
        return Ok(());
    }
    let mut is_truncated = tokens.iter().map(|tokens| tokens.truncated);
    let message = format!(
        "it has more than the {max_length} tokens that are read: shorten it, or leave \"truncate\" out to have it cut at the end"
    );
    reject_inputs(inputs, |_| is_truncated.next().unwrap_or_default(), "input_too_long", &message)
}

/// Threshold of each of the adapter's labels; empty where the request has none.
///
/// # Errors
/// `Invalid` (`no_threshold`, `unknown_label`).
pub fn resolve_thresholds(handle: &AdapterHandle, threshold: Option<&Threshold>) -> Result<Vec<Option<f32>>> {
    let Some(threshold) = threshold else { return Ok(Vec::new()) };
    let Some(adapter) = handle.loaded() else {
        let detail =
            "the base model computes embeddings and has no threshold: name an adapter, or leave \"threshold\" out";
        return Err(Error::invalid("no_threshold", detail));
    };
    let manifest = &adapter.manifest;
    let suggested = Some(&manifest.thresholds).filter(|thresholds| !thresholds.is_empty());
    manifest.task.resolve_threshold(&manifest.labels, suggested, threshold)
}

/// The tokens of each input. An error names the input.
fn encode_each(inputs: &[Input], encode: impl Fn(&Input) -> Result<Tokens>) -> Result<Vec<Tokens>> {
    let encode = |(index, input): (usize, &Input)| {
        encode(input).map_err(|error| match error {
            Error::Invalid(problem) => {
                let field_error = FieldError::at_pointer(format!("/inputs/{index}"), problem.detail.clone());
                Error::Invalid(problem.with_errors(vec![field_error]))
            }
            other => other,
        })
    };
    inputs.iter().enumerate().map(encode).collect()
}

/// How rows become predictions.
pub struct PostprocessOptions {
    /// Number of labels in `top`.
    pub top_k: usize,
    pub logits: LogitsOutput,
    /// Threshold of each label that has one; empty without any.
    pub thresholds: Vec<Option<f32>>,
}

/// Converts the row of each input.
///
/// # Errors
/// `Internal` for a row that is not finite.
pub fn postprocess_rows(
    base: &BaseModel,
    handle: &AdapterHandle,
    rows: Vec<OutputRow>,
    inputs: &[Input],
    options: &PostprocessOptions,
) -> Result<Vec<Prediction>> {
    rows.into_iter().zip(inputs).map(|(row, input)| postprocess_row(base, handle, row, input, options)).collect()
}

fn postprocess_row(
    base: &BaseModel,
    handle: &AdapterHandle,
    row: Vec<f32>,
    input: &Input,
    options: &PostprocessOptions,
) -> Result<Prediction> {
    if !row.iter().all(|value| value.is_finite()) {
        return Err(Error::internal("the model answered with a number that is not finite"));
    }
    let Some(adapter) = handle.loaded() else { return Ok(Prediction::Embedding(Embedding { embedding: row })) };
    let context = PostprocessContext {
        base,
        labels: &adapter.manifest.labels,
        temperature: adapter.manifest.temperature,
        top_k: options.top_k,
        include_logits: options.logits == LogitsOutput::Include,
        thresholds: &options.thresholds,
    };
    adapter.manifest.task.postprocess(&context, row, input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_core::error::Location;

    fn inputs(texts: &[&str]) -> Vec<Input> {
        texts.iter().map(|text| Input::from_text(*text)).collect()
    }

    #[test]
    fn each_input_without_text_is_reported() {
        let Error::Invalid(problem) = validate(&inputs(&["a", "", "b", " \n"]), 10).unwrap_err() else {
            panic!("must be invalid")
        };
        let locations: Vec<_> = problem.errors.into_iter().map(|fault| fault.location).collect();
        assert_eq!(locations, ["/inputs/1", "/inputs/3"].map(|pointer| Location::Pointer(pointer.to_string())));
        assert_eq!(problem.code, "empty_input");
    }

    #[test]
    fn no_inputs_and_too_many_inputs_are_rejected() {
        assert_eq!(validate(&[], 2).unwrap_err().code(), "no_inputs");
        assert_eq!(validate(&inputs(&["a", "b", "c"]), 2).unwrap_err().code(), "too_many_inputs");
        assert!(validate(&inputs(&["a", "b"]), 2).is_ok());
    }
}
