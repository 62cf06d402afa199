//! Memory of the processes: idle, at most, and after a minute of rest.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::sleep;

use super::contestant::Contestant;
use super::cost::Memory;
use super::standing::{Process, Standing};
use crate::exit::Failure;

/// A row of the table `memory`, in bytes.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub(super) struct Occupied {
    pub(super) who: String,
    pub(super) idle_rss: u64,
    pub(super) peak_rss: u64,
    pub(super) minute_after_rss: Option<u64>,
}

/// What all runs have shown, by contestant and role.
#[derive(Clone, Debug, Default)]
pub(super) struct Occupancy {
    rows: BTreeMap<(Contestant, &'static str), Seen>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    idle: u64,
    peak: u64,
    minute_after: Option<u64>,
}

/// How long a process rests before it is looked at again.
const REST: Duration = Duration::from_secs(60);

impl Occupancy {
    /// Notes what a contestant takes that has carried nothing yet.
    ///
    /// # Errors
    ///
    /// Exit 5: a process is gone.
    pub(super) fn note_idle(&mut self, standing: &Standing<'_>) -> Result<(), Failure> {
        self.note(standing, |seen, memory| {
            seen.idle = seen.idle.max(memory.resident);
        })
    }

    /// Notes the most that it has taken.
    ///
    /// # Errors
    ///
    /// Exit 5: a process is gone.
    pub(super) fn note_peak(&mut self, standing: &Standing<'_>) -> Result<(), Failure> {
        self.note(standing, |seen, memory| {
            seen.peak = seen.peak.max(memory.peak)
        })
    }

    /// Waits a minute and notes what is left.
    ///
    /// # Errors
    ///
    /// Exit 5: a process is gone.
    pub(super) async fn note_minute_after(
        &mut self,
        standing: &Standing<'_>,
    ) -> Result<(), Failure> {
        if standing.processes.is_empty() {
            return Ok(());
        }
        sleep(REST).await;

        self.note(standing, |seen, memory| {
            seen.minute_after = seen.minute_after.max(Some(memory.resident));
        })
    }

    /// The table. Ours are called by their roles alone.
    pub(super) fn rows(&self) -> Vec<Occupied> {
        let row = |(&(contestant, role), seen): (&(Contestant, &str), &Seen)| Occupied {
            who: match contestant == Contestant::Ours {
                true => role.to_owned(),
                false => format!("{contestant}-{role}"),
            },
            idle_rss: seen.idle,
            peak_rss: seen.peak,
            minute_after_rss: seen.minute_after,
        };

        self.rows.iter().map(row).collect()
    }

    fn note(
        &mut self,
        standing: &Standing<'_>,
        note: impl Fn(&mut Seen, Memory),
    ) -> Result<(), Failure> {
        for process in &standing.processes {
            let Process { role, .. } = *process;
            let seen = self.rows.entry((standing.contestant, role)).or_default();
            note(seen, Memory::of(process)?);
        }

        Ok(())
    }
}
