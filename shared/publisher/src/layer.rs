//! A `tracing` layer that turns logged errors into error records.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use records::limits::{ID_BYTES, STACK_BYTES, TEXT_BYTES};
use records::{ErrorRecord, Json};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

use crate::{Buffered, PushError};

/// Targets whose errors are about publishing itself. A record about such an error would cause the next error.
const OWN_TARGETS: [&str; 2] = ["async_nats", env!("CARGO_CRATE_NAME")];

thread_local! {
    /// Set while this thread runs code whose errors must not become records.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Runs a closure whose errors must not become records.
pub(crate) fn without_recursion(run: impl FnOnce()) {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            QUIET.set(self.0);
        }
    }
    let _restore = Restore(QUIET.replace(true));
    run();
}

/// The options of an [`ErrorLayer`].
#[derive(Debug, Clone)]
pub struct ErrorLayerOptions {
    /// Targets to ignore, including everything below them (`hyper` also ignores `hyper::client`). The targets of
    /// async-nats and of this crate are always ignored. Default: none.
    pub ignored_targets: Vec<String>,
    /// Maximum bytes of JSON in `detail`, at most 256 KiB. Fields that do not fit are left out, and
    /// `detail.left_out` contains their number. Default: 16 KiB.
    pub max_detail_bytes: usize,
}

impl Default for ErrorLayerOptions {
    fn default() -> Self {
        Self { ignored_targets: Vec::new(), max_detail_bytes: 16 * 1024 }
    }
}

/// Counts what happened to the errors that a layer received.
#[derive(Debug, Default)]
pub struct ErrorCounts {
    pushed: AtomicU64,
    full: AtomicU64,
    refused: AtomicU64,
}

impl ErrorCounts {
    /// Returns the number of errors that were added to the buffer.
    pub fn pushed(&self) -> u64 {
        self.pushed.load(Ordering::Relaxed)
    }

