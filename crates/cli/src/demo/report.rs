//! What the demo has found out (cli.md "Demo").

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::rig::plan::Place;
use crate::rig::system::PathKind;

/// The report; its JSON is a promise.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whether everything is as it should be.
    pub(super) ok: bool,
    /// The path in use at the end.
    pub(super) path: PathKind,
    #[serde(rename = "ready_ms", serialize_with = "millis")]
    pub(super) ready: Duration,
    #[serde(rename = "first_reply_ms", serialize_with = "millis")]
    pub(super) first_reply: Duration,
    #[serde(rename = "direct_after_ms", serialize_with = "optional_millis")]
    pub(super) direct_after: Option<Duration>,
    #[serde(rename = "rtt_ms")]
    pub(super) rtt: Rtt,
    pub(super) fetches: Vec<Fetch>,
    pub(super) namespaces: BTreeMap<Place, u32>,
    pub(super) log: LogCounts,
}

/// Round-trip times.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Rtt {
    #[serde(serialize_with = "millis")]
    p50: Duration,
    #[serde(serialize_with = "millis")]
    p99: Duration,
}

/// One download.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Fetch {
    pub(super) url: String,
    pub(super) via: Via,
    pub(super) bytes: u64,
    pub(super) sha256_ok: bool,
    pub(super) bps: f64,
}

/// What a download has named its server by.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Via {
    Dns,
    Cidr,
}

/// Lines that a person should have looked at.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct LogCounts {
    pub(super) warn: u64,
    pub(super) error: u64,
}

impl Rtt {
    /// `None` without any measurement.
    pub(super) fn of(mut rtts: Vec<Duration>) -> Option<Self> {
        rtts.sort_unstable();
        let percentile = |percent: usize| {
            let rank = (rtts.len() * percent).div_ceil(100).saturating_sub(1);
            rtts.get(rank).copied()
        };

        Some(Self {
            p50: percentile(50)?,
            p99: percentile(99)?,
        })
    }
}

/// The table for people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "  {name:<28}{value}");

        row("path", self.path.to_string())?;
        row("ready after", in_ms(self.ready))?;
        row("first reply after", in_ms(self.first_reply))?;
        if let Some(direct_after) = self.direct_after {
            row("direct after", in_ms(direct_after))?;
        }
        row(
            "round trip",
            format!(
                "{} median, {} p99",
                in_ms(self.rtt.p50),
                in_ms(self.rtt.p99)
            ),
        )?;
        for fetch in &self.fetches {
            let checked = match fetch.sha256_ok {
                true => "SHA-256 right",
                false => "SHA-256 WRONG",
            };
            let text = format!(
                "{} MiB at {:.0} Mbit/s, {checked}",
                fetch.bytes >> 20,
                fetch.bps / 1e6
            );
            row(&fetch.url, text)?;
        }

        row(
            "log",
            format!("{} warnings, {} errors", self.log.warn, self.log.error),
        )
    }
}

fn in_ms(duration: Duration) -> String {
    format!("{} ms", rounded(duration))
}

/// Milliseconds with as many digits as mean something.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(rounded(*duration))
}

fn optional_millis<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.map(rounded).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_the_promised_one() {
        let report = Report {
            ok: true,
            path: PathKind::Direct,
            ready: Duration::from_millis(812),
            first_reply: Duration::from_micros(94_500),
            direct_after: None,
            rtt: Rtt::of(vec![Duration::from_micros(310); 3]).unwrap(),
            fetches: vec![Fetch {
                url: "http://10.20.0.10/64".into(),
                via: Via::Cidr,
                bytes: 64 << 20,
                sha256_ok: true,
                bps: 2.1e9,
            }],
            namespaces: [(Place::Client, 4711), (Place::Router, 4712)].into(),
            log: LogCounts { warn: 0, error: 0 },
        };

        let expected = serde_json::json!({
            "ok": true,
            "path": "direct",
            "ready_ms": 812.0,
            "first_reply_ms": 94.5,
            "direct_after_ms": null,
            "rtt_ms": {"p50": 0.31, "p99": 0.31},
            "fetches": [
                {"url": "http://10.20.0.10/64", "via": "cidr", "bytes": 67_108_864, "sha256_ok": true, "bps": 2.1e9}
            ],
            "namespaces": {"client": 4711, "router": 4712},
            "log": {"warn": 0, "error": 0}
        });
        assert_eq!(serde_json::to_value(&report).unwrap(), expected);
    }

    #[test]
    fn percentiles_are_measured_values() {
        let rtts = (1..=200).rev().map(Duration::from_millis).collect();

        let rtt = Rtt::of(rtts).unwrap();
        assert_eq!(rtt.p50, Duration::from_millis(100));
        assert_eq!(rtt.p99, Duration::from_millis(198));
        assert_eq!(Rtt::of(vec![]), None);
    }
}
