//! What a text has to look like: JSON, JSON that fits a schema, or a regular expression. Of the tokens, those that would leave
//! the grammar are never chosen (Willard and Louf 2023).
//!
//! llguidance keeps the parser and says which tokens may come next (Koo et al. 2024); here they become masks. Knows nothing of
//! HTTP, nor of how a token is chosen.

use super::sampling::Mask;
use super::text::Alphabet;
use crate::error::{Context, Error, Fault, Problem, Result};
use crate::model::Base;
use llguidance::api::{StopReason, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::sync::{Arc, OnceLock};

/// White space between two parts of a JSON text: a space, or a new line with its indentation. It has an end, for a model that
/// is not sure what comes next would go on with it for ever.
const WHITE_SPACE: &str = r"\x20|\x0A[\x20\x09]{0,16}";

/// Longer tokens, in bytes, are not used within a grammar.
const LONGEST: usize = 255;

/// What a text has to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// Any JSON object.
    Object,
    /// JSON that fits this schema.
    Schema(Value),
    /// What this regular expression matches from end to end.
    Pattern(String),
}

/// Makes grammars for one base model; its vocabulary is read when the first is asked for.
pub struct Grammars {
    base: Arc<Base>,
    alphabet: Alphabet,
    factory: OnceLock<std::result::Result<ParserFactory, String>>,
}

impl Grammars {
    pub fn new(base: Arc<Base>, alphabet: Alphabet) -> Self {
        Self { base, alphabet, factory: OnceLock::new() }
    }

    /// # Errors
    /// `Invalid` with what is wrong with the schema or the expression, or not known here.
    pub fn grammar(&self, format: &Format) -> Result<Grammar> {
        let factory = self.factory.get_or_init(|| self.factory().map_err(|error| format!("{error:#}")));
        let factory = factory.as_ref().map_err(Error::internal)?;
        let grammar = match format {
            Format::Object => TopLevelGrammar::from_json_schema(with_white_space(json!({"type": "object"}))),
            Format::Schema(schema) => TopLevelGrammar::from_json_schema(with_white_space(schema.clone())),
            Format::Pattern(pattern) => TopLevelGrammar::from_regex(pattern),
        };
        let mut matcher = Matcher::new(factory.create_parser(grammar));
        if let Some(reason) = matcher.get_error() {
            return Err(refused(format, &reason));
        }
        // Nothing at all may be said where no text fits.
        matcher.compute_mask_or_eos().map_err(|error| refused(format, &error.to_string()))?;
        Ok(Grammar { matcher, vocabulary: self.base.info().vocabulary_size })
    }

    fn factory(&self) -> Result<ParserFactory> {
        let tokenizer = self.base.tokenizer();
        let (special, vocabulary) = (tokenizer.special(), self.base.info().vocabulary_size as u32);
        let spelled = |id: u32| {
            let token = tokenizer.token(id).unwrap_or_default();
            match special.contains(&id) {
                true => [&[TokTrie::SPECIAL_TOKEN_MARKER], token.as_bytes()].concat(),
                false => self.alphabet.bytes(&token),
            }
        };
        let mut words: Vec<Vec<u8>> = (0..vocabulary).map(spelled).collect();
        words.iter_mut().filter(|word| word.len() > LONGEST).for_each(Vec::clear);
        // A base that names no end gets one that it can never say.
        let mut ends = tokenizer.stops().to_vec();
        ends.retain(|id| *id < vocabulary);
        if ends.is_empty() {
            ends.push(vocabulary);
            words.push([&[TokTrie::SPECIAL_TOKEN_MARKER], "<end>".as_bytes()].concat());
        }
        let info = TokRxInfo::new(words.len() as u32, ends[0]);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let factory = ParserFactory::new_simple(&tokens).map_err(Error::internal);
        let mut factory = factory.context("reading the vocabulary for grammars")?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(factory)
    }
}

/// A schema may say otherwise under `x-guidance`.
fn with_white_space(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        object.entry("x-guidance").or_insert_with(|| json!({"whitespace_pattern": WHITE_SPACE}));
    }
    schema
}

fn refused(format: &Format, reason: &str) -> Error {
    let (pointer, what) = match format {
        Format::Object => ("/response_format", "a JSON object cannot be asked for"),
        Format::Schema(_) => ("/response_format/json_schema/schema", "the schema cannot be kept to"),
        Format::Pattern(_) => ("/response_format/pattern", "the pattern cannot be kept to"),
    };
    let reason: Vec<&str> = reason.split_whitespace().collect();
    let detail = format!("response_format: {what}: {}", reason.join(" "));
    let fault = Fault::at_pointer(pointer, what);
    Error::Invalid(Problem::new("invalid_format", detail).with_faults(vec![fault]))
}

/// Where a text stands in its grammar.
pub struct Grammar {
    matcher: Matcher,
    vocabulary: usize,
}

impl Grammar {
    /// The same place for another text, which shares nothing with this one.
    pub fn copy(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), vocabulary: self.vocabulary }
    }

    /// The tokens that may come next, the ends among them where the text may end here.
    ///
    /// # Errors
    /// `Invalid` where the grammar takes more work than is allowed.
    pub fn allowed(&mut self) -> Result<Mask> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|error| too_complex(&error.to_string()))?;
        Ok(Mask::from_words(self.vocabulary, mask.as_slice()))
    }

    /// Goes on by a token that was allowed; whether the text is complete, and nothing can follow.
    ///
    /// # Errors
    /// As [`Self::allowed`].
    pub fn push(&mut self, id: u32) -> Result<bool> {
        self.matcher.consume_token(id).map_err(|error| too_complex(&error.to_string()))?;
        match self.matcher.stop_reason() {
            StopReason::NotStopped => Ok(false),
            reason if reason.is_ok() => Ok(true),
            reason => Err(too_complex(&reason.to_string())),
        }
    }
}

fn too_complex(reason: &str) -> Error {
    let detail =
        format!("response_format: the grammar takes too much work in the middle of the text ({reason}): simplify it");
    Error::invalid("format_too_complex", detail)
}