    /// Returns the number of errors that were dropped because the buffer was full or closed.
    pub fn full(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// Returns the number of errors that were dropped because they were not valid records.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// Publishes events of level `ERROR` as error records, through a [buffer](Buffered). Never blocks.
///
/// | record | source |
/// |---|---|
/// | `message` | the event's message |
/// | `trace_id` | the field `trace_id` of the event or of the nearest span that has one, else a new UUID, the same for all errors under one root span |
/// | `error_type` | the field `error_type` or `error.type`, else the event's target |
/// | `stack`, `endpoint`, `project_id`, `run_id` | the fields of these names, of the event or the nearest span |
/// | `detail` | all other fields, where the event's override the spans'; the names of the spans as `spans`, outermost first; `target` and `location` |
///
/// Text is truncated to the limit of its field. **Values are published as they are.** Never put secrets into the
/// fields of spans or error events.
#[derive(Debug)]
pub struct ErrorLayer {
    buffered: Buffered,
    options: ErrorLayerOptions,
    counts: Arc<ErrorCounts>,
}

impl ErrorLayer {
    /// Creates a layer that publishes through a buffer.
    pub fn new(buffered: Buffered, options: ErrorLayerOptions) -> Self {
        Self { buffered, options, counts: Arc::default() }
    }

    /// Returns the counters. Keep them before adding the layer to a subscriber.
    pub fn counts(&self) -> Arc<ErrorCounts> {
        Arc::clone(&self.counts)
    }

    fn is_ignored(&self, target: &str) -> bool {
        let ignored = OWN_TARGETS.iter().copied().chain(self.options.ignored_targets.iter().map(String::as_str));
        ignored
            .into_iter()
            .any(|ignored| target.strip_prefix(ignored).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")))
    }

    fn push(&self, record: ErrorRecord<'_>) {
        let counter = match self.buffered.try_push(record) {
            Ok(_) => &self.counts.pushed,
            Err(PushError::Full(_) | PushError::Closed(_)) => &self.counts.full,
            Err(PushError::Refused(_)) => &self.counts.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl<S> Layer<S> for ErrorLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        // Another `ErrorLayer` may have set the fields already, and `insert` would panic then.
        span.extensions_mut().replace(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() != Level::ERROR || QUIET.get() || self.is_ignored(metadata.target()) {
            return;
        }
        without_recursion(|| {
            let mut fields = Fields::default();
            event.record(&mut fields);
            let mut spans = Vec::new();
            let mut scope = context.event_scope(event).into_iter().flatten().peekable();
            while let Some(span) = scope.next() {
                spans.push(Value::from(span.name()));
                let mut extensions = span.extensions_mut();
                let Some(outer) = extensions.get_mut::<Fields>() else { continue };
                fields.inherit(outer);
                if scope.peek().is_none() {
                    fields.trace_id.get_or_insert_with(|| outer.new_trace_id.get_or_insert_with(new_trace_id).clone());
                }
            }
            spans.reverse();
            self.push(fields.into_record(metadata, spans, self.options.max_detail_bytes));
        });
    }
}

fn new_trace_id() -> String {
    Uuid::new_v4().to_string()
}

/// The fields of an event or a span: those with a column of their own, and all others.
#[derive(Debug, Default)]
struct Fields {
    message: Option<String>,
    trace_id: Option<String>,
    error_type: Option<String>,
    stack: Option<String>,
    endpoint: Option<String>,
    project_id: Option<String>,
    run_id: Option<String>,
    others: Map<String, Value>,
    /// Set on a root span: the trace id of its errors if none of the spans or events names one.
    new_trace_id: Option<String>,
}

impl Fields {
    /// Returns the field with this name and its limit in bytes.
    fn named(&mut self, name: &str) -> Option<(&mut Option<String>, usize)> {
        match name {
            "message" => Some((&mut self.message, TEXT_BYTES)),
            "trace_id" => Some((&mut self.trace_id, ID_BYTES)),
            "error_type" | "error.type" => Some((&mut self.error_type, ID_BYTES)),
            "stack" => Some((&mut self.stack, STACK_BYTES)),
            "endpoint" => Some((&mut self.endpoint, TEXT_BYTES)),
            "project_id" => Some((&mut self.project_id, ID_BYTES)),
            "run_id" => Some((&mut self.run_id, ID_BYTES)),
            _ => None,
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        match self.named(name) {
            Some((field, limit)) => *field = Some(cut(text, limit).to_owned()),
            None => {
                self.others.insert(name.to_owned(), Value::from(cut(text, TEXT_BYTES)));
            }
        }
    }

    fn value(&mut self, name: &str, value: Value) {
        match self.named(name) {
            Some((field, _)) => *field = Some(value.to_string()),
            None => {
                self.others.insert(name.to_owned(), value);
            }
        }
    }

    /// Copies missing fields from an enclosing span. The `message` of a span is not copied.
    fn inherit(&mut self, outer: &Self) {
        for name in ["trace_id", "error_type", "stack", "endpoint", "project_id", "run_id"] {
            let (inner, outer) = match name {
                "trace_id" => (&mut self.trace_id, &outer.trace_id),
                "error_type" => (&mut self.error_type, &outer.error_type),
                "stack" => (&mut self.stack, &outer.stack),
                "endpoint" => (&mut self.endpoint, &outer.endpoint),
                "project_id" => (&mut self.project_id, &outer.project_id),
                _ => (&mut self.run_id, &outer.run_id),
            };
            if inner.is_none() {
                inner.clone_from(outer);
            }
        }
        for (name, value) in &outer.others {
            self.others.entry(name).or_insert_with(|| value.clone());
        }
    }

    fn into_record(
        self,
        metadata: &tracing::Metadata<'_>,
        spans: Vec<Value>,
        max_detail_bytes: usize,
    ) -> ErrorRecord<'static> {
        let present = |text: Option<String>| text.filter(|text| !text.is_empty());
        let owned = |text: Option<String>| text.map(Cow::Owned);
        let location = metadata.file().zip(metadata.line()).map(|(file, line)| format!("{file}:{line}"));
        let own = [
            ("spans", (!spans.is_empty()).then_some(Value::Array(spans))),
            ("target", Some(Value::from(metadata.target()))),
            ("location", location.map(Value::from)),
        ];
        ErrorRecord {
            trace_id: present(self.trace_id).unwrap_or_else(new_trace_id).into(),
            error_type: present(self.error_type).unwrap_or_else(|| cut(metadata.target(), ID_BYTES).to_owned()).into(),
            message: self.message.unwrap_or_else(|| metadata.name().to_owned()).into(),
            stack: owned(self.stack),
            detail: Some(detail(self.others, own, max_detail_bytes)),
            project_id: owned(self.project_id),
            run_id: owned(self.run_id),
            endpoint: owned(self.endpoint),
            ..ErrorRecord::default()
        }
    }
}

/// Builds a JSON object of at most `max_bytes` bytes from the fields. The fields that show where the error occurred
/// come first.
fn detail<const N: usize>(
    others: Map<String, Value>,
    own: [(&'static str, Option<Value>); N],
    max_bytes: usize,
) -> Json<'static> {
    /// Space for `,"left_out":` and its number.
    const LEFT_OUT_BYTES: usize = 40;
    let mut detail = Map::new();
    let mut left_out = 0_u64;
    let mut bytes = LEFT_OUT_BYTES;
    let own = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let own: Vec<_> = own.collect();
    for (name, value) in own.into_iter().chain(others) {
        let size = Value::from(name.as_str()).to_string().len() + value.to_string().len() + 2;
        if bytes + size > max_bytes.min(records::limits::JSON_BYTES) || detail.contains_key(&name) {
            left_out += 1;
            continue;
        }
        bytes += size;
        detail.insert(name, value);
    }
    if left_out > 0 {
        detail.insert("left_out".to_owned(), left_out.into());
    }
    detail.into()
}

/// Returns the longest prefix of at most `limit` bytes that ends at a character boundary.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        self.text(field.name(), &text);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field.name(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field.name(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detail_is_bounded_and_says_what_it_left_out() {
        let others = (0..100).map(|index| (format!("field_{index}"), Value::from("x".repeat(100)))).collect();
        let json = detail(others, [("target", Some(Value::from("here")))], 1024);
        assert!(json.get().len() <= 1024, "{}", json.get().len());
        let detail: Map<String, Value> = serde_json::from_str(json.get()).unwrap();
        assert_eq!(detail["target"], "here");
        assert_eq!(detail["left_out"].as_u64().unwrap() as usize + detail.len() - 2, 100);
    }

    #[test]
    fn texts_are_cut_at_characters() {
        assert_eq!(cut("größe", 3), "gr");
        assert_eq!(cut("größe", 4), "grö");
        assert_eq!(cut("a", 4), "a");
    }

    #[test]
    fn what_is_quiet_stays_quiet_only_for_a_while() {
        assert!(!QUIET.get());
        without_recursion(|| {
            without_recursion(|| {});
            assert!(QUIET.get());
        });
        assert!(!QUIET.get());
    }
}
