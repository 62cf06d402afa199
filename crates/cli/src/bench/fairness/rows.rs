//! The table `fairness`: what all runs of a row come to, and whether it holds.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Definition, Figure, Finding, Goal};
use crate::bench::contestant::Contestant;
use crate::bench::stats::{RoundTrips, median, percentile, rounded};

/// A row; its JSON is a promise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(in crate::bench) struct Row {
    name: &'static str,
    unit: &'static str,
    #[serde(flatten)]
    ours: Option<Summary>,
    peers: BTreeMap<Contestant, Summary>,
    #[serde(flatten)]
    goals: BTreeMap<&'static str, f64>,
    /// `None`: it could not be measured.
    holds: Option<bool>,
}

/// What a contestant has shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(in crate::bench) struct Summary {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p95: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<f64>,
}

impl Row {
    /// Sums up; `None` if nobody was measured.
    pub(in crate::bench) fn of(definition: &Definition, findings: &[Finding]) -> Option<Self> {
        let mut figures: BTreeMap<Contestant, Vec<&Figure>> = BTreeMap::new();
        for finding in findings.iter().filter(|found| found.row == definition.name) {
            let of_contestant = figures.entry(finding.contestant).or_default();
            of_contestant.push(&finding.figure);
        }
        let mut peers: BTreeMap<Contestant, Summary> = figures
            .iter()
            .map(|(who, figures)| (*who, Summary::of(figures)))
            .collect();
        if peers.is_empty() {
            return None;
        }
        let ours = peers.remove(&Contestant::Ours);
        let raw = peers.get(&Contestant::Raw).copied();

        Some(Self {
            name: definition.name,
            unit: definition.unit,
            ours,
            peers,
            goals: definition.goal.named(),
            holds: ours.and_then(|ours| definition.goal.holds(ours, raw)),
        })
    }
}

impl Summary {
    /// Delays of all runs are one lot; of values the one in the middle counts.
    fn of(figures: &[&Figure]) -> Self {
        let mut trips = RoundTrips::default();
        let mut values = Vec::new();
        for figure in figures {
            match figure {
                Figure::Delays(seen) => trips.extend(seen),
                Figure::Value(value) => values.push(*value),
            }
        }
        let delays = trips.delays();

        Self {
            value: median(&values).map(|value| rounded(value, 4)),
            p50: delays.map(|delays| delays.p50),
            p95: delays.and_then(|_| Some(rounded(percentile(&trips.millis, 95)?, 3))),
            p99: delays.map(|delays| delays.p99),
            lost: delays.map(|delays| delays.lost),
        }
    }
}

