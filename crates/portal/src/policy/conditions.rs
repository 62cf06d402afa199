//! Whether the conditions of a policy hold (portal-protocol.md §10.3).

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::model::{Condition, Country};

/// What conditions look at.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Circumstances {
    /// The client's address, as the portal sees it.
    pub remote_ip: Option<IpAddr>,
    /// The country that the address is in.
    pub country: Option<Country>,
    /// Whether an admin marked the device as verified.
    pub verified: bool,
    /// What time it is, in Unix seconds.
    pub unix: u64,
}

/// Whether conditions hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Conformity {
    /// They do.
    Holds {
        /// Until this time at the latest, in Unix seconds; the time itself is out. `None` means that time changes nothing.
        until: Option<u64>,
    },
    /// They don't: all that is against it.
    Violated(BTreeSet<Property>),
}

/// What a condition is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Property {
    /// The client's address.
    RemoteIp,
    /// The country that it is in.
    Location,
    /// Whether the device is verified.
    Verified,
    /// The time.
    Time,
}

impl Property {
    /// Its name on the wire (portal-protocol.md §5.5).
    pub fn name(self) -> &'static str {
        match self {
            Self::RemoteIp => "remote_ip",
            Self::Location => "remote_ip_location_region",
            Self::Verified => "client_verified",
            Self::Time => "current_utc_datetime",
        }
    }
}

/// Whether all of `conditions` hold.
///
/// An address or country that isn't known conforms to nothing, whether it is asked for or excluded.
pub fn evaluate(conditions: &[Condition], circumstances: &Circumstances) -> Conformity {
    let mut violated = BTreeSet::new();
    let mut until = None;
    for condition in conditions {
        if !holds(condition, circumstances) {
            violated.insert(property(condition));
        } else if let Condition::Time(window) = condition {
            until = earlier(until, window.until(circumstances.unix));
        }
    }

    match violated.is_empty() {
        true => Conformity::Holds { until },
        false => Conformity::Violated(violated),
    }
}

/// The earlier of two ends; `None` is never.
pub(crate) fn earlier(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

/// An end by which the later one is greater; `None` is never.
pub(crate) fn lateness(end: Option<u64>) -> (bool, Option<u64>) {
    (end.is_none(), end)
}

/// Whether one condition holds.
pub(crate) fn holds(condition: &Condition, circumstances: &Circumstances) -> bool {
    let Circumstances {
        remote_ip,
        country,
        verified,
        unix,
    } = circumstances;

    match condition {
        Condition::RemoteIp(networks) => {
            remote_ip.is_some_and(|address| networks.contains(address))
        }
        Condition::NotRemoteIp(networks) => {
            remote_ip.is_some_and(|address| !networks.contains(address))
        }
        Condition::Country(countries) => {
            country.is_some_and(|country| countries.contains(&country))
        }
        Condition::NotCountry(countries) => {
            country.is_some_and(|country| !countries.contains(&country))
        }
        Condition::Verified => *verified,
        Condition::Time(window) => window.contains(*unix),
    }
}

fn property(condition: &Condition) -> Property {
    match condition {
        Condition::RemoteIp(_) | Condition::NotRemoteIp(_) => Property::RemoteIp,
        Condition::Country(_) | Condition::NotCountry(_) => Property::Location,
        Condition::Verified => Property::Verified,
        Condition::Time(_) => Property::Time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Networks, Window};

    /// Friday 2026-01-02, 12:00 UTC.
    const NOON: u64 = 1_767_355_200;

    #[test]
    fn each_condition_looks_at_its_own_property() {
        let networks = || Networks::from_iter(["203.0.113.0/24".parse().unwrap()]);
        let germany = || BTreeSet::from(["DE".parse().unwrap()]);
        for (condition, circumstances, is_met) in [
            (Condition::RemoteIp(networks()), at("203.0.113.9"), true),
            (Condition::RemoteIp(networks()), at("198.51.100.1"), false),
            (Condition::RemoteIp(networks()), at("2001:db8::1"), false),
            (Condition::RemoteIp(networks()), nowhere(), false),
            (Condition::NotRemoteIp(networks()), at("203.0.113.9"), false),
            (Condition::NotRemoteIp(networks()), at("198.51.100.1"), true),
            (Condition::NotRemoteIp(networks()), nowhere(), false),
            (Condition::Country(germany()), within("DE"), true),
            (Condition::Country(germany()), within("FR"), false),
            (Condition::Country(germany()), nowhere(), false),
            (Condition::NotCountry(germany()), within("DE"), false),
            (Condition::NotCountry(germany()), within("FR"), true),
            (Condition::NotCountry(germany()), nowhere(), false),
            (Condition::Verified, nowhere(), false),
            (Condition::Verified, verified(), true),
            (window("fri", "12:00-12:01"), nowhere(), true),
            (window("fri", "11:00-12:00"), nowhere(), false),
        ] {
            assert_eq!(holds(&condition, &circumstances), is_met, "{condition}");
        }
    }

    #[test]
    fn all_must_hold_and_the_first_window_to_close_is_the_end() {
        let early = window("fri", "08:00-13:00");
        let late = window("fri", "12:00-14:00");

        let both = evaluate(&[late, early.clone()], &nowhere());
        assert_eq!(
            both,
            Conformity::Holds {
                until: Some(NOON + 3600)
            }
        );
        assert_eq!(evaluate(&[], &nowhere()), Conformity::Holds { until: None });

        let closed = window("mon", "00:00-24:00");
        let violated = evaluate(
            &[early, closed.clone(), Condition::Verified, closed],
            &nowhere(),
        );
        let names = BTreeSet::from([Property::Verified, Property::Time]);
        assert_eq!(violated, Conformity::Violated(names));
    }

    #[test]
    fn never_is_later_than_any_end() {
        assert_eq!(earlier(None, Some(5)), Some(5));
        assert_eq!(earlier(Some(7), Some(5)), Some(5));
        assert_eq!(earlier(None, None), None);
        assert!(lateness(None) > lateness(Some(u64::MAX)));
        assert!(lateness(Some(6)) > lateness(Some(5)));
    }

    fn nowhere() -> Circumstances {
        Circumstances {
            unix: NOON,
            ..Circumstances::default()
        }
    }

    fn at(address: &str) -> Circumstances {
        Circumstances {
            remote_ip: Some(address.parse().unwrap()),
            ..nowhere()
        }
    }

    fn within(country: &str) -> Circumstances {
        Circumstances {
            country: Some(country.parse().unwrap()),
            ..nowhere()
        }
    }

    fn verified() -> Circumstances {
        Circumstances {
            verified: true,
            ..nowhere()
        }
    }

    fn window(weekdays: &str, hours: &str) -> Condition {
        Condition::Time(Window {
            weekdays: weekdays.parse().unwrap(),
            hours: hours.parse().unwrap(),
            timezone: "UTC".parse().unwrap(),
        })
    }
}
