//! The bench: our data path beside others', on this machine alone (cli.md "Bench").
//!
//! ```text
//! names         what is measured                     load      iperf3 and what it costs
//! contestant    who, and where their programs are    udp       the best rate of datagrams
//! standing      a contestant that is up              sparse    a flow that waits under load
//! fixed_peers   WireGuard without a portal           fairness  who waits, and for how long
//! cost, memory  processor time, memory               record    samples and their summaries
//! iperf, stats  reading and reckoning                report    JSON, tables
//! heartbeat     the portal, asked under load    relay     what a detour costs
//! ```

mod contestant;
mod cost;
mod fairness;
mod fixed_peers;
mod heartbeat;
mod iperf;
mod load;
mod memory;
mod names;
mod record;
mod relay;
mod report;
mod sparse;
mod standing;
mod stats;
mod udp;

use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tokio::time::sleep;

use crate::args::BenchArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure, print};
use crate::logging::{self, Alarms};
use crate::rig::gain_rights;
use crate::rig::narration::{Logs, Narration, Output};
use crate::rig::plan::Place;
use crate::rig::system::PathKind;
use crate::rig::topology::Roles;
use crate::run;

use contestant::{Entrant, Skipped, find_program};
use cost::Cost;
use fairness::{Finding, Scene};
use memory::Occupancy;
use names::{Measurement, MinuteAfter, Selection, Traffic};
use record::Sample;
use report::{Failed, Machine, Report, Row};
use standing::{Clients, Standing};

pub(crate) use contestant::Contestant;

/// All that does not change between the runs.
#[derive(Debug)]
struct Bench {
    program: PathBuf,
    iperf3: PathBuf,
    /// Makes bottlenecks; without it there are none.
    tc: Option<PathBuf>,
    roles: Roles,
    entrants: Vec<Entrant>,
    skipped: Vec<Skipped>,
    selection: Selection,
    runs: u32,
    seconds: Duration,
    alarms: Alarms,
    narration: Narration,
}

/// How long the machine is watched before anything is measured.
const LOOK: Duration = Duration::from_secs(1);

/// A machine that is busier spoils what is measured.
const BUSY: f64 = 0.1;

/// Measures, and prints the report.
///
/// # Errors
///
/// Exit 1: a program is missing; the message says what brings it. Exit 2: `--only` is no name. Exit 5: no rights.
pub(crate) fn run(args: &BenchArgs, environment: &Environment) -> Result<(), Failure> {
    let selection = Selection::parse(args.only.as_deref())?;
    let iperf3 = find_program("iperf3", environment).ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            "iperf3 is not in PATH, and makes the load; bring it with `apt-get install iperf3`",
        )
    })?;
    let (mut entrants, skipped) = contestant::enter(&args.against, environment)?;
    entrants.retain(|entrant| selection.is_about(entrant.contestant));
    // A user namespace needs a process with a single thread.
    gain_rights()?;
    let alarms = logging::init_from(environment, "warn")?;
    let logs = match args.verbose {
        true => Logs::Shown,
        false => Logs::Hidden,
    };
    let bench = Bench {
        program: env::current_exe().map_err(|error| Failure::os("find this program", &error))?,
        iperf3,
        tc: find_program("tc", environment),
        roles: Roles::read(None)?,
        entrants,
        skipped,
        selection,
        runs: args.runs,
        seconds: Duration::from_secs(args.seconds),
        alarms,
        // Stdout is for the report alone, also for people: it is worth being kept.
        narration: Narration::begin(Output::Json, logs),
    };

    run::block_on(async {
        let mut signals = run::Signals::new()?;
        let report = tokio::select! {
            report = bench.perform() => report?,
            _ = signals.next() => return Err(Failure::new(
                Exit::Failed,
                "the bench was interrupted; nothing of it is left",
            )),
        };
        show(&report, args)?;
        match report.is_complete() {
            true => Ok(()),
            false => Err(Failure::new(
                Exit::Failed,
                "our own program was not measured to the end; the report says why",
            )),
        }
    })
}

fn show(report: &Report, args: &BenchArgs) -> Result<(), Failure> {
    if !args.json {
        return print(report);
    }
    let json = serde_json::to_string(report).map_err(|error| {
        Failure::new(
            Exit::Failed,
            format_args!("can't print the report: {error}"),
        )
    })?;

    print(format_args!("{json}\n"))
}

