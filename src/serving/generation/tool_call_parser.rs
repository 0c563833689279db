//! Finds calls of tools in generated text, as it is generated. The events are the same wherever the text is cut, but for the cuts in
//! contents and arguments.

#[cfg(test)]
mod tests;

use super::json_object_scanner::{JsonObjectScanner, Scan};
use espalier_core::model::chat::tool_calls::ToolCallSyntax;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolCallEvent {
    Content(String),
    /// A call begins. Its arguments follow.
    Call {
        name: String,
    },
    /// Piece of the arguments of the last call, as JSON text.
    Arguments(String),
}

/// When the arguments of a call are known to be JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arguments {
    /// Once the call is complete: until then it may turn out to be none, and stays content.
    Unconstrained,
    /// At once, because the text is generated with a constraint for calls.
    Constrained,
}

/// Parser of one answer.
#[derive(Debug, Clone)]
pub struct ToolCallParser {
    syntax: &'static ToolCallSyntax,
    tool_names: Vec<String>,
    arguments: Arguments,
    state: State,
    /// Text that is not a part of an event yet.
    pending: String,
    /// Whether there was nothing but white space so far.
    is_at_start: bool,
    /// Whether a call ended, and nothing but white space followed.
    follows_call: bool,
    call_count: usize,
}

#[derive(Debug, Clone)]
enum State {
    Content,
    /// After the marker, or after a call that another may follow. `skipped` is the text since the last event.
    BetweenCalls {
        skipped: String,
        is_first: bool,
    },
    /// In a call that is not delivered yet.
    Call {
        skipped: String,
        scanner: JsonObjectScanner,
    },
    /// In arguments that are delivered as they come.
    Arguments(JsonObjectScanner),
    /// After them, before the brace that ends the call.
    CallEnd,
}

/// Whether more text follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Complete,
}

/// Whether a step made progress, or waits for more text.
#[derive(PartialEq, Eq)]
enum Progress {
    Made,
    Waits,
}

impl ToolCallParser {
    /// `tool_names` are those that may be called; a call of another one is content.
    pub fn new(syntax: &'static ToolCallSyntax, tool_names: Vec<String>, arguments: Arguments) -> Self {
        Self {
            syntax,
            tool_names,
            arguments,
            state: State::Content,
            pending: String::new(),
            is_at_start: true,
            follows_call: false,
            call_count: 0,
        }
    }

    /// Number of calls so far.
    pub fn call_count(&self) -> usize {
        self.call_count
    }

    /// Whether the text ended inside the arguments of a call.
    pub fn is_inside_call(&self) -> bool {
        matches!(self.state, State::Arguments(_))
    }

    /// Appends text.
    pub fn push(&mut self, text: &str) -> Vec<ToolCallEvent> {
        self.pending.push_str(text);
        self.read_events(Input::Open)
    }

    /// Ends the text. A call that is not complete is content.
    pub fn finish(&mut self) -> Vec<ToolCallEvent> {
        self.read_events(Input::Complete)
    }

    /// Events of the text that can be read so far.
    fn read_events(&mut self, input: Input) -> Vec<ToolCallEvent> {
        let mut events = Vec::new();
        while self.step(input, &mut events) == Progress::Made {}
        events
    }

    fn step(&mut self, input: Input, events: &mut Vec<ToolCallEvent>) -> Progress {
        match std::mem::replace(&mut self.state, State::Content) {
            State::Content => self.step_content(input, events),
            State::BetweenCalls { skipped, is_first } => self.step_between_calls(skipped, is_first, input, events),
            State::Call { skipped, scanner } => self.step_call(skipped, scanner, input, events),
            State::Arguments(scanner) => self.step_arguments(scanner, events),
            State::CallEnd => self.step_call_end(input),
        }
    }

