//! The report: JSON as promised (cli.md "Bench"), and tables for people.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::thread;

use serde::Serialize;

use super::contestant::{Contestant, Skipped};
use super::fairness;
use super::memory::Occupied;
use super::names::Measurement;
use super::record::{Sample, Summary};
use super::relay;
use super::stats::{Delays, rounded};

/// Everything that the bench has found out.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    pub(super) throughput: Vec<Row>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) relay: Vec<relay::Row>,
    pub(super) fairness: Vec<fairness::Row>,
    pub(super) memory: Vec<Occupied>,
    pub(super) skipped: Vec<Skipped>,
    pub(super) failed: Vec<Failed>,
}

/// What it was measured on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    cpus: usize,
    kernel: String,
    /// Whose cipher ours is.
    aead: &'static str,
    version: &'static str,
    /// The share of its time that the machine was busy before the bench began.
    busy_before: f64,
}

/// A row of the table `throughput`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    name: &'static str,
    ours_bps: Option<f64>,
    peers: BTreeMap<Contestant, f64>,
    ratio_to_best_peer: Option<f64>,
    cpu_ns_per_byte: BTreeMap<String, f64>,
    machine_ns_per_byte: BTreeMap<Contestant, f64>,
    loss: BTreeMap<Contestant, f64>,
    retransmits: BTreeMap<Contestant, f64>,
    rtt_ms: BTreeMap<Contestant, Delays>,
    runs: u32,
    /// Of ours: how far apart the runs are, as a share of the median.
    spread: Option<f64>,
    peers_spread: BTreeMap<Contestant, f64>,
    #[serde(skip)]
    summaries: BTreeMap<Contestant, Summary>,
}

/// A contestant that could not be measured to the end.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Failed {
    pub(super) name: Contestant,
    pub(super) reason: String,
}

impl Machine {
    /// Asks the system; the share is 1 if all processors were busy.
    pub(super) fn of_this_one(busy_before: f64) -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();

        Self {
            cpus: thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
            aead: "ring",
            version: env!("CARGO_PKG_VERSION"),
            busy_before: rounded(busy_before, 3),
        }
    }
}

impl Report {
    /// Whether ours was measured to the end; that somebody else's program fails is a finding.
    pub(super) fn is_complete(&self) -> bool {
        let mut failed = self.failed.iter();

        !failed.any(|failed| failed.name == Contestant::Ours)
    }
}

impl Row {
    /// Sums up what all contestants have done in a measurement.
    pub(super) fn of(measurement: &Measurement, runs: u32, samples: &[Sample]) -> Self {
        let contestants: BTreeSet<Contestant> =
            samples.iter().map(|sample| sample.contestant).collect();
        let summaries: BTreeMap<Contestant, Summary> = contestants
            .into_iter()
            .filter_map(|who| Some((who, Summary::of(samples, measurement.name, who)?)))
            .collect();
        let ours = summaries.get(&Contestant::Ours);
        let others = || {
            let all = summaries.iter();
            all.filter(|(who, _)| **who != Contestant::Ours)
        };
        let best = others()
            .filter(|(who, _)| who.is_peer())
            .map(|(_, summary)| summary.bps)
            .max_by(f64::total_cmp)
            .filter(|best| *best > 0.0);
        let each = |value: &dyn Fn(&Summary) -> Option<f64>| {
            let all = summaries.iter();
            all.filter_map(|(who, summary)| Some((*who, value(summary)?)))
                .collect()
        };

        Self {
            name: measurement.name,
            ours_bps: ours.map(|ours| ours.bps),
            peers: others().map(|(who, summary)| (*who, summary.bps)).collect(),
            ratio_to_best_peer: ours
                .zip(best)
                .map(|(ours, best)| rounded(ours.bps / best, 3)),
            cpu_ns_per_byte: summaries
                .iter()
                .flat_map(|(who, summary)| cpu(*who, summary))
                .collect(),
            machine_ns_per_byte: each(&|summary| Some(summary.machine)),
            loss: each(&|summary| summary.loss),
            retransmits: each(&|summary| summary.retransmits),
            rtt_ms: summaries
                .iter()
                .filter_map(|(who, summary)| Some((*who, summary.rtt?)))
                .collect(),
            runs,
            spread: ours.map(|ours| ours.spread),
            peers_spread: others()
                .map(|(who, summary)| (*who, summary.spread))
                .collect(),
            summaries,
        }
    }
}

