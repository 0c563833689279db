//! Constrained decoding: JSON, JSON that fits a schema, or a regular expression (Willard and Louf 2023).
//!
//! llguidance parses the text and computes the tokens that may follow (Koo et al. 2024); they become a mask of the sampler.

use super::sampling::TokenMask;
use super::token_encoding::TokenByteEncoding;
use espalier_core::error::{Context, Error, FieldError, Problem, Result};
use espalier_core::model::BaseModel;
use llguidance::api::{StopReason, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

/// White space between two JSON tokens: a space, or a line break with indentation. It is bounded, because an uncertain model
/// would generate white space without end.
const JSON_WHITESPACE: &str = r"\x20|\x0A[\x20\x09]{0,16}";

/// Longer tokens, in bytes, are never allowed by a constraint.
const MAX_TOKEN_BYTES: usize = 255;

/// Limits of a schema: its values of any kind, and the references among them. The compiler recurses through both.
const MAX_SCHEMA_VALUES: usize = 20_000;
const MAX_SCHEMA_REFERENCES: usize = 500;
/// Memory of a compiled constraint besides its lexer, in bytes: at least, and per byte of its text. Measured with schemas of 400
/// properties.
const MIN_COMPILED_BYTES: usize = 16 << 10;
const COMPILED_BYTES_PER_TEXT_BYTE: usize = 64;
/// Limit of the texts in a schema, and of a regular expression, in bytes.
const MAX_SPEC_BYTES: usize = 256 << 10;

/// Format of the generated text.
#[derive(Debug, Clone, PartialEq)]
pub enum ConstraintSpec {
    /// Any JSON object.
    JsonObject,
    /// JSON that fits this schema.
    JsonSchema(Value),
    /// Text that this regular expression matches as a whole.
    Regex(String),
}

/// Compiles constraints for one base model. Its vocabulary is read at the first use.
pub struct ConstraintFactory {
    base: Arc<BaseModel>,
    token_encoding: TokenByteEncoding,
    parser_factory: OnceLock<std::result::Result<ParserFactory, String>>,
}

impl ConstraintFactory {
    pub fn new(base: Arc<BaseModel>, token_encoding: TokenByteEncoding) -> Self {
        Self { base, token_encoding, parser_factory: OnceLock::new() }
    }

    /// Compiles on this thread, which needs a large stack: the compiler recurses through the schema.
    ///
    /// # Errors
    /// `Invalid` (`invalid_format`) if the schema or expression is wrong or unsupported.
    pub fn compile(&self, spec: &ConstraintSpec) -> Result<TokenConstraint> {
        let compile = || self.compile_unchecked(spec);
        catch_unwind(AssertUnwindSafe(compile)).unwrap_or_else(|_| Err(invalid_format(spec, PANIC_PREFIX)))
    }

    fn compile_unchecked(&self, spec: &ConstraintSpec) -> Result<TokenConstraint> {
        let parser_factory =
            self.parser_factory.get_or_init(|| self.build_parser_factory().map_err(|error| format!("{error:#}")));
        let parser_factory = parser_factory.as_ref().map_err(Error::internal)?;
        let grammar = match spec {
            ConstraintSpec::JsonObject => {
                TopLevelGrammar::from_json_schema(with_json_whitespace(json!({"type": "object"})))
            }
            ConstraintSpec::JsonSchema(schema) => {
                TopLevelGrammar::from_json_schema(with_json_whitespace(schema.clone()))
            }
            ConstraintSpec::Regex(pattern) => TopLevelGrammar::from_regex(pattern),
        };
        let parser = parser_factory.create_parser(grammar);
        // Shares the states of the lexer, to which the first mask adds.
        let lexer = parser.as_ref().ok().map(|parser| parser.parser.clone());
        let mut matcher = Matcher::new(parser);
        if let Some(reason) = matcher.get_error() {
            return Err(invalid_format(spec, &reason));
        }
        // Fails if no text matches.
        matcher.compute_mask_or_eos().map_err(|error| invalid_format(spec, &error.to_string()))?;
        let lexer_bytes = lexer.map_or(0, |parser| parser.lexer_stats().num_bytes);
        let bytes = (lexer_bytes + MIN_COMPILED_BYTES + spec.text_bytes() * COMPILED_BYTES_PER_TEXT_BYTE) as u64;
        Ok(TokenConstraint { matcher, vocabulary_size: self.base.info().vocabulary_size, bytes })
    }

    fn build_parser_factory(&self) -> Result<ParserFactory> {
        let tokenizer = self.base.tokenizer();
        let (special_ids, vocabulary_size) = (tokenizer.special_ids(), self.base.info().vocabulary_size as u32);
        let mut eos_ids = tokenizer.eos_ids().to_vec();
        eos_ids.retain(|id| *id < vocabulary_size);
        let token_bytes = |id: u32| {
            let token = tokenizer.id_to_token(id).unwrap_or_default();
            // An end token is not text, whatever the vocabulary says.
            match special_ids.contains(&id) || eos_ids.contains(&id) {
                true => [&[TokTrie::SPECIAL_TOKEN_MARKER], token.as_bytes()].concat(),
                false => self.token_encoding.decode_token(&token),
            }
        };
        let mut vocabulary_bytes: Vec<Vec<u8>> = (0..vocabulary_size).map(token_bytes).collect();
        vocabulary_bytes.iter_mut().filter(|bytes| bytes.len() > MAX_TOKEN_BYTES).for_each(Vec::clear);
        // A base model without an end token gets one that the sampler can never select.
        if eos_ids.is_empty() {
            eos_ids.push(vocabulary_size);
            vocabulary_bytes.push([&[TokTrie::SPECIAL_TOKEN_MARKER], "<end>".as_bytes()].concat());
        }
        let info = TokRxInfo::new(vocabulary_bytes.len() as u32, eos_ids[0]);
        let trie = TokTrie::from(&info, &vocabulary_bytes).with_eos_tokens(&eos_ids);
        let token_env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let factory = ParserFactory::new_simple(&token_env).map_err(Error::internal);
        let mut factory = factory.context("reading the vocabulary for constraints")?;
        let limits = factory.quiet().limits_mut();
        limits.verbose_errors = false;
        // Bounds a step to a few milliseconds, which delay the whole batch, and the memory to some tens of MB.
        (limits.step_lexer_fuel, limits.step_max_items, limits.max_lexer_states) = (50_000, 20_000, 20_000);
        Ok(factory)
    }
}

/// Adds the white space rule, unless the schema sets another one under `x-guidance`.
fn with_json_whitespace(mut schema: Value) -> Value {
    if let Some(object) = schema.as_object_mut() {
        object.entry("x-guidance").or_insert_with(|| json!({"whitespace_pattern": JSON_WHITESPACE}));
    }
    schema
}

fn invalid_format(spec: &ConstraintSpec, reason: &str) -> Error {
    let (pointer, message) = match spec {
        ConstraintSpec::JsonObject => ("/response_format", "a JSON object cannot be generated"),
        ConstraintSpec::JsonSchema(_) => ("/response_format/json_schema/schema", "the schema cannot be used"),
        ConstraintSpec::Regex(_) => ("/response_format/pattern", "the pattern cannot be used"),
    };
    let detail = format!("response_format: {message}: {}", user_message(reason));
    let field_error = FieldError::at_pointer(pointer, message);
    Error::Invalid(Problem::new("invalid_format", detail).with_errors(vec![field_error]))
}

/// Start of the reason when the compiler panicked.
const PANIC_PREFIX: &str = "panic: ";

/// The compiler's message without debugging output.
fn user_message(reason: &str) -> String {
    if reason.starts_with(PANIC_PREFIX) {
        return "it contains something unsupported".to_string();
    }
    let reason = reason.split("\n<").next().unwrap_or_default();
    reason.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl ConstraintSpec {
    /// Size of the schema or expression as text.
    fn text_bytes(&self) -> usize {
        match self {
            Self::JsonObject => 0,
            Self::JsonSchema(schema) => schema.to_string().len(),
            Self::Regex(pattern) => pattern.len(),
        }
    }

    /// Checks that the constraint is not too large to compile. Takes bounded time, whatever the size.
    ///
    /// # Errors
    /// `Invalid` (`invalid_format`).
    pub fn check_size(&self) -> Result<()> {
        let reason = match self {
            Self::JsonObject => None,
            Self::JsonSchema(schema) => schema_size_error(schema),
            Self::Regex(pattern) => (pattern.len() > MAX_SPEC_BYTES)
                .then(|| format!("it has {} bytes; {MAX_SPEC_BYTES} are read at most", pattern.len())),
        };
        reason.map_or(Ok(()), |reason| Err(invalid_format(self, &reason)))
    }
}

/// Why a schema is too large to compile; `None` if it is not. Counting ends at the first limit that is exceeded.
fn schema_size_error(schema: &Value) -> Option<String> {
    let (mut pending, mut values, mut references, mut bytes) = (vec![schema], 0, 0, 0);
    while let Some(value) = pending.pop() {
        values += 1;
        match value {
            Value::Array(items) => pending.extend(items.iter().take(MAX_SCHEMA_VALUES + 1)),
            Value::Object(fields) => {
                references += usize::from(fields.contains_key("$ref"));
                let fields = fields.iter().take(MAX_SCHEMA_VALUES + 1);
                pending.extend(fields.map(|(key, value)| {
                    bytes += key.len();
                    value
                }));
            }
            Value::String(text) => bytes += text.len(),
            _ => {}
        }
        if values + pending.len() > MAX_SCHEMA_VALUES || references > MAX_SCHEMA_REFERENCES || bytes > MAX_SPEC_BYTES {
            return Some(format!(
                "{MAX_SCHEMA_VALUES} values, {MAX_SCHEMA_REFERENCES} references and {MAX_SPEC_BYTES} bytes of text are read at \
                 most"
            ));
        }
    }
    None
}

/// Parser state of one sequence.
pub struct TokenConstraint {
    matcher: Matcher,
    vocabulary_size: usize,
    bytes: u64,
}

impl TokenConstraint {
    /// Copies the state for another sequence.
    pub fn fork(&self) -> Self {
        Self { matcher: self.matcher.deep_clone(), ..*self }
    }

    /// Approximate memory in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the tokens that may follow; end tokens are allowed if the text may end here.
    ///
    /// # Errors
    /// `Invalid` (`format_too_complex`) if the parser exceeds its limits.
    pub fn allowed_tokens(&mut self) -> Result<TokenMask> {
        let mask = self.matcher.compute_mask_or_eos().map_err(|error| too_complex_error(&error.to_string()))?;
        Ok(TokenMask::from_u32_words(self.vocabulary_size, mask.as_slice()))
    }

    /// Advances by an allowed token. Returns whether the text is complete and nothing can follow.
    ///
    /// # Errors
    /// `Invalid` (`format_too_complex`) if the parser exceeds its limits.
    pub fn accept_token(&mut self, id: u32) -> Result<bool> {
        self.matcher.consume_token(id).map_err(|error| too_complex_error(&error.to_string()))?;
        match self.matcher.stop_reason() {
            StopReason::NotStopped => Ok(false),
            reason if reason.is_ok() => Ok(true),
            reason => Err(too_complex_error(&reason.to_string())),
        }
    }
}

fn too_complex_error(reason: &str) -> Error {
    let detail = format!(
        "response_format: the grammar takes too much work in the middle of the text ({}): simplify it",
        user_message(reason)
    );
    Error::invalid("format_too_complex", detail)
}
