//! Logs on stderr.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::environment::Environment;
use crate::exit::{Exit, Failure};

/// How many lines a person should have looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarms {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    warn: AtomicU64,
    error: AtomicU64,
}

/// The ICE agent warns of attributes that it doesn't expect, which anybody can send: they are nobody's alarm.
const TOLD_BY_STRANGERS: &str = "is::stun";

/// Starts to log what `RUST_LOG` asks for, by default from INFO on, and returns what counts the alarms.
///
/// # Errors
///
/// `RUST_LOG` is no filter.
pub(crate) fn init(environment: &Environment) -> Result<Alarms, Failure> {
    init_from(environment, "info")
}

/// Like [`init`], with another default.
///
/// # Errors
///
/// `RUST_LOG` is no filter.
pub(crate) fn init_from(environment: &Environment, default: &str) -> Result<Alarms, Failure> {
    let directives = environment.value("RUST_LOG").map_or_else(
        || format!("{default},{TOLD_BY_STRANGERS}=error").into(),
        |text| text.to_string_lossy(),
    );
    let filter = EnvFilter::try_new(&directives).map_err(|error| {
        Failure::new(
            Exit::WrongUse,
            format_args!("RUST_LOG can't be {directives:?}: {error}"),
        )
    })?;
    let has_colour = io::stderr().is_terminal() && environment.value("NO_COLOR").is_none();
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(has_colour)
        .with_filter(filter);
    let alarms = Alarms::default();

    tracing_subscriber::registry()
        .with(lines)
        .with(alarms.clone())
        .init();
    Ok(alarms)
}

impl Alarms {
    /// The WARN lines so far.
    pub(crate) fn warn(&self) -> u64 {
        self.counts.warn.load(Ordering::Relaxed)
    }

    /// The ERROR lines so far.
    pub(crate) fn error(&self) -> u64 {
        self.counts.error.load(Ordering::Relaxed)
    }

    /// Counts what another process has logged.
    pub(crate) fn count(&self, level: Level) {
        let count = match level {
            Level::WARN => &self.counts.warn,
            Level::ERROR => &self.counts.error,
            _ => return,
        };

        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl<S: Subscriber> Layer<S> for Alarms {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != TOLD_BY_STRANGERS {
            self.count(*event.metadata().level());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_count_warnings_and_errors_only() {
        let alarms = Alarms::default();
        let subscriber = tracing_subscriber::registry().with(alarms.clone());

        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!("one");
            tracing::error!("two");
            tracing::warn!("three");
            tracing::info!("none");
            tracing::warn!(target: TOLD_BY_STRANGERS, "none");
        });

        assert_eq!((alarms.warn(), alarms.error()), (2, 1));
    }
}
