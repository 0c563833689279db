//! What a text has to look like: JSON, JSON that fits a schema, or a regular expression. Of the tokens, those that would leave
//! the grammar are never chosen (Willard and Louf 2023).
//!
//! llguidance keeps the parser and says which tokens may come next (Koo et al. 2024); here they become masks. Knows nothing of
//! HTTP, nor of how a token is chosen.

use super::sampling::Mask;
use super::text::Alphabet;
use espalier_core::error::{Context, Error, Fault, Problem, Result};
use espalier_core::model::Base;
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

/// What a schema may have: values of any kind, and references among them. The compiler goes as deep as they lead.
const MOST_VALUES: usize = 20_000;
const MOST_REFERENCES: usize = 500;
/// Bytes of the stack that it has for that; what is not used costs nothing.
const STACK: usize = 256 << 20;

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
        if let Format::Schema(schema) = format
            && let Some(reason) = too_large(schema)
        {
            return Err(refused(format, &reason));
        }
        std::thread::scope(|scope| {
            let work = || self.compiled(format);
            let thread = std::thread::Builder::new().name("grammar".to_string()).stack_size(STACK);
            let compiled = thread.spawn_scoped(scope, work).context("starting a thread for a grammar")?.join();
            compiled.unwrap_or_else(|_| Err(refused(format, PANIC)))
        })
    }

    fn compiled(&self, format: &Format) -> Result<Grammar> {
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
        let mut ends = tokenizer.stops().to_vec();
        ends.retain(|id| *id < vocabulary);
        let spelled = |id: u32| {
            let token = tokenizer.token(id).unwrap_or_default();
            // What ends a text is none of it, whatever the vocabulary says.
            match special.contains(&id) || ends.contains(&id) {
                true => [&[TokTrie::SPECIAL_TOKEN_MARKER], token.as_bytes()].concat(),
                false => self.alphabet.bytes(&token),
            }
        };
        let mut words: Vec<Vec<u8>> = (0..vocabulary).map(spelled).collect();
        words.iter_mut().filter(|word| word.len() > LONGEST).for_each(Vec::clear);
        // A base that names no end gets one that it can never say.
        if ends.is_empty() {
            ends.push(vocabulary);
            words.push([&[TokTrie::SPECIAL_TOKEN_MARKER], "<end>".as_bytes()].concat());
        }
        let info = TokRxInfo::new(words.len() as u32, ends[0]);
        let trie = TokTrie::from(&info, &words).with_eos_tokens(&ends);
        let tokens: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let factory = ParserFactory::new_simple(&tokens).map_err(Error::internal);
        let mut factory = factory.context("reading the vocabulary for grammars")?;
        let limits = factory.quiet().limits_mut();
        limits.verbose_errors = false;
        // A few milliseconds at a step, for which the neighbours wait, and some tens of MB.
        (limits.step_lexer_fuel, limits.step_max_items, limits.max_lexer_states) = (50_000, 20_000, 20_000);
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
    let detail = format!("response_format: {what}: {}", told(reason));
    let fault = Fault::at_pointer(pointer, what);
    Error::Invalid(Problem::new("invalid_format", detail).with_faults(vec![fault]))
}

/// What is said where the compiler fails on something that it does not expect.
const PANIC: &str = "panic: ";

/// The compiler's words, without what is meant for its own developers.
fn told(reason: &str) -> String {
    if reason.starts_with(PANIC) {
        return "something in it is not understood".to_string();
    }
    let reason = reason.split("\n<").next().unwrap_or_default();
    reason.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Why a schema is too large to be compiled, if it is.
fn too_large(schema: &Value) -> Option<String> {
    let (mut open, mut values, mut references) = (vec![schema], 0, 0);
    while let Some(value) = open.pop() {
        values += 1;
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(fields) => {
                references += usize::from(fields.contains_key("$ref"));
                open.extend(fields.values());
            }
            _ => {}
        }
    }
    (values > MOST_VALUES || references > MOST_REFERENCES).then(|| {
        format!(
            "it has {values} values and {references} references; {MOST_VALUES} and {MOST_REFERENCES} are read at most"
        )
    })
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
    let detail = format!(
        "response_format: the grammar takes too much work in the middle of the text ({}): simplify it",
        told(reason)
    );
    Error::invalid("format_too_complex", detail)
}
