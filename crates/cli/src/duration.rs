//! Durations as people write them: `90s`, `1h 30m`, `30d`.

use std::str::FromStr;
use std::time::Duration;

/// A duration that was given as text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Span(pub(crate) Duration);

/// A duration whose bare number means seconds; with units it is read like a [`Span`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(seconds) = text.trim().parse::<u32>() {
            return Ok(Self(Duration::from_secs(seconds.into())));
        }
        let Span(span) = text
            .parse()
            .map_err(|_| "write seconds, such as `30`, or numbers with units, such as `5m`")?;

        Ok(Self(span))
    }
}

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str =
            "write numbers with units (ms, s, m, h, d, w), such as `90s` or `1h 30m`";

        let mut rest = text.trim();
        let mut total = Duration::ZERO;
        if rest.is_empty() {
            return Err(WRONG);
        }
        while !rest.is_empty() {
            let unit_at = rest.find(|c: char| !c.is_ascii_digit()).ok_or(WRONG)?;
            let (number, after) = rest.split_at(unit_at);
            let unit_len = after
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_len);
            let number: u64 = number.parse().map_err(|_| WRONG)?;
            let part = number
                .checked_mul(millis_of(unit).ok_or(WRONG)?)
                .map(Duration::from_millis);
            total = part
                .and_then(|part| total.checked_add(part))
                .ok_or("that is too long")?;
            rest = after.trim_start();
        }

        Ok(Self(total))
    }
}

fn millis_of(unit: &str) -> Option<u64> {
    Some(match unit {
        "ms" => 1,
        "s" | "sec" | "secs" => 1_000,
        "m" | "min" | "mins" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        "w" | "week" | "weeks" => 604_800_000,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, secs) in [
            ("90s", 90),
            ("1h 30m", 5_400),
            ("1h30m", 5_400),
            ("30d", 2_592_000),
            (" 1 w ".trim(), 0),
            ("2days", 172_800),
        ] {
            if secs == 0 {
                assert!(text.parse::<Span>().is_err(), "{text}");
            } else {
                assert_eq!(text.parse(), Ok(Span(Duration::from_secs(secs))), "{text}");
            }
        }
    }

    #[test]
    fn a_bare_number_of_seconds_is_one_where_that_is_meant() {
        for (text, secs) in [("0", 0), ("30", 30), (" 30 ", 30), ("30s", 30), ("5m", 300)] {
            let read: Result<Seconds, _> = text.parse();
            assert_eq!(read, Ok(Seconds(Duration::from_secs(secs))), "{text}");
        }
        for text in ["", "-1", "1.5", "99999999999"] {
            assert!(text.parse::<Seconds>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            " ",
            "5",
            "s",
            "5 s",
            "-5s",
            "5y",
            "99999999999999999999s",
            "999999999999999999w",
        ] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
    }
}
