//! The log as an oracle: a clean run has no warning.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Collects warnings and errors of one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Warnings {
    texts: Arc<Mutex<Vec<String>>>,
    spans: Arc<AtomicU64>,
}

impl Warnings {
    /// Runs `work` and returns what it gave and what it complained of.
    pub(crate) fn during<T>(work: impl FnOnce() -> T) -> (T, Vec<String>) {
        let warnings = Self::default();
        let result = tracing::subscriber::with_default(warnings.clone(), work);
        let texts = warnings
            .texts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);

        (result, texts.clone())
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(format!("{}:", event.metadata().target()));
        event.record(&mut text);
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        texts.push(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text can't fail.
        write!(self.0, " {field}={value:?}").unwrap_or_default();
    }
}