/// Each process by itself; of others than ours also what one end costs on average.
fn cpu(who: Contestant, summary: &Summary) -> Vec<(String, f64)> {
    let mut costs: Vec<_> = summary
        .cpu
        .iter()
        .map(|(role, cost)| (format!("{who}-{role}"), *cost))
        .collect();
    if who != Contestant::Ours && !costs.is_empty() {
        let sum: f64 = summary.cpu.values().sum();
        costs.push((who.to_string(), rounded(sum / summary.cpu.len() as f64, 3)));
    }

    costs
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpus, kernel, .. } = &self.machine;
        let busy = in_percent(self.machine.busy_before);
        writeln!(f, "{cpus} processors, Linux {kernel}, {busy} busy before")?;
        for row in &self.throughput {
            write!(f, "\n{row}")?;
        }
        if !self.relay.is_empty() {
            writeln!(f, "\n{}", relay::HEADS)?;
        }
        for row in &self.relay {
            writeln!(f, "{row}")?;
        }
        for row in &self.fairness {
            write!(f, "\n{row}")?;
        }
        if !self.memory.is_empty() {
            writeln!(
                f,
                "\n{:<24}{:>10}{:>10}{:>14}",
                "memory, MB", "idle", "peak", "minute after"
            )?;
        }
        for row in &self.memory {
            let after = row.minute_after_rss.map_or_else(|| "–".into(), in_mb);
            writeln!(
                f,
                "  {:<22}{:>10}{:>10}{after:>14}",
                row.who,
                in_mb(row.idle_rss),
                in_mb(row.peak_rss)
            )?;
        }
        if !self.skipped.is_empty() || !self.failed.is_empty() {
            writeln!(f)?;
        }
        for skipped in &self.skipped {
            let Skipped { name, install } = skipped;
            writeln!(
                f,
                "{name} is skipped: it is not in PATH; bring it with `{install}`"
            )?;
        }
        for failed in &self.failed {
            writeln!(f, "{} failed: {}", failed.name, failed.reason)?;
        }

        Ok(())
    }
}

/// A table of its own.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = match self.runs {
            1 => "1 run".to_owned(),
            runs => format!("{runs} runs"),
        };
        writeln!(
            f,
            "{:<26}{:>8}{:>9}{:>9}{:>9}{:>9}{:>9}{:>8}{:>9}{:>9}{:>8}",
            format!("{} ({runs})", self.name),
            "Gbit/s",
            "± spread",
            "client",
            "gateway",
            "relay",
            "machine",
            "loss",
            "RTT p50",
            "p99 ms",
            "lost"
        )?;
        for (who, summary) in &self.summaries {
            let cost = |role| {
                let cost = summary.cpu.get(role);
                cost.map_or_else(|| "–".into(), |cost| format!("{cost:.2}"))
            };
            let rtt = |value: &dyn Fn(&Delays) -> String| {
                summary.rtt.as_ref().map_or_else(|| "–".into(), value)
            };
            writeln!(
                f,
                "  {who:<24}{:>8.3}{:>9}{:>9}{:>9}{:>9}{:>9.2}{:>8}{:>9}{:>9}{:>8}",
                summary.bps / 1e9,
                in_percent(summary.spread),
                cost("client"),
                cost("gateway"),
                cost("relay"),
                summary.machine,
                summary.loss.map_or_else(|| "–".into(), in_percent),
                rtt(&|rtt| format!("{:.2}", rtt.p50)),
                rtt(&|rtt| format!("{:.2}", rtt.p99)),
                rtt(&|rtt| in_percent(rtt.lost)),
            )?;
        }
        if let Some(ratio) = self.ratio_to_best_peer {
            writeln!(f, "  ours is {ratio:.2} × the best peer")?;
        }

        Ok(())
    }
}

fn in_percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn in_mb(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}
