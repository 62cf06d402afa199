//! Hours of the week, as a clock on a wall somewhere shows them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

/// The minutes of a day.
const DAY: u16 = 24 * 60;

/// The seconds of a minute.
const MINUTE: i64 = 60;

/// How many ranges that touch are followed, and changes of the offset in between. Six whole days touch at the most, and no
/// zone changes its offset twice in a week.
const MAX_STEPS: usize = 32;

/// How the days of a week are written, Monday first.
const WEEKDAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Some hours of some weekdays, by the clock of a time zone.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Which days.
    pub weekdays: Weekdays,
    /// Which part of each.
    pub hours: Hours,
    /// Whose clock counts.
    pub timezone: Zone,
}

/// Days of the week; at least one.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Weekdays([bool; 7]);

/// A part of a day, to the minute. The beginning belongs to it, the end doesn't.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Hours {
    begin: u16,
    end: u16,
}

/// A time zone of the IANA database that this program carries, so that every machine answers the same.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone {
    name: String,
    rules: TimeZone,
}

/// A text that names no weekdays, no hours, or no time zone.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidWindow {
    /// It names no days.
    #[error("`{0}` is not a list of weekdays; write `mon-fri`, `mon,wed` or `sat-sun`")]
    Weekdays(String),
    /// It isn't two times of a day.
    #[error("`{0}` is not a part of a day; write `08:00-18:00`")]
    Hours(String),
    /// It ends before anything passed.
    #[error(
        "`{0}` ends at or before its start; write a policy for each side of midnight, one with `22:00-24:00` and one with `00:00-06:00`"
    )]
    Backwards(String),
    /// No zone is called that.
    #[error(
        "there is no time zone `{0}`; write a name of the IANA database: `Europe/Berlin`, `UTC`"
    )]
    Zone(String),
}

/// What a clock in the zone shows, and what an instant is called elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WallClock {
    /// The day of the week, Monday is zero.
    weekday: usize,
    /// Seconds since midnight.
    second: i64,
}

impl Window {
    /// Whether `unix` (seconds) is in the window.
    pub fn contains(&self, unix: u64) -> bool {
        self.left_at(self.timezone.clock(timestamp(unix))).is_some()
    }

    /// When the window that `unix` (seconds) is in ends, in Unix seconds; ranges that touch are one. `None` if it never
    /// does. Outside of it, `unix` itself.
    ///
    /// The clock on the wall decides: a window that lies in the hour that is skipped doesn't open that day, and one in
    /// the hour that comes twice opens twice.
    pub fn until(&self, unix: u64) -> Option<u64> {
        if self.weekdays == Weekdays::default() && self.hours == Hours::default() {
            return None;
        }
        let mut now = timestamp(unix);
        for _ in 0..MAX_STEPS {
            let Some(left) = self.left_at(self.timezone.clock(now)) else {
                break;
            };
            let end = now.as_second().saturating_add(left);
            let change = self.timezone.rules.following(now).next();
            let change = change.map_or(i64::MAX, |change| change.timestamp().as_second());
            let Ok(next) = Timestamp::from_second(end.min(change)) else {
                return None;
            };
            now = next;
        }

        Some(u64::try_from(now.as_second()).unwrap_or_default().max(unix))
    }

    /// The seconds until the range ends that the clock is in, if it is in one.
    fn left_at(&self, clock: WallClock) -> Option<i64> {
        let is_day = self.weekdays.0.get(clock.weekday).copied();
        let begin = i64::from(self.hours.begin) * MINUTE;
        let end = i64::from(self.hours.end) * MINUTE;
        let is_in = is_day.unwrap_or_default() && (begin..end).contains(&clock.second);

        is_in.then(|| end - clock.second)
    }
}

/// As in reasons: `weekdays mon-fri 08:00-18:00 Europe/Berlin`.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "weekdays {} ", self.weekdays)?;
        write!(f, "{} {}", self.hours, self.timezone)
    }
}

impl Weekdays {
    /// Puts lists together, each written as for [`Weekdays::from_str`].
    ///
    /// # Errors
    ///
    /// [`InvalidWindow::Weekdays`] for the first that is none, and for no list at all.
    pub fn of<'a>(lists: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidWindow> {
        let mut all = [false; 7];
        for list in lists {
            let Self(days) = list.parse()?;
            for (day, is_named) in all.iter_mut().zip(days) {
                *day |= is_named;
            }
        }
        if all == [false; 7] {
            return Err(InvalidWindow::Weekdays(String::new()));
        }

        Ok(Self(all))
    }
}

/// Every day.
impl Default for Weekdays {
    fn default() -> Self {
        Self([true; 7])
    }
}

