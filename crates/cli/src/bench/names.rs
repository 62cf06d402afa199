//! What can be measured, and what is asked for (`--only`).

use super::contestant::Contestant;
use super::fairness::{self, Definition};
use crate::exit::{Exit, Failure};
use crate::rig::system::PathKind;

/// A row of the table `throughput`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Measurement {
    pub(super) name: &'static str,
    pub(super) path: PathKind,
    pub(super) traffic: Traffic,
    pub(super) direction: Direction,
}

/// What iperf3 sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Traffic {
    /// So many TCP connections, as fast as they go.
    Tcp { streams: u8 },
    /// Datagrams, at the highest rate that loses less than a hundredth.
    Udp,
}

/// Where the payload goes, as the client sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    Up,
    Down,
    Both,
}

/// What is to be measured.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selection {
    pub(super) throughput: Vec<Measurement>,
    pub(super) fairness: Vec<Definition>,
    pub(super) minute_after: MinuteAfter,
    /// Whether only relays are compared.
    relays_alone: bool,
}

/// Whether memory is looked at again after a minute of rest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum MinuteAfter {
    NotAsked,
    Asked,
}

const fn tcp(name: &'static str, path: PathKind, streams: u8, direction: Direction) -> Measurement {
    Measurement {
        name,
        path,
        traffic: Traffic::Tcp { streams },
        direction,
    }
}

const fn udp(name: &'static str, direction: Direction) -> Measurement {
    Measurement {
        name,
        path: PathKind::Direct,
        traffic: Traffic::Udp,
        direction,
    }
}

/// All rows of the table `throughput`, in its order.
const THROUGHPUT: [Measurement; 8] = [
    tcp("tcp1-up", PathKind::Direct, 1, Direction::Up),
    tcp("tcp1-down", PathKind::Direct, 1, Direction::Down),
    tcp("tcp4-up", PathKind::Direct, 4, Direction::Up),
    tcp("tcp4-down", PathKind::Direct, 4, Direction::Down),
    udp("udp-up", Direction::Up),
    udp("udp-down", Direction::Down),
    tcp("relayed-tcp1-up", PathKind::Relayed, 1, Direction::Up),
    tcp("relayed-tcp1-down", PathKind::Relayed, 1, Direction::Down),
];

const MEMORY: &str = "memory";

/// What a relay costs, beside the direct path and beside another relay.
const RELAY: &str = "relay";

/// What that is reckoned from.
const RELAY_LOADS: [&str; 4] = [
    "tcp1-up",
    "tcp1-down",
    "relayed-tcp1-up",
    "relayed-tcp1-down",
];

const FAIRNESS: &str = "fairness";

/// What memory is measured under, if nothing else is asked for.
const MEMORY_LOADS: [&str; 2] = ["tcp1-up", "tcp1-down"];

impl Selection {
    /// Understands `--only`: a name, or what some names begin with. Without it: everything.
    ///
    /// # Errors
    ///
    /// Exit 2: nothing is called so.
    pub(super) fn parse(only: Option<&str>) -> Result<Self, Failure> {
        let Some(only) = only else {
            return Ok(Self {
                throughput: THROUGHPUT.to_vec(),
                fairness: fairness::ROWS.to_vec(),
                minute_after: MinuteAfter::Asked,
                relays_alone: false,
            });
        };
        let names = || {
            let rows = THROUGHPUT.iter().map(|row| row.name);
            let fairness = fairness::ROWS.iter().map(|row| row.name);
            rows.chain([MEMORY, RELAY, FAIRNESS]).chain(fairness)
        };
        // A name may be the beginning of another.
        let is_exact = names().any(|name| name == only);
        let is_meant = |name: &str| match is_exact {
            true => name == only,
            false => !only.is_empty() && name.starts_with(only),
        };
        if !names().any(is_meant) {
            let names: Vec<_> = names().collect();
            return Err(Failure::new(
                Exit::WrongUse,
                format_args!(
                    "--only {only:?}: nothing is called so; there are {}",
                    names.join(", ")
                ),
            ));
        }

        let (memory, all_fairness) = (is_meant(MEMORY), is_meant(FAIRNESS));
        let relay = only == RELAY;
        Ok(Self {
            throughput: THROUGHPUT
                .into_iter()
                .filter(|row| {
                    is_meant(row.name)
                        || (memory && MEMORY_LOADS.contains(&row.name))
                        || (relay && RELAY_LOADS.contains(&row.name))
                })
                .collect(),
            fairness: fairness::ROWS
                .into_iter()
                .filter(|row| all_fairness || is_meant(row.name))
                .collect(),
            relays_alone: relay,
            minute_after: match memory {
                true => MinuteAfter::Asked,
                false => MinuteAfter::NotAsked,
            },
        })
    }

    /// Whether a contestant has to do with it.
    pub(super) fn is_about(&self, contestant: Contestant) -> bool {
        !self.relays_alone || contestant.has_our_ends()
    }

    /// The rows that are measured on that path.
    pub(super) fn on(&self, path: PathKind) -> impl Iterator<Item = Measurement> {
        self.throughput
            .iter()
            .copied()
            .filter(move |row| row.path == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(only: &str) -> Vec<&'static str> {
        let selection = Selection::parse(Some(only)).unwrap();

        selection.throughput.iter().map(|row| row.name).collect()
    }

    #[test]
    fn a_name_or_its_beginning_picks() {
        assert_eq!(names("tcp1-up"), ["tcp1-up"]);
        assert_eq!(names("tcp1"), ["tcp1-up", "tcp1-down"]);
        assert_eq!(names("udp"), ["udp-up", "udp-down"]);
        assert_eq!(names("memory"), ["tcp1-up", "tcp1-down"]);
        assert_eq!(names("relay"), RELAY_LOADS);
        assert_eq!(names("relayed"), ["relayed-tcp1-up", "relayed-tcp1-down"]);
        assert_eq!(Selection::parse(None).unwrap().throughput.len(), 8);

        let fairness = |only| Selection::parse(Some(only)).unwrap().fairness;
        assert_eq!(fairness("fairness").len(), fairness::ROWS.len());
        assert_eq!(fairness("eight").len(), 2);
        assert_eq!(names("eight"), [""; 0]);
        assert!(fairness("tcp1").is_empty());
    }

    #[test]
    fn a_minute_is_waited_only_when_it_is_asked_for() {
        let minute = |only| Selection::parse(only).unwrap().minute_after;

        assert_eq!(minute(None), MinuteAfter::Asked);
        assert_eq!(minute(Some("memory")), MinuteAfter::Asked);
        assert_eq!(minute(Some("tcp")), MinuteAfter::NotAsked);
    }

    #[test]
    fn what_nothing_is_called_is_wrong_use_and_lists_the_names() {
        for only in ["nothing", "", "up"] {
            let failure = Selection::parse(Some(only)).unwrap_err();

            assert_eq!(failure.exit, Exit::WrongUse);
            assert!(failure.to_string().contains("relayed-tcp1-up"), "{failure}");
        }
    }
}