    fn step_content(&mut self, input: Input, events: &mut Vec<ToolCallEvent>) -> Progress {
        let without_space = self.pending.trim_start();
        if self.syntax.start_is_optional && self.is_at_start && without_space.starts_with('{') {
            self.pending = without_space.to_string();
            self.state = State::Call { skipped: String::new(), scanner: JsonObjectScanner::default() };
            return Progress::Made;
        }
        let marker = self.syntax.start;
        if let Some(at) = self.pending.find(marker) {
            let rest = self.pending.split_off(at + marker.len());
            let mut content = std::mem::replace(&mut self.pending, rest);
            let skipped = content.split_off(content[..at].trim_end().len());
            self.add_content(&content, events);
            self.state = State::BetweenCalls { skipped, is_first: true };
            return Progress::Made;
        }
        let kept = match input {
            Input::Open => undecided_bytes(&self.pending, marker),
            Input::Complete => 0,
        };
        let rest = self.pending.split_off(self.pending.len() - kept);
        let content = std::mem::replace(&mut self.pending, rest);
        self.add_content(&content, events);
        Progress::Waits
    }

    fn step_between_calls(
        &mut self,
        mut skipped: String,
        is_first: bool,
        input: Input,
        events: &mut Vec<ToolCallEvent>,
    ) -> Progress {
        let Some(next) = self.pending.chars().next() else {
            if input == Input::Complete && is_first {
                self.add_content(&skipped, events);
                return Progress::Waits;
            }
            self.state = State::BetweenCalls { skipped, is_first };
            return Progress::Waits;
        };
        if next == '{' {
            self.state = State::Call { skipped, scanner: JsonObjectScanner::default() };
            return Progress::Made;
        }
        let ToolCallSyntax { start, start_is_optional, is_list, .. } = *self.syntax;
        let is_after_start = || skipped.split_once(start).is_some_and(|(_, after)| after.trim().is_empty());
        let opens_list = is_list && is_first && next == '[' && is_after_start();
        let separates = !is_first && (next == ';' && start_is_optional || next == ',' && is_list);
        if next.is_whitespace() || opens_list || separates {
            self.pending.drain(..next.len_utf8());
            skipped.push(next);
            self.state = State::BetweenCalls { skipped, is_first };
            return Progress::Made;
        }
        if !is_first {
            return self.end_calls(skipped, input);
        }
        self.add_content(&skipped, events);
        Progress::Made
    }

    /// Skips what ends the calls, if it is there.
    fn end_calls(&mut self, skipped: String, input: Input) -> Progress {
        let end = self.syntax.end.unwrap_or(if self.syntax.is_list { "]" } else { "" });
        match self.pending.strip_prefix(end) {
            Some(rest) => self.pending = rest.to_string(),
            None if input == Input::Open && end.starts_with(&self.pending) => {
                self.state = State::BetweenCalls { skipped, is_first: false };
                return Progress::Waits;
            }
            None => {}
        }
        Progress::Made
    }

    fn step_call(
        &mut self,
        skipped: String,
        mut scanner: JsonObjectScanner,
        input: Input,
        events: &mut Vec<ToolCallEvent>,
    ) -> Progress {
        if let Some((name, head)) = self.constrained_head() {
            if self.pending.starts_with(&head) {
                self.pending.drain(..head.len());
                self.begin_call(name, events);
                self.state = State::Arguments(JsonObjectScanner::default());
                return Progress::Made;
            }
            if input == Input::Open {
                self.state = State::Call { skipped, scanner };
                return Progress::Waits;
            }
        }
        let text_end = match scanner.advance(&self.pending) {
            Scan::Inside if input == Input::Open => {
                self.state = State::Call { skipped, scanner };
                return Progress::Waits;
            }
            Scan::Inside => self.pending.len(),
            Scan::Broken(at) => at,
            Scan::End(at) => match self.parse_call(&self.pending[..at]) {
                Some((name, arguments)) => {
                    self.pending.drain(..at);
                    self.begin_call(name, events);
                    events.push(ToolCallEvent::Arguments(arguments));
                    self.end_call();
                    return Progress::Made;
                }
                None => at,
            },
        };
        let text: String = self.pending.drain(..text_end).collect();
        self.add_content(&(skipped + &text), events);
        if self.pending.is_empty() { Progress::Waits } else { Progress::Made }
    }

