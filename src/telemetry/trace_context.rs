//! W3C trace context (<https://www.w3.org/TR/trace-context/>): reads it from requests and job rows, and passes it on.

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, Value};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Maximum length of a `tracestate` that is passed on, the least that W3C asks for. A longer one is dropped.
const MAX_TRACESTATE_LENGTH: usize = 512;

/// Position in a trace: the headers `traceparent` and `tracestate`, of which the second may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: String,
}

impl TraceContext {
    /// Checks the headers of a request. `None` if `traceparent` is invalid; an invalid or long `tracestate` is dropped.
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        if !has_valid_lengths(traceparent) {
            return None;
        }
        let tracestate = tracestate.filter(|state| state.len() <= MAX_TRACESTATE_LENGTH).unwrap_or_default();
        let sent = Self { traceparent: traceparent.to_string(), tracestate: tracestate.to_string() };
        Self::of(&sent.to_opentelemetry())
    }

    /// Reads the column of a job's row.
    pub fn from_column(column: &str) -> Option<Self> {
        let (traceparent, tracestate) = column.split_once(' ').unwrap_or((column, ""));
        Self::parse(traceparent, Some(tracestate))
    }

    /// Writes both headers as one text for a column: `traceparent`, and after a space `tracestate` if there is one.
    pub fn to_column(&self) -> String {
        match self.tracestate.is_empty() {
            true => self.traceparent.clone(),
            false => format!("{} {}", self.traceparent, self.tracestate),
        }
    }

    /// Headers for a request to another server.
    pub fn into_headers(self) -> Vec<(&'static str, String)> {
        let headers = [(TRACEPARENT, self.traceparent), (TRACESTATE, self.tracestate)];
        headers.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// Id of the trace, 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.traceparent.split('-').nth(1).unwrap_or_default()
    }

    /// `None` if the context has no valid span.
    fn of(context: &Context) -> Option<Self> {
        let mut headers = Self::default();
        TraceContextPropagator::new().inject_context(context, &mut headers);
        (!headers.traceparent.is_empty()).then_some(headers)
    }

    /// Context without a span if the headers are invalid.
    fn to_opentelemetry(&self) -> Context {
        TraceContextPropagator::new().extract_with_context(&Context::new(), self)
    }
}

/// Whether version, trace id, span id and flags have their numbers of digits, which the library does not check.
fn has_valid_lengths(traceparent: &str) -> bool {
    let mut parts = traceparent.split('-');
    let is_hex = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    [2, 32, 16, 2].into_iter().all(|length| parts.next().is_some_and(|part| is_hex(part, length)))
}

impl Extractor for TraceContext {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => Some(&self.traceparent),
            TRACESTATE => Some(&self.tracestate),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}

impl Injector for TraceContext {
    fn set(&mut self, key: &str, value: String) {
        match key {
            TRACEPARENT => self.traceparent = value,
            TRACESTATE => self.tracestate = value,
            _ => {}
        }
    }
}

/// Makes a new span a part of a trace that began elsewhere. Does nothing without an exporter, or if the span has children already.
pub fn continue_trace(span: &Span, parent: &TraceContext) {
    // Fails where no trace is recorded.
    let _ = span.set_parent(parent.to_opentelemetry());
}

/// Position of a span in its trace; `None` if the trace is not sampled or no traces are exported.
pub fn sampled_context(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let is_sampled = context.span().span_context().is_sampled();
    if is_sampled { TraceContext::of(&context) } else { None }
}

/// Sets an attribute of a span in the exported trace; it is not in the log. Does nothing without an exporter.
pub fn set_attribute<'a>(span: &Span, key: &'static str, value: impl Into<Attribute<'a>>) {
    span.set_attribute(key, value.into());
}

/// Value of an attribute, copied only if the trace is exported.
pub enum Attribute<'a> {
    Text(&'a str),
    Number(i64),
}

impl<'a> From<&'a str> for Attribute<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl From<usize> for Attribute<'_> {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<Attribute<'_>> for Value {
    fn from(attribute: Attribute<'_>) -> Self {
        match attribute {
            Attribute::Text(text) => Self::from(text.to_string()),
            Attribute::Number(number) => Self::from(number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn headers_are_checked() {
        let context = TraceContext::parse(PARENT, Some("vendor=a,other=b")).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.to_column(), format!("{PARENT} vendor=a,other=b"));
        for invalid in [
            "",
            "00",
            "garbage",
            "00-4bf9-00f0-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\nx",
        ] {
            assert_eq!(TraceContext::parse(invalid, None), None, "{invalid:?}");
        }
    }

    #[test]
    fn invalid_and_long_states_are_dropped() {
        for state in ["no pair", &"k=v,".repeat(200)] {
            assert_eq!(TraceContext::parse(PARENT, Some(state)).unwrap().to_column(), PARENT, "{state}");
        }
    }

    #[test]
    fn a_column_has_both_headers() {
        for column in [PARENT.to_string(), format!("{PARENT} vendor=a b,other=c")] {
            assert_eq!(TraceContext::from_column(&column).unwrap().to_column(), column);
        }
        assert_eq!(TraceContext::from_column("other"), None);
    }

    #[test]
    fn without_an_exporter_no_context_is_sampled() {
        let span = tracing::info_span!("request");
        continue_trace(&span, &TraceContext::parse(PARENT, None).unwrap());
        set_attribute(&span, "key", "value");
        assert_eq!(sampled_context(&span), None);
    }
}
