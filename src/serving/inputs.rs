//! What a request sends: checked, then made tokens. Knows nothing of queues or batches.

use super::resident::Resident;
use crate::error::{Error, Fault, Problem, Result};
use crate::model::{Base, Tokens};
use crate::task::Input;

/// # Errors
/// `Invalid`: `no_inputs`, `too_many_inputs`, or `empty_input` with a pointer to each.
pub fn check(inputs: &[Input], most: usize) -> Result<()> {
    if inputs.is_empty() {
        return Err(Error::invalid("no_inputs", "\"inputs\" is empty: give at least one text"));
    }
    if inputs.len() > most {
        let detail = format!("{} inputs are too many for one request: send at most {most}", inputs.len());
        return Err(Error::invalid("too_many_inputs", detail));
    }
    let blank = inputs.iter().enumerate().filter(|(_, input)| input.text.trim().is_empty());
    let fault = |index: usize| Fault::at_pointer(format!("/inputs/{index}"), "there is no text in it");
    let faults: Vec<Fault> = blank.map(|(index, _)| fault(index)).collect();
    match faults.len() {
        0 => Ok(()),
        count => {
            let detail = format!("{count} of the inputs have no text: leave them out");
            Err(Error::Invalid(Problem::new("empty_input", detail).with_faults(faults)))
        }
    }
}

/// At most as many tokens as the adapter was trained on, or as the bare base can read.
pub fn tokens(base: &Base, resident: &Resident, inputs: &[Input]) -> Result<Vec<Tokens>> {
    let most = resident.0.as_ref().map_or(base.info().max_tokens, |adapted| adapted.longest(base));
    let one = |input: &Input| base.tokenizer().encode(&input.text, input.text_pair.as_deref(), most);
    inputs.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Place;

    fn inputs(texts: &[&str]) -> Vec<Input> {
        texts.iter().map(|text| Input { text: text.to_string(), text_pair: None }).collect()
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
