//! Log as JSON: one flat object per line. `docs/deployment.md` lists the fields, whose names are stable.

use serde::Serializer;
use serde_json::Value;
use std::fmt;
use std::io::Write;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Layer that writes each event with the fields of its spans. Of fields with one name, the event's counts, then that of the inner span.
pub struct JsonLog<W>(W);

impl<W: Fn() -> O, O: Write> JsonLog<W> {
    /// `writer` returns where a line is written.
    pub fn new(writer: W) -> Self {
        Self(writer)
    }
}

/// Fields of an event or of a span, in order.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    /// Replaces the value of a field, or adds it.
    fn set(&mut self, field: &Field, value: Value) {
        match self.0.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, old)) => *old = value,
            None => self.0.push((field.name(), value)),
        }
    }

    /// Adds a field unless there is one of this name.
    fn add(&mut self, name: &'static str, value: impl FnOnce() -> Value) {
        if !self.0.iter().any(|(known, _)| *known == name) {
            self.0.push((name, value()));
        }
    }

    fn to_line(&self) -> Vec<u8> {
        let mut line = Vec::with_capacity(512);
        let fields = self.0.iter().map(|(name, value)| (*name, value));
        // Strings and numbers can be written into memory.
        let _ = serde_json::Serializer::new(&mut line).collect_map(fields);
        line.push(b'\n');
        line
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }
}

impl<S, W, O> Layer<S> for JsonLog<W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: Fn() -> O + 'static,
    O: Write,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut timestamp = String::new();
        // Fails for times before 1970 alone; the line then has an empty timestamp.
        let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
        let mut line = Fields(Vec::with_capacity(16));
        line.add("timestamp", || timestamp.into());
        line.add("level", || event.metadata().level().as_str().into());
        line.add("target", || event.metadata().target().into());
        event.record(&mut line);
        for span in context.event_scope(event).into_iter().flatten() {
            line.add("span", || span.name().into());
            if let Some(fields) = span.extensions().get::<Fields>() {
                fields.0.iter().for_each(|(name, value)| line.add(name, || value.clone()));
            }
        }
        // A line that cannot be written (full disk, closed pipe) is lost.
        let _ = (self.0)().write_all(&line.to_line());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> Vec<Value> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry().with(JsonLog::new(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, log);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_has_the_fields_of_event_and_spans() {
        let lines = logged(|| {
            let outer = tracing::info_span!("request", request_id = "7", owner = tracing::field::Empty);
            outer.record("owner", "team");
            let _in_outer = outer.enter();
            let _in_inner = tracing::info_span!("step", step = 3, request_id = "8").entered();
            tracing::warn!(step = 4_u64, ratio = 0.5, error = ?"a\n\"b\"", "{}", "failed\n{\"level\":\"x\"}");
        });
        assert_eq!(lines.len(), 1, "a line break in a value is escaped");
        let line = &lines[0];
        let expected = [
            ("level", Value::from("WARN")),
            ("message", "failed\n{\"level\":\"x\"}".into()),
            ("step", 4.into()),
            ("ratio", 0.5.into()),
            ("request_id", "8".into()),
            ("owner", "team".into()),
            ("span", "step".into()),
        ];
        for (name, value) in expected {
            assert_eq!(line[name], value, "{line}");
        }
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    }
}
