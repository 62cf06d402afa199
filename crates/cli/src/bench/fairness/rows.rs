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
    /// `None`: what was measured doesn't tell.
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
    p999: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
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
    /// Delays of all runs are one lot; of values the one in the middle counts, of longest times the longest.
    fn of(figures: &[&Figure]) -> Self {
        let mut trips = RoundTrips::default();
        let (mut values, mut longest) = (Vec::new(), Vec::new());
        let (mut p50s, mut p99s, mut p999s) = (Vec::new(), Vec::new(), Vec::new());
        for figure in figures {
            match figure {
                Figure::Delays(seen) => trips.extend(seen),
                Figure::Value(value) => values.push(*value),
                Figure::Quantiles(seen) => {
                    p50s.push(seen.p50);
                    p99s.push(seen.p99);
                    p999s.push(seen.p999);
                    longest.push(seen.max);
                }
            }
        }
        let delays = trips.delays();
        longest.extend(&trips.millis);
        let middle = |values: &[f64]| median(values).map(|value| rounded(value, 3));

        Self {
            value: median(&values).map(|value| rounded(value, 4)),
            p50: delays.map(|delays| delays.p50).or_else(|| middle(&p50s)),
            p95: percentile(&trips.millis, 95).map(|p95| rounded(p95, 3)),
            p99: delays.map(|delays| delays.p99).or_else(|| middle(&p99s)),
            p999: middle(&p999s),
            max: percentile(&longest, 100).map(|max| rounded(max, 3)),
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
            Self::Bounds { p99, max } => [("goal_p99", p99), ("goal_max", max)].into(),
            Self::P999(p999) => [("goal_p999", p999)].into(),
            Self::AtLeast(least) | Self::ShareOfTwo(least) => [("goal_min", least)].into(),
            Self::AtMost(most) => [("goal_max", most)].into(),
        }
    }

    /// `None` if what it needs was not measured, or leaves it open.
    fn holds(self, ours: Summary, raw: Option<Summary>) -> Option<bool> {
        Some(match self {
            Self::Delays { p50, p99 } => {
                p50.is_none_or(|goal| ours.p50.is_some_and(|p50| p50 <= goal))
                    && ours.p99? <= p99
                    && ours.lost? == 0.0
            }
            Self::AddedToRaw { p99 } => ours.p99? - raw?.p99? <= p99,
            Self::P95(goal) => ours.p95? <= goal,
            Self::Bounds { p99, max } => {
                match (is_within(ours.p99?, p99), is_within(ours.max?, max)) {
                    (Some(false), _) | (_, Some(false)) => false,
                    (Some(true), Some(true)) => true,
                    (None, _) | (_, None) => return None,
                }
            }
            Self::P999(goal) => return is_within(ours.p999?, goal),
            Self::AtLeast(least) => ours.value? >= least,
            Self::AtMost(most) => ours.value? <= most,
            Self::ShareOfTwo(least) => (least..=1.0 - least).contains(&ours.value?),
        })
    }
}

/// Whether a counted time keeps to a goal; `None` if its rounding hides that: it was more than four fifths of what is
/// shown.
fn is_within(shown: f64, goal: f64) -> Option<bool> {
    if shown <= goal {
        Some(true)
    } else if shown / 1.25 >= goal {
        Some(false)
    } else {
        None
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
            None => "open by what was measured",
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
        let times = [
            ("p50", self.p50),
            ("p95", self.p95),
            ("p99", self.p99),
            ("p999", self.p999),
            ("max", self.max),
        ];
        let times = times
            .into_iter()
            .filter_map(|(name, time)| Some(format!("{name} {:<9.2}", time?)));
        let lost = self.lost.map(|lost| format!("lost {:.1} %", lost * 100.0));
        let shown: String = times.chain(lost).collect();

        f.write_str(shown.trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::fairness::ROWS;
    use crate::status::Quantiles;

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
            "name": name, "unit": "ms", "p50": 0.5, "p95": 0.5, "p99": 0.5, "max": 0.5, "lost": 0.0,
            "peers": {"gotatun": {"p50": 12.0, "p95": 12.0, "p99": 12.0, "max": 12.0, "lost": 0.0}},
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

    fn quantiles(row: &'static str, p99: f64, max: f64) -> Finding {
        Finding {
            row,
            contestant: Contestant::Ours,
            figure: Figure::Quantiles(Quantiles {
                p50: 0.1,
                p99,
                p999: max / 2.0,
                max,
            }),
        }
    }

    #[test]
    fn a_heartbeat_may_take_a_tenth_of_a_second_and_none_may_be_lost() {
        let name = "portal-heartbeat-rtt-under-load";
        for (millis, holds) in [(100.0, true), (101.0, false)] {
            let row = Row::of(definition(name), &[delays(name, Contestant::Ours, millis)]).unwrap();
            assert_eq!(row.holds, Some(holds), "{millis} ms");
        }
        let mut lossy = delays(name, Contestant::Ours, 1.0);
        if let Figure::Delays(trips) = &mut lossy.figure {
            trips.sent += 1;
        }
        let row = Row::of(definition(name), &[lossy]).unwrap();
        assert_eq!(row.holds, Some(false));
    }

    #[test]
    fn lateness_is_bounded_twice() {
        let name = "timer-lateness-under-load";
        for (p99, max, holds) in [
            (4.095, 16.383, Some(true)),
            (16.383, 16.383, Some(false)),
            (4.095, 65.535, Some(false)),
            // The p99 may be 4.9 ms, the longest one 19.7 ms.
            (6.143, 16.383, None),
            (4.095, 24.575, None),
        ] {
            let row = Row::of(definition(name), &[quantiles(name, p99, max)]).unwrap();
            assert_eq!(row.holds, holds, "p99 {p99} ms, max {max} ms");
        }
        assert_eq!(Row::of(definition(name), &[]), None);

        let row = Row::of(definition(name), &[quantiles(name, 4.0, 16.0)]).unwrap();
        let expected = serde_json::json!({
            "name": name, "unit": "ms", "p50": 0.1, "p99": 4.0, "p999": 8.0, "max": 16.0, "peers": {},
            "goal_p99": 5.0, "goal_max": 20.0, "holds": true
        });
        assert_eq!(serde_json::to_value(&row).unwrap(), expected);
    }

    #[test]
    fn one_turn_of_a_thousand_may_be_longer() {
        let name = "longest-turn-under-load";
        for (p999, holds) in [
            (1.791, Some(true)),
            // It may be 1.7 ms.
            (2.047, None),
            (2.559, Some(false)),
        ] {
            let found = quantiles(name, 0.511, p999 * 2.0);
            let row = Row::of(definition(name), &[found]).unwrap();
            assert_eq!(row.holds, holds, "p999 {p999} ms");
        }
    }

    #[test]
    fn of_all_runs_the_longest_time_counts_and_the_p99_in_the_middle() {
        let name = "longest-turn-under-load";
        let findings = [(0.5, 1.0), (4.0, 9.0), (1.0, 2.0)];

        let findings = findings.map(|(p99, max)| quantiles(name, p99, max));
        let ours = Row::of(definition(name), &findings).unwrap().ours.unwrap();
        assert_eq!((ours.p99, ours.max), (Some(1.0), Some(9.0)));
    }

    #[test]
    fn only_what_was_measured_is_shown() {
        let name = "timer-lateness-under-load";
        let row = Row::of(definition(name), &[quantiles(name, 4.0, 16.0)]).unwrap();

        let text = row.to_string();
        assert!(text.contains("max 16.00"), "{text}");
        assert!(!text.contains("lost") && !text.contains("p95"), "{text}");
    }
}
