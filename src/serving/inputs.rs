//! What a request sends: checked, then made tokens. Knows nothing of queues or batches.

use super::resident::Resident;
use espalier_core::error::{Error, Fault, Problem, Result};
use espalier_core::model::{Base, Tokens};
use espalier_core::task::{self, Input};

/// # Errors
/// `Invalid`: `no_inputs`, `too_many_inputs`, or `empty_input` and `two_texts` with a pointer to each.
pub fn check(inputs: &[Input], most: usize) -> Result<()> {
    if inputs.is_empty() {
        return Err(Error::invalid("no_inputs", "\"inputs\" is empty: give at least one text"));
    }
    if inputs.len() > most {
        let detail = format!("{} inputs are too many for one request: send at most {most}", inputs.len());
        return Err(Error::invalid("too_many_inputs", detail));
    }
    let twice = |input: &Input| input.tokens.is_some() && !(input.text.is_empty() && input.text_pair.is_none());
    refuse(inputs, twice, "two_texts", "give either \"text\" or \"tokens\", and no pair with tokens")?;
    let is_blank = |text: &String| text.trim().is_empty();
    let blank = |input: &Input| match &input.tokens {
        None => is_blank(&input.text),
        Some(tokens) => tokens.is_empty() || tokens.iter().any(is_blank),
    };
    refuse(inputs, blank, "empty_input", "there is no text in it, or in one of its tokens")
}

fn refuse(inputs: &[Input], mut is_wrong: impl FnMut(&Input) -> bool, code: &'static str, what: &str) -> Result<()> {
    let wrong = inputs.iter().enumerate().filter(|(_, input)| is_wrong(input));
    let faults: Vec<Fault> = wrong.map(|(index, _)| Fault::at_pointer(format!("/inputs/{index}"), what)).collect();
    match faults.len() {
        0 => Ok(()),
        count => {
            let detail = format!("{count} of the inputs cannot be answered: {what}");
            Err(Error::Invalid(Problem::new(code, detail).with_faults(faults)))
        }
    }
}

/// At most as many tokens as the adapter was trained on, or as the bare base can read.
///
/// # Errors
/// `Invalid` (`no_pairs`, `no_mask`) where a pair of texts is given to a task that reads one, or nothing is hidden in a text
/// whose hidden words are asked for.
pub fn tokens(base: &Base, resident: &Resident, inputs: &[Input]) -> Result<Vec<Tokens>> {
    let Some(adapted) = &resident.0 else {
        let most = base.info().max_tokens;
        let one = |input: &Input| base.tokenizer().encode(&input.whole(), input.text_pair.as_deref(), most);
        return inputs.iter().map(one).collect();
    };
    if adapted.card.task.generates() {
        let name = adapted.card.task.name();
        let detail = format!("an adapter for {name} says what comes next: ask for it by POST /generate");
        return Err(Error::invalid("no_predictions", detail));
    }
    if !adapted.card.task.reads_pairs() {
        let name = adapted.card.task.name();
        let what = format!("an adapter for {name} reads one text: leave \"text_pair\" out, or ask for it by itself");
        refuse(inputs, |input| input.text_pair.is_some(), "no_pairs", &what)?;
    }
    let tokens: Vec<Tokens> = inputs.iter().map(|input| adapted.tokens(base, input)).collect::<Result<_>>()?;
    if let (task::Config::MaskedLanguageModel(_), Some(mask)) = (&adapted.card.task, &base.info().mask_token) {
        let maskless: Vec<bool> = tokens.iter().map(|tokens| tokens.picked.is_empty()).collect();
        let what = format!("put {mask} where a word is to be found, early enough to be read");
        let mut places = maskless.into_iter();
        refuse(inputs, |_| places.next().unwrap_or_default(), "no_mask", &what)?;
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use espalier_core::error::Place;

    fn inputs(texts: &[&str]) -> Vec<Input> {
        texts.iter().map(|text| Input::text(*text)).collect()
    }

    #[test]
    fn inputs_without_text_are_named_each() {
        let Error::Invalid(problem) = check(&inputs(&["a", "", "b", " \n"]), 10).unwrap_err() else {
            panic!("must be invalid")
        };
        let places: Vec<_> = problem.faults.into_iter().map(|fault| fault.place).collect();
        assert_eq!(places, ["/inputs/1", "/inputs/3"].map(|place| Place::Pointer(place.to_string())));
        assert_eq!(problem.code, "empty_input");
    }

    #[test]
    fn no_inputs_and_too_many_are_refused() {
        assert_eq!(check(&[], 2).unwrap_err().code(), "no_inputs");
        assert_eq!(check(&inputs(&["a", "b", "c"]), 2).unwrap_err().code(), "too_many_inputs");
        assert!(check(&inputs(&["a", "b"]), 2).is_ok());
    }
}