impl Goal {
    fn named(self) -> BTreeMap<&'static str, f64> {
        match self {
            Self::Delays { p50, p99 } => p50
                .map(|p50| ("goal_p50", p50))
                .into_iter()
                .chain([("goal_p99", p99)])
                .collect(),
            Self::AddedToRaw { p99 } => [("goal_added_p99", p99)].into(),
            Self::P95(p95) => [("goal_p95", p95)].into(),
            Self::AtLeast(least) | Self::ShareOfTwo(least) => [("goal_min", least)].into(),
            Self::AtMost(most) => [("goal_max", most)].into(),
        }
    }

    /// `None` if what it needs was not measured.
    fn holds(self, ours: Summary, raw: Option<Summary>) -> Option<bool> {
        Some(match self {
            Self::Delays { p50, p99 } => {
                p50.is_none_or(|goal| ours.p50.is_some_and(|p50| p50 <= goal))
                    && ours.p99? <= p99
                    && ours.lost? == 0.0
            }
            Self::AddedToRaw { p99 } => ours.p99? - raw?.p99? <= p99,
            Self::P95(goal) => ours.p95? <= goal,
            Self::AtLeast(least) => ours.value? >= least,
            Self::AtMost(most) => ours.value? <= most,
            Self::ShareOfTwo(least) => (least..=1.0 - least).contains(&ours.value?),
        })
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let goals: Vec<_> = self
            .goals
            .iter()
            .map(|(name, goal)| format!("{} {goal}", name.trim_start_matches("goal_")))
            .collect();
        let verdict = match self.holds {
            Some(true) => "holds",
            Some(false) => "does NOT hold",
            None => "not measured to the end",
        };
        writeln!(
            f,
            "{} ({}): goal {}, {verdict}",
            self.name,
            self.unit,
            goals.join(", ")
        )?;
        if let Some(ours) = &self.ours {
            writeln!(f, "  {:<24}{ours}", Contestant::Ours)?;
        }
        for (who, summary) in &self.peers {
            writeln!(f, "  {who:<24}{summary}")?;
        }

        Ok(())
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(value) = self.value {
            return write!(f, "{value}");
        }
        let shown = |value: Option<f64>| value.unwrap_or(f64::NAN);

        write!(
            f,
            "p50 {:<8.2} p95 {:<8.2} p99 {:<8.2} lost {:.1} %",
            shown(self.p50),
            shown(self.p95),
            shown(self.p99),
            shown(self.lost) * 100.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fairness::ROWS;

    fn definition(name: &str) -> &'static Definition {
        static ALL: [Definition; ROWS.len()] = ROWS;

        ALL.iter().find(|row| row.name == name).unwrap()
    }

    fn delays(row: &'static str, contestant: Contestant, millis: f64) -> Finding {
        Finding {
            row,
            contestant,
            figure: Figure::Delays(RoundTrips {
                millis: vec![millis; 100],
                sent: 100,
            }),
        }
    }

    #[test]
    fn the_json_is_the_promised_one() {
        let name = "sparse-rtt-under-load";
        let findings = [
            delays(name, Contestant::Ours, 0.5),
            delays(name, Contestant::Gotatun, 12.0),
        ];

        let row = Row::of(definition(name), &findings).unwrap();
        let expected = serde_json::json!({
            "name": name, "unit": "ms", "p50": 0.5, "p95": 0.5, "p99": 0.5, "lost": 0.0,
            "peers": {"gotatun": {"p50": 12.0, "p95": 12.0, "p99": 12.0, "lost": 0.0}},
            "goal_p50": 1.0, "goal_p99": 5.0, "holds": true
        });
        assert_eq!(serde_json::to_value(&row).unwrap(), expected);
    }

    #[test]
    fn what_is_lost_or_late_does_not_hold() {
        let name = "sparse-rtt-under-load";
        let mut lossy = delays(name, Contestant::Ours, 0.5);
        if let Figure::Delays(trips) = &mut lossy.figure {
            trips.sent += 1;
        }

        for finding in [lossy, delays(name, Contestant::Ours, 6.0)] {
            let row = Row::of(definition(name), &[finding]).unwrap();
            assert_eq!(row.holds, Some(false));
        }
    }

    #[test]
    fn a_bottleneck_is_compared_with_no_tunnel_at_all() {
        let name = "bottleneck-rtt";
        let ours = delays(name, Contestant::Ours, 59.0);
        let raw = delays(name, Contestant::Raw, 50.0);

        let row = Row::of(definition(name), &[ours.clone(), raw]).unwrap();
        assert_eq!(row.holds, Some(true));
        let row = Row::of(definition(name), &[ours]).unwrap();
        assert_eq!(row.holds, None);
    }

    #[test]
    fn of_values_the_one_in_the_middle_counts() {
        let name = "one-flow-against-64";
        let findings = [0.1, 0.45, 0.5].map(|value| Finding {
            row: name,
            contestant: Contestant::Ours,
            figure: Figure::Value(value),
        });

        let row = Row::of(definition(name), &findings).unwrap();
        assert_eq!(row.ours.unwrap().value, Some(0.45));
        assert_eq!(row.holds, Some(true));
        assert_eq!(Row::of(definition(name), &[]), None);
    }
}
