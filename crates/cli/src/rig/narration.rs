//! What a rig tells while it runs.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use connlib_os::clock::Clock;

/// Tells each step with the time since the start.
///
/// Where stdout holds JSON, it speaks on stderr.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Narration {
    clock: Clock,
    started_at: Instant,
    stream: Stream,
    colour: Colour,
    logs: Logs,
    steps: Steps,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stream {
    Stdout,
    Stderr,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Colour {
    Off,
    On,
}

/// Whether the logs of the programs are shown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Logs {
    Hidden,
    Shown,
}

/// Whether steps are told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Steps {
    Hidden,
    Shown,
}

/// What stdout is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Output {
    People,
    Json,
}

const FAINT: &str = "\u{1b}[2m";
const GREEN: &str = "\u{1b}[32m";
const PLAIN: &str = "\u{1b}[0m";

impl Narration {
    /// Begins to count the time.
    pub(crate) fn begin(output: Output, logs: Logs) -> Self {
        let clock = Clock::new();
        let stream = match output {
            Output::People => Stream::Stdout,
            Output::Json => Stream::Stderr,
        };
        let is_terminal = match stream {
            Stream::Stdout => io::stdout().is_terminal(),
            Stream::Stderr => io::stderr().is_terminal(),
        };
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());

        Self {
            clock,
            started_at: clock.now(),
            stream,
            colour: match is_terminal && !is_unwanted {
                true => Colour::On,
                false => Colour::Off,
            },
            logs,
            steps: Steps::Shown,
        }
    }

    /// The same for what is not worth telling at each step.
    pub(crate) fn without_steps(self) -> Self {
        Self {
            steps: Steps::Hidden,
            ..self
        }
    }

    /// The time since it began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.now() - self.started_at
    }

    /// Tells what has just been done.
    pub(crate) fn step(&self, text: impl fmt::Display) {
        if self.steps == Steps::Hidden {
            return;
        }
        let elapsed = self.elapsed().as_secs_f64();
        let (faint, plain) = (self.paint(FAINT), self.paint(PLAIN));

        self.write(format_args!("{faint}{elapsed:7.3} s{plain}  {text}\n"));
    }

    /// Tells the end, at length.
    pub(crate) fn show(&self, text: impl fmt::Display) {
        let (green, plain) = (self.paint(GREEN), self.paint(PLAIN));

        self.write(format_args!("\n{green}{text}{plain}\n"));
    }

    /// Passes on a line of a program's log.
    pub(crate) fn log_line(&self, name: &str, line: &str) {
        if self.logs == Logs::Shown {
            let (faint, plain) = (self.paint(FAINT), self.paint(PLAIN));
            // A log that nobody can read is no reason to stop.
            let _ = writeln!(io::stderr(), "{faint}{name:>9} |{plain} {line}");
        }
    }

    fn paint(&self, colour: &'static str) -> &'static str {
        match self.colour {
            Colour::On => colour,
            Colour::Off => "",
        }
    }

    fn write(&self, text: fmt::Arguments<'_>) {
        // A reader that has gone is no reason to stop.
        let _ = match self.stream {
            Stream::Stdout => io::stdout().write_fmt(text),
            Stream::Stderr => io::stderr().write_fmt(text),
        };
    }
}
