//! Figures, and how they are written.

use std::time::Duration;

/// A line of the table.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) seen: String,
    pub(crate) goal: &'static str,
}

impl Row {
    pub(crate) fn new(what: String, seen: String, goal: &'static str) -> Self {
        Self { what, seen, goal }
    }
}

/// The value that this share of all values is at most.
pub(crate) fn percentile(values: &[Duration], share: f64) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let last = sorted.len().saturating_sub(1);
    let index = (sorted.len() as f64 * share) as usize;

    sorted.get(index.min(last)).copied().unwrap()
}

pub(crate) fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}