    /// Name and head of the constrained call that the pending text begins with, or that it is the beginning of.
    fn constrained_head(&self) -> Option<(String, String)> {
        let names = self.tool_names.iter().filter(|_| self.arguments == Arguments::Constrained);
        let mut heads = names.map(|name| (name.clone(), self.syntax.call_head(name)));
        heads.find(|(_, head)| self.pending.starts_with(head) || head.starts_with(&self.pending))
    }

    fn step_arguments(&mut self, mut scanner: JsonObjectScanner, events: &mut Vec<ToolCallEvent>) -> Progress {
        let scan = scanner.advance(&self.pending);
        let (end, progress) = match scan {
            Scan::Inside => (self.pending.len(), Progress::Waits),
            Scan::End(at) | Scan::Broken(at) => (at, Progress::Made),
        };
        if end > 0 {
            events.push(ToolCallEvent::Arguments(self.pending.drain(..end).collect()));
        }
        self.state = match progress {
            Progress::Waits => State::Arguments(scanner.with_drained(end)),
            Progress::Made => State::CallEnd,
        };
        progress
    }

    fn step_call_end(&mut self, input: Input) -> Progress {
        let rest = self.pending.trim_start();
        if rest.is_empty() && input == Input::Open {
            self.state = State::CallEnd;
            return Progress::Waits;
        }
        self.pending = rest.strip_prefix('}').unwrap_or(rest).to_string();
        self.end_call();
        Progress::Made
    }

    fn begin_call(&mut self, name: String, events: &mut Vec<ToolCallEvent>) {
        events.push(ToolCallEvent::Call { name });
        self.call_count += 1;
    }

    fn end_call(&mut self) {
        (self.is_at_start, self.follows_call) = (false, true);
        self.state = State::BetweenCalls { skipped: String::new(), is_first: false };
    }

    /// White space right after a call is not content.
    fn add_content(&mut self, content: &str, events: &mut Vec<ToolCallEvent>) {
        let content = if self.follows_call { content.trim_start() } else { content };
        if content.is_empty() {
            return;
        }
        self.is_at_start &= content.trim_start().is_empty();
        self.follows_call = false;
        match events.last_mut() {
            Some(ToolCallEvent::Content(previous)) => previous.push_str(content),
            _ => events.push(ToolCallEvent::Content(content.to_string())),
        }
    }

    /// Name and arguments of a written call; `None` if it is none of one of the tools.
    fn parse_call(&self, text: &str) -> Option<(String, String)> {
        let WrittenCall { name, arguments, parameters } = serde_json::from_str(text).ok()?;
        if !self.tool_names.contains(&name) {
            return None;
        }
        let Some(arguments) = arguments.or(parameters).map(RawValue::get) else {
            return Some((name, "{}".to_string()));
        };
        // Some models write the arguments as JSON text.
        let arguments = serde_json::from_str::<String>(arguments).unwrap_or_else(|_| arguments.to_string());
        let is_object = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&arguments).is_ok();
        is_object.then_some((name, arguments))
    }
}

#[derive(Deserialize)]
struct WrittenCall<'a> {
    name: String,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    parameters: Option<&'a RawValue>,
}

/// Bytes at the end of the text that may belong to a marker: its beginning, and the white space before it.
fn undecided_bytes(text: &str, marker: &str) -> usize {
    let starts = marker.char_indices().map(|(at, _)| at).rev();
    let beginning = starts.filter(|length| text.ends_with(&marker[..*length])).max().unwrap_or_default();
    text.len() - text[..text.len() - beginning].trim_end().len()
}