/// Reads `mon`, `mon,wed`, `mon-fri`, and `sat-mon` across the end of the week.
impl FromStr for Weekdays {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let invalid = || InvalidWindow::Weekdays(text.to_owned());
        let number = |name: &str| WEEKDAYS.iter().position(|day| *day == name.trim());
        let mut days = [false; 7];
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = number(first).zip(number(last)).ok_or_else(invalid)?;
            let length = (last + days.len() - first) % days.len();
            let named = (0..=length).map(|offset| (first + offset) % WEEKDAYS.len());
            for number in named.collect::<BTreeSet<usize>>() {
                if let Some(day) = days.get_mut(number) {
                    *day = true;
                }
            }
        }

        Ok(Self(days))
    }
}

/// Writes what [`Weekdays::from_str`] reads; three days or more in a row as a range.
impl fmt::Display for Weekdays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = vec![];
        let mut named = WEEKDAYS.iter().zip(self.0).peekable();
        while let Some((first, is_named)) = named.next() {
            if !is_named {
                continue;
            }
            let mut row = vec![*first];
            while let Some((day, _)) = named.next_if(|(_, is_named)| *is_named) {
                row.push(day);
            }
            match row.as_slice() {
                [first, _, .., last] => parts.push(format!("{first}-{last}")),
                few => parts.push(few.join(",")),
            }
        }

        f.write_str(&parts.join(","))
    }
}

/// The whole day.
impl Default for Hours {
    fn default() -> Self {
        Self { begin: 0, end: DAY }
    }
}

/// Reads `08:00-18:00`; `24:00` is the end of the day.
impl FromStr for Hours {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let times = text.split_once('-').and_then(|(begin, end)| {
            let begin = minute(begin).filter(|begin| *begin < DAY)?;
            Some((begin, minute(end)?))
        });
        let (begin, end) = times.ok_or_else(|| InvalidWindow::Hours(text.to_owned()))?;
        if end <= begin {
            return Err(InvalidWindow::Backwards(text.to_owned()));
        }

        Ok(Self { begin, end })
    }
}

/// Writes what [`Hours::from_str`] reads.
impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begin, end } = self;
        let (begin_hour, begin) = (begin / 60, begin % 60);
        let (end_hour, end) = (end / 60, end % 60);

        write!(f, "{begin_hour:02}:{begin:02}-{end_hour:02}:{end:02}")
    }
}

impl Zone {
    /// What a clock there shows at `unix` (seconds).
    pub fn clock_at(&self, unix: u64) -> WallClock {
        self.clock(timestamp(unix))
    }

    fn clock(&self, at: Timestamp) -> WallClock {
        let there = self.rules.to_datetime(at);
        let minutes = i64::from(there.hour()) * 60 + i64::from(there.minute());

        WallClock {
            weekday: usize::try_from(there.weekday().to_monday_zero_offset()).unwrap_or_default(),
            second: minutes * MINUTE + i64::from(there.second()),
        }
    }
}

/// UTC.
impl Default for Zone {
    fn default() -> Self {
        Self {
            name: "UTC".to_owned(),
            rules: TimeZone::UTC,
        }
    }
}

/// Reads a name of the IANA database, whatever its case.
impl FromStr for Zone {
    type Err = InvalidWindow;

    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let unknown = || InvalidWindow::Zone(text.to_owned());
        let rules = (TimeZoneDatabase::bundled().get(text)).map_err(|_| unknown())?;
        // "Etc/Unknown" stands for a failure to find the machine's own zone.
        if rules.is_unknown() {
            return Err(unknown());
        }
        let name = rules.iana_name().unwrap_or(text).to_owned();

        Ok(Self { name, rules })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl PartialOrd for Zone {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Zone {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.name.cmp(&other.name)
    }
}

/// As in reasons: `Sun 03:12`.
impl fmt::Display for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        let name = NAMES.get(self.weekday).copied().unwrap_or_default();
        let minutes = self.second / MINUTE;

        write!(f, "{name} {:02}:{:02}", minutes / 60, minutes % 60)
    }
}

macro_rules! text_form {
    ($($name:ident),* $(,)?) => {$(
        impl TryFrom<String> for $name {
            type Error = InvalidWindow;

            fn try_from(text: String) -> Result<Self, InvalidWindow> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}

text_form!(Weekdays, Hours, Zone);

/// Minutes since midnight, from `HH:MM`.
fn minute(text: &str) -> Option<u16> {
    let two = |text: &str| {
        let is_two = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_two.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = text.trim().split_once(':')?;
    let minute = two(minute).filter(|minute| *minute < 60)?;

    Some(two(hour)? * 60 + minute).filter(|minute| *minute <= DAY)
}

/// The latest instant that has a date stands for all later ones.
fn timestamp(unix: u64) -> Timestamp {
    let second = i64::try_from(unix).unwrap_or(i64::MAX);

    Timestamp::from_second(second).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;
