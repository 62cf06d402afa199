//! The log, as the oracles see it: a clean run has no warning, and paths tell when they change.

use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// One line of the log.
pub(crate) struct Line {
    pub(crate) is_warning: bool,
    pub(crate) text: String,
}

/// Runs `work` with a log that [`take`] reads.
pub(crate) fn during<T>(work: impl FnOnce() -> T) -> T {
    drop(take());

    tracing::subscriber::with_default(Collector::default(), work)
}

/// The lines since the last look.
pub(crate) fn take() -> Vec<Line> {
    LINES.with_borrow_mut(std::mem::take)
}

/// Collects lines of the thread it is on.
#[derive(Default)]
struct Collector {
    spans: AtomicU64,
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(format!("{}:", event.metadata().target()));
        event.record(&mut text);
        let line = Line {
            is_warning: *event.metadata().level() <= Level::WARN && !is_foreign(event.metadata()),
            text: text.0,
        };
        LINES.with_borrow_mut(|lines| lines.push(line));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The ICE crate warns of whatever is no STUN message: that anybody can send bytes is nothing that a person should look at.
fn is_foreign(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("is::")
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a text can't fail.
        write!(self.0, " {field}={value:?}").unwrap_or_default();
    }
}
