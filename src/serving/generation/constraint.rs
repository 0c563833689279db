//! Constrained decoding: JSON, JSON that fits a schema, a regular expression, or calls of tools (Willard and Louf 2023).
//!
//! llguidance parses the text and computes the tokens that may follow (Koo et al. 2024); they become a mask of the sampler.

use super::constraint_spec::{ConstraintSpec, OtherText, ToolSpec};
use super::grammar;
use super::sampling::TokenMask;
use super::token_encoding::TokenByteEncoding;
use espalier_core::error::{Context, Error, Result};
use espalier_core::model::BaseModel;
use llguidance::api::{StopReason, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

/// Longer tokens, in bytes, are never allowed by a constraint.
const MAX_TOKEN_BYTES: usize = 255;

/// Memory of a compiled constraint besides its lexer, in bytes: at least, and per byte of its text. Measured with schemas of 400
/// properties.
const MIN_COMPILED_BYTES: usize = 16 << 10;
const COMPILED_BYTES_PER_TEXT_BYTE: usize = 64;

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
    /// `Invalid` (`invalid_format`) if a schema or the expression is wrong or unsupported.
    pub fn compile(&self, spec: &ConstraintSpec) -> Result<TokenConstraint> {
        let parser_factory =
            self.parser_factory.get_or_init(|| self.build_parser_factory().map_err(|error| format!("{error:#}")));
        let parser_factory = parser_factory.as_ref().map_err(Error::internal)?;
        let special_ids = self.base.tokenizer().special_ids();
        let special_token_id =
            |token: &str| self.base.tokenizer().token_to_id(token).filter(|id| special_ids.contains(id));
        let compiled = compile_grammar(parser_factory, grammar::build(spec, &special_token_id));
        let (matcher, lexer_bytes) = compiled.map_err(|reason| locate_error(parser_factory, spec, &reason))?;
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

/// Returns the parser and the bytes of its lexer, or why the grammar cannot be used.
fn compile_grammar(
    parser_factory: &ParserFactory,
    grammar: TopLevelGrammar,
) -> std::result::Result<(Matcher, usize), String> {
    let compile = || {
        let parser = parser_factory.create_parser(grammar);
        // Shares the states of the lexer, to which the first mask adds.
        let lexer = parser.as_ref().ok().map(|parser| parser.parser.clone());
        let mut matcher = Matcher::new(parser);
        if let Some(reason) = matcher.get_error() {
            return Err(user_message(&reason));
        }
        // Fails if no text matches.
        matcher.compute_mask_or_eos().map_err(|error| user_message(&error.to_string()))?;
        Ok((matcher, lexer.map_or(0, |parser| parser.lexer_stats().num_bytes)))
    };
    catch_unwind(AssertUnwindSafe(compile)).unwrap_or_else(|_| Err(UNSUPPORTED.to_string()))
}

/// Error of a constraint; for calls of tools that of the response format or of the first tool whose schema cannot be used.
fn locate_error(parser_factory: &ParserFactory, spec: &ConstraintSpec, reason: &str) -> Error {
    let ConstraintSpec::ToolCalls(calls) = spec else { return spec.invalid(reason) };
    if let OtherText::Format(format) = &calls.other_text
        && let Err(reason) = compile_grammar(parser_factory, grammar::build(format, &|_| None))
    {
        return format.invalid(&reason);
    }
    let tool_error = |tool: &ToolSpec| {
        let compiled = compile_grammar(parser_factory, grammar::parameters(tool));
        compiled.err().map(|reason| tool.invalid(&reason))
    };
    calls.tools.iter().find_map(tool_error).unwrap_or_else(|| spec.invalid(reason))
}

/// Reason when the compiler panicked.
const UNSUPPORTED: &str = "it contains something unsupported";

/// The compiler's message without debugging output.
fn user_message(reason: &str) -> String {
    let reason = reason.split("\n<").next().unwrap_or_default();
    reason.split_whitespace().collect::<Vec<_>>().join(" ")
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
        "the grammar of response_format or tools takes too much work in the middle of the text ({}): simplify it",
        user_message(reason)
    );
    Error::invalid("format_too_complex", detail)
}
