//! Fairness: who waits, and for how long, while somebody else takes all there is.

mod rows;
mod scenes;

use std::fmt;
use std::time::Duration;

use super::Bench;
use super::contestant::{Contestant, Entrant};
use super::standing::Clients;
use super::stats::RoundTrips;
use crate::exit::Failure;
use crate::rig::plan::Place;
use crate::rig::system::PathKind;
use crate::status::Quantiles;

pub(super) use rows::Row;

/// A situation that all its rows are measured in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scene {
    /// One client takes everything; sparse flows of the same and of another client.
    Greedy,
    /// One client takes everything behind a narrow cable.
    Bottleneck,
    /// Eight clients want the same.
    Eight(PathKind),
    /// One client has 64 flows, another has one.
    ManyFlows,
    /// Clients come up while another takes everything.
    Newcomers,
    /// The relay is asked while it carries everything.
    BusyRelay,
    /// One flow, whose packets should arrive in order.
    Order,
}

/// A row of the table: what is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Definition {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) goal: Goal,
    pub(super) scene: Scene,
}

/// When a row holds (field.md 5.3).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// Milliseconds, and nothing may be lost.
    Delays {
        p50: Option<f64>,
        p99: f64,
    },
    /// The p99 may be so many milliseconds longer than without a tunnel.
    AddedToRaw {
        p99: f64,
    },
    /// Of a hundred, 95 may take so many milliseconds.
    P95(f64),
    /// Milliseconds: of a hundred times, 99 and all.
    Bounds {
        p99: f64,
        max: f64,
    },
    /// Of a thousand, 999 may take so many milliseconds.
    P999(f64),
    AtLeast(f64),
    AtMost(f64),
    /// Neither less than this nor more than the rest.
    ShareOfTwo(f64),
}

/// What one run has shown of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) row: &'static str,
    pub(super) contestant: Contestant,
    pub(super) figure: Figure,
}

/// A value, or many of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Figure {
    Delays(RoundTrips),
    Value(f64),
    /// Of times that somebody else has counted.
    Quantiles(Quantiles),
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value:.3}"),
            Self::Delays(trips) => match trips.delays() {
                Some(delays) => write!(f, "{:.2} ms, p99 {:.2} ms", delays.p50, delays.p99),
                None => f.write_str("nothing has come back"),
            },
            Self::Quantiles(Quantiles { p50, p99, p999, .. }) => {
                write!(f, "{p50:.2} ms, p99 {p99:.2} ms, p999 {p999:.2} ms")
            }
        }
    }
}

const RTT: &str = "sparse-rtt-under-load";
const OTHER_PEER: &str = "other-peer-rtt-under-load";
const BOTTLENECK: &str = "bottleneck-rtt";
const EIGHT_JAIN: &str = "eight-clients-jain";
const EIGHT_LEAST: &str = "eight-clients-min-share";
const RELAYED_JAIN: &str = "relayed-eight-clients-jain";
const RELAYED_LEAST: &str = "relayed-eight-clients-min-share";
const ONE_FLOW: &str = "one-flow-against-64";
const NEWCOMER: &str = "connect-under-load";
const BINDING: &str = "relay-binding-rtt-under-load";
const HEARTBEAT: &str = "portal-heartbeat-rtt-under-load";
const REJOINS: &str = "portal-reconnects";
/// These two are the worse of client and gateway, from their start on.
const LATENESS: &str = "timer-lateness-under-load";
const TURN: &str = "longest-turn-under-load";
/// Behind a lost segment all come too early: this counts losses, too.
const OUT_OF_ORDER: &str = "tcp-out-of-order";
const REORDERING: &str = "tcp-reordering";

const fn row(name: &'static str, unit: &'static str, goal: Goal, scene: Scene) -> Definition {
    Definition {
        name,
        unit,
        goal,
        scene,
    }
}

