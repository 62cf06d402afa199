//! Durations, shares and rates as texts.

use std::fmt;
use std::time::Duration;

use super::PerMille;

/// The units of durations, the largest first, in nanoseconds.
const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// The largest duration that a scenario may name: ten years.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Writes a duration as a whole number of the largest unit that has one.
pub(super) struct Span(pub(super) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        let unit = UNITS
            .iter()
            .find(|(_, size)| nanos.is_multiple_of(u128::from(*size)));
        let (name, size) = unit.copied().unwrap_or(("ns", 1));

        write!(f, "{}{name}", nanos / u128::from(size))
    }
}

/// Reads `1.5s`, `25ms`, `3h`.
pub(super) fn span(text: &str) -> Option<Duration> {
    let digits = text.find(|character: char| character.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(digits);
    let (_, size) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }

    let whole: u64 = whole.parse().ok()?;
    let mut nanos = whole.checked_mul(*size)?;
    if !fraction.is_empty() {
        let tenths = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        let part: u64 = fraction.parse().ok()?;
        nanos = nanos.checked_add(part.checked_mul(*size)?.checked_div(tenths)?)?;
    }
    let span = Duration::from_nanos(nanos);

    (span <= LONGEST).then_some(span)
}

impl fmt::Display for PerMille {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, tenth) = (self.0 / 10, self.0 % 10);
        match tenth {
            0 => write!(f, "{whole}%"),
            _ => write!(f, "{whole}.{tenth}%"),
        }
    }
}

/// Reads `2%`, `0.1%`.
pub(super) fn per_mille(text: &str) -> Option<PerMille> {
    let number = text.strip_suffix('%')?;
    let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
    let (whole, tenth): (u16, u16) = (whole.parse().ok()?, tenth.parse().ok()?);
    let share = whole.checked_mul(10)?.checked_add(tenth)?;

    (tenth < 10 && share <= 1_000).then_some(PerMille(share))
}

/// Reads `64kbit`, `10Mbit`.
pub(super) fn rate(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix("kbit") {
        Some(number) => (number, 1_000),
        None => (text.strip_suffix("Mbit")?, 1_000_000),
    };
    let rate: u64 = number.parse().ok()?;

    rate.checked_mul(unit)
        .filter(|rate| (1_000..=100_000_000_000).contains(rate))
}

/// Writes a rate.
pub(super) struct Rate(pub(super) u64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1_000_000 {
            0 => write!(f, "{}Mbit", self.0 / 1_000_000),
            _ => write!(f, "{}kbit", self.0 / 1_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written() {
        for (text, millis) in [("1.5s", 1_500), ("25ms", 25), ("3h", 10_800_000), ("0s", 0)] {
            let duration = Duration::from_millis(millis);
            assert_eq!(span(text), Some(duration));
            assert_eq!(span(&Span(duration).to_string()), Some(duration));
        }
        for text in ["", "5", "s", "-1s", "1.s1", "1d", "99999999999h"] {
            assert_eq!(span(text), None, "{text}");
        }
    }

    #[test]
    fn shares_and_rates_are_read_as_they_are_written() {
        for (text, share) in [("2%", 20), ("0.1%", 1), ("100%", 1_000)] {
            assert_eq!(per_mille(text), Some(PerMille(share)));
            assert_eq!(PerMille(share).to_string(), text);
        }
        assert_eq!(per_mille("101%"), None);
        assert_eq!(per_mille("0.15%"), None);
        for (text, bits) in [("64kbit", 64_000), ("10Mbit", 10_000_000)] {
            assert_eq!(rate(text), Some(bits));
            assert_eq!(Rate(bits).to_string(), text);
        }
        assert_eq!(rate("0kbit"), None);
    }
}