impl Bench {
    /// Every run measures every contestant once, one after the other.
    async fn perform(&self) -> Result<Report, Failure> {
        let busy_before = self.look_around().await?;
        let mut samples = Vec::new();
        let mut findings = Vec::new();
        let mut occupancy = Occupancy::default();
        let mut failed = Vec::new();
        let mut scenes: Vec<Scene> = self
            .selection
            .fairness
            .iter()
            .map(|row| row.scene)
            .collect();
        scenes.dedup();
        for run in 1..=self.runs {
            for entrant in &self.entrants {
                for path in [PathKind::Direct, PathKind::Relayed] {
                    let measured = self
                        .measure(run, entrant, path, &mut samples, &mut occupancy)
                        .await;
                    failed.extend(self.failed(entrant, measured));
                }
            }
            for &scene in &scenes {
                for entrant in &self.entrants {
                    match self.play(entrant, scene).await {
                        Ok(found) => {
                            self.tell(run, entrant, &found);
                            findings.extend(found);
                        }
                        Err(failure) => failed.extend(self.failed(entrant, Err(failure))),
                    }
                }
            }
        }
        if samples.is_empty() && findings.is_empty() {
            let reason = failed.into_iter().next().map(|failed| failed.reason);
            return Err(Failure::new(
                Exit::Failed,
                reason.unwrap_or_else(|| "nothing was measured".into()),
            ));
        }

        let rows = self.selection.throughput.iter();
        let fairness = self.selection.fairness.iter();
        Ok(Report {
            machine: Machine::of_this_one(busy_before),
            throughput: rows.map(|row| Row::of(row, self.runs, &samples)).collect(),
            relay: relay::rows(&samples),
            fairness: fairness
                .filter_map(|row| fairness::Row::of(row, &findings))
                .collect(),
            memory: occupancy.rows(),
            skipped: self.skipped.clone(),
            failed,
        })
    }

    /// Finds out how busy the machine is without us, and says if that spoils what is measured.
    async fn look_around(&self) -> Result<f64, Failure> {
        let before = Cost::read(&[])?;
        sleep(LOOK).await;
        let spent = Cost::read(&[])?.since(&before);
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let share = spent.machine.as_secs_f64() / (LOOK.as_secs_f64() * cpus as f64);
        if share > BUSY {
            self.narration.step(format_args!(
                "Something else keeps this machine {:.0} % busy: rates and round trips will be worse than they are, \
                 nanoseconds per byte less so",
                share * 100.0
            ));
        }

        Ok(share)
    }

    /// What could not be measured is told, and doesn't keep the rest from being so.
    fn failed(&self, entrant: &Entrant, result: Result<(), Failure>) -> Option<Failed> {
        let failure = result.err()?;
        let name = entrant.contestant;
        self.narration
            .step(format_args!("{name} failed: {failure}"));

        Some(Failed {
            name,
            reason: failure.to_string(),
        })
    }

    fn tell(&self, run: u32, entrant: &Entrant, findings: &[Finding]) {
        for finding in findings {
            self.narration.step(format_args!(
                "Run {run} of {}: {}, {}: {}",
                self.runs, finding.row, entrant.contestant, finding.figure
            ));
        }
    }

    /// Brings a contestant up and takes all measurements of that path.
    async fn measure(
        &self,
        run: u32,
        entrant: &Entrant,
        path: PathKind,
        samples: &mut Vec<Sample>,
        occupancy: &mut Occupancy,
    ) -> Result<(), Failure> {
        let rows: Vec<Measurement> = self.selection.on(path).collect();
        let takes_part = match path {
            PathKind::Direct => entrant.contestant != Contestant::Turnserver,
            PathKind::Relayed => entrant.contestant.has_our_ends(),
        };
        if rows.is_empty() || !takes_part {
            return Ok(());
        }

        self.with(
            entrant,
            path,
            Clients::running(&[Place::Client]),
            async |standing| {
                occupancy.note_idle(standing)?;
                for row in &rows {
                    samples.push(self.take(run, standing, row).await?);
                }
                occupancy.note_peak(standing)?;
                standing.check_path(path)?;
                let is_asked = self.selection.minute_after == MinuteAfter::Asked;
                if is_asked && run == self.runs && path == PathKind::Direct {
                    occupancy.note_minute_after(standing).await?;
                }
                Ok(())
            },
        )
        .await
    }

    async fn take(
        &self,
        run: u32,
        standing: &Standing<'_>,
        row: &Measurement,
    ) -> Result<Sample, Failure> {
        let outcome = match row.traffic {
            Traffic::Tcp { streams } => standing.tcp(streams, row.direction, self.seconds).await?,
            Traffic::Udp => standing.udp(row.direction, self.seconds).await?,
        };
        self.narration.step(format_args!(
            "Run {run} of {}: {}, {}: {:.3} Gbit/s",
            self.runs,
            row.name,
            standing.contestant,
            outcome.carried.bps / 1e9
        ));

        Ok(Sample {
            measurement: row.name,
            contestant: standing.contestant,
            outcome,
        })
    }
}