/// All rows, in the table's order; those of a scene are beside each other.
pub(super) const ROWS: [Definition; 16] = [
    row(
        RTT,
        "ms",
        Goal::Delays {
            p50: Some(1.0),
            p99: 5.0,
        },
        Scene::Greedy,
    ),
    row(
        OTHER_PEER,
        "ms",
        Goal::Delays {
            p50: None,
            p99: 3.0,
        },
        Scene::Greedy,
    ),
    row(
        HEARTBEAT,
        "ms",
        Goal::Delays {
            p50: None,
            p99: 100.0,
        },
        Scene::Greedy,
    ),
    row(REJOINS, "times", Goal::AtMost(0.0), Scene::Greedy),
    row(
        LATENESS,
        "ms",
        Goal::Bounds {
            p99: 5.0,
            max: 20.0,
        },
        Scene::Greedy,
    ),
    row(TURN, "ms", Goal::P999(2.0), Scene::Greedy),
    row(
        BOTTLENECK,
        "ms",
        Goal::AddedToRaw { p99: 10.0 },
        Scene::Bottleneck,
    ),
    row(
        EIGHT_JAIN,
        "index",
        Goal::AtLeast(0.95),
        Scene::Eight(PathKind::Direct),
    ),
    row(
        EIGHT_LEAST,
        "of fair",
        Goal::AtLeast(0.8),
        Scene::Eight(PathKind::Direct),
    ),
    row(
        RELAYED_JAIN,
        "index",
        Goal::AtLeast(0.95),
        Scene::Eight(PathKind::Relayed),
    ),
    row(
        RELAYED_LEAST,
        "of fair",
        Goal::AtLeast(0.8),
        Scene::Eight(PathKind::Relayed),
    ),
    row(ONE_FLOW, "share", Goal::ShareOfTwo(0.4), Scene::ManyFlows),
    row(NEWCOMER, "ms", Goal::P95(100.0), Scene::Newcomers),
    row(
        BINDING,
        "ms",
        Goal::Delays {
            p50: None,
            p99: 5.0,
        },
        Scene::BusyRelay,
    ),
    row(OUT_OF_ORDER, "segments", Goal::AtMost(0.0), Scene::Order),
    row(REORDERING, "times", Goal::AtMost(0.0), Scene::Order),
];

/// A bottleneck, or newcomers, need so long to show anything.
const AT_LEAST: Duration = Duration::from_secs(5);

impl Scene {
    fn path(self) -> PathKind {
        match self {
            Self::Eight(path) => path,
            Self::BusyRelay => PathKind::Relayed,
            Self::Greedy | Self::Bottleneck | Self::ManyFlows | Self::Newcomers | Self::Order => {
                PathKind::Direct
            }
        }
    }

    /// Others than ours have no relay, and nothing that makes connections when they are needed. Another relay is compared by
    /// throughput alone.
    fn is_for(self, contestant: Contestant) -> bool {
        let is_ours_alone = self.path() == PathKind::Relayed || self == Self::Newcomers;

        contestant == Contestant::Ours || !(is_ours_alone || contestant.has_our_ends())
    }

    fn clients(self) -> Clients<'static> {
        const ALL: &[Place] = &Place::CLIENTS;
        let (one, rest) = ALL.split_at(1);
        let (two, _) = ALL.split_at(2);

        match self {
            Self::Greedy | Self::ManyFlows => Clients::running(two),
            Self::Eight(_) => Clients::running(ALL),
            Self::Newcomers => Clients {
                running: one,
                waiting: rest,
            },
            Self::BusyRelay => Clients {
                running: one,
                waiting: two.split_at(1).1,
            },
            Self::Bottleneck | Self::Order => Clients::running(one),
        }
    }
}

impl Bench {
    /// Lets a contestant play a scene, once.
    ///
    /// # Errors
    ///
    /// It doesn't come up, or something that makes load failed.
    pub(super) async fn play(
        &self,
        entrant: &Entrant,
        scene: Scene,
    ) -> Result<Vec<Finding>, Failure> {
        let contestant = entrant.contestant;
        if !scene.is_for(contestant) {
            return Ok(Vec::new());
        }

        let figures = self
            .with(entrant, scene.path(), scene.clients(), async |standing| {
                let figures = match scene {
                    Scene::Greedy => standing.greedy(self.seconds).await,
                    Scene::Bottleneck => standing.bottleneck(self.seconds.max(AT_LEAST)).await,
                    Scene::Eight(path) => standing.eight(path, self.seconds).await,
                    Scene::ManyFlows => standing.many_flows(self.seconds).await,
                    Scene::Newcomers => standing.newcomers(self.seconds.max(AT_LEAST)).await,
                    Scene::BusyRelay => standing.busy_relay(self.seconds).await,
                    Scene::Order => standing.order(self.seconds).await,
                }?;
                standing.check_path(scene.path())?;
                Ok(figures)
            })
            .await?;

        let finding = |(row, figure)| Finding {
            row,
            contestant,
            figure,
        };
        Ok(figures.into_iter().map(finding).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_different_and_scenes_together() {
        for (i, one) in ROWS.iter().enumerate() {
            for other in ROWS.iter().skip(i + 1) {
                assert_ne!(one.name, other.name);
            }
        }
        let mut scenes: Vec<_> = ROWS.iter().map(|row| row.scene).collect();
        scenes.dedup();
        assert_eq!(scenes.len(), 8);
    }

    #[test]
    fn what_others_can_not_do_is_ours_alone() {
        assert!(!Scene::BusyRelay.is_for(Contestant::Gotatun));
        assert!(!Scene::Newcomers.is_for(Contestant::Raw));
        assert!(Scene::Greedy.is_for(Contestant::Raw));
        assert!(Scene::BusyRelay.is_for(Contestant::Ours));
    }
}
