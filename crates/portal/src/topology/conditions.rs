//! `conditions` of a `[[policy]]`.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::Range;
use std::str::FromStr;

use serde::Deserialize;
use toml::Spanned;

use super::TopologyError;
use super::file::Source;
use crate::model::{Condition, Weekdays, Window, parse_network};

/// One table. What it names must hold together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCondition {
    remote_ip: Option<Texts>,
    not_remote_ip: Option<Texts>,
    country: Option<Texts>,
    not_country: Option<Texts>,
    verified: Option<Spanned<bool>>,
    weekdays: Option<Spanned<OneOrMany>>,
    hours: Option<Spanned<String>>,
    timezone: Option<Spanned<String>>,
}

type Texts = Spanned<Vec<Spanned<String>>>;

/// `"mon-fri"` or `["mon", "wed"]`.
#[derive(Deserialize)]
#[serde(untagged, expecting = "write `\"mon-fri\"` or `[\"mon\", \"wed\"]`")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Source<'_> {
    /// All conditions of a policy, sorted, so that two that mean the same are equal.
    pub(super) fn conditions(
        self,
        tables: Vec<Spanned<RawCondition>>,
    ) -> Result<Vec<Condition>, TopologyError> {
        let mut conditions = BTreeSet::new();
        for table in tables {
            let span = table.span();
            let named = self.condition(table.into_inner())?;
            if named.is_empty() {
                let problem = "a condition without any key says nothing; leave it out";
                return Err(self.wrong(span, "policy.conditions", problem));
            }
            conditions.extend(named);
        }

        Ok(conditions.into_iter().collect())
    }

    fn condition(self, raw: RawCondition) -> Result<Vec<Condition>, TopologyError> {
        let remote_ip = self.set(raw.remote_ip, "conditions.remote_ip", parse_network)?;
        let not_remote_ip =
            self.set(raw.not_remote_ip, "conditions.not_remote_ip", parse_network)?;
        let country = self.set(raw.country, "conditions.country", str::parse)?;
        let not_country = self.set(raw.not_country, "conditions.not_country", str::parse)?;
        let verified = match raw.verified {
            Some(verified) if !verified.get_ref() => {
                let problem = "only `true` is a condition; leave the key out to let any device in";
                return Err(self.wrong(verified.span(), "conditions.verified", problem));
            }
            verified => verified.map(|_| Condition::Verified),
        };
        let window = self.window(raw.weekdays, raw.hours, raw.timezone)?;

        Ok([
            remote_ip.map(|networks| Condition::RemoteIp(networks.into())),
            not_remote_ip.map(|networks| Condition::NotRemoteIp(networks.into())),
            country.map(Condition::Country),
            not_country.map(Condition::NotCountry),
            verified,
            window.map(Condition::Time),
        ]
        .into_iter()
        .flatten()
        .collect())
    }

    fn set<T: Ord, E: Display>(
        self,
        texts: Option<Texts>,
        key: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<BTreeSet<T>>, TopologyError> {
        let Some(texts) = texts else {
            return Ok(None);
        };
        let span = texts.span();
        let mut set = BTreeSet::new();
        for text in texts.into_inner() {
            let value =
                read(text.get_ref()).map_err(|error| self.wrong(text.span(), key, error))?;
            set.insert(value);
        }
        if set.is_empty() {
            let problem = "an empty list lets nobody in, or everybody; name at least one, or leave the key out";
            return Err(self.wrong(span, key, problem));
        }

        Ok(Some(set))
    }

    fn window(
        self,
        weekdays: Option<Spanned<OneOrMany>>,
        hours: Option<Spanned<String>>,
        timezone: Option<Spanned<String>>,
    ) -> Result<Option<Window>, TopologyError> {
        if let (None, None, Some(timezone)) = (&weekdays, &hours, &timezone) {
            let problem = "a time zone alone says nothing; give `weekdays` or `hours` too";
            return Err(self.wrong(timezone.span(), "conditions.timezone", problem));
        }
        if weekdays.is_none() && hours.is_none() {
            return Ok(None);
        }
        let weekdays = match weekdays {
            None => Weekdays::default(),
            Some(weekdays) => {
                let days = match weekdays.get_ref() {
                    OneOrMany::One(text) => text.parse(),
                    OneOrMany::Many(texts) => Weekdays::of(texts.iter().map(String::as_str)),
                };
                self.good(weekdays.span(), "conditions.weekdays", days)?
            }
        };

        Ok(Some(Window {
            weekdays,
            hours: self.text(hours, "conditions.hours")?.unwrap_or_default(),
            timezone: self
                .text(timezone, "conditions.timezone")?
                .unwrap_or_default(),
        }))
    }

    fn text<T: FromStr<Err: Display>>(
        self,
        text: Option<Spanned<String>>,
        key: &str,
    ) -> Result<Option<T>, TopologyError> {
        let value = text.map(|text| self.good(text.span(), key, text.get_ref().parse()));

        value.transpose()
    }

    fn good<T, E: Display>(
        self,
        span: Range<usize>,
        key: &str,
        value: Result<T, E>,
    ) -> Result<T, TopologyError> {
        value.map_err(|error| self.wrong(span, key, error))
    }
}
