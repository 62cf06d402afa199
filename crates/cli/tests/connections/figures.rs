//! What was measured, beside what it should be.

use std::fmt;
use std::time::Duration;

/// All figures of a run.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

/// One figure, measured several times.
#[derive(Debug)]
struct Row {
    name: &'static str,
    goal: &'static str,
    measured: String,
}

/// Times that were measured of the same thing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn push(&mut self, time: Duration) {
        self.0.push(time);
    }

    /// What so many of a hundred didn't exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut times = self.0.clone();
        times.sort_unstable();
        let rank = (times.len() * percent).div_ceil(100).max(1);

        times[rank - 1]
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.1} ms, p95 {:.1} ms of {}",
            millis(self.percentile(50)),
            millis(self.percentile(95)),
            self.0.len()
        )
    }
}

impl Table {
    /// Adds a line and prints it.
    pub(crate) fn add(
        &mut self,
        name: &'static str,
        goal: &'static str,
        measured: impl fmt::Display,
    ) {
        let row = Row {
            name,
            goal,
            measured: measured.to_string(),
        };
        println!("{row}");
        self.rows.push(row);
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<52} {:<34} {}", self.name, self.goal, self.measured)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<52} {:<34} measured", "what", "goal")?;

        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
