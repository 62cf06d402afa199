//! What is true of names, where and when.

use std::time::Instant;

use super::code;
use super::message::{of_ip, to_name};
use crate::scenario::{NameEntry, RecordKind, Scenario};

/// The names of all sites and of everybody, over time.
pub(crate) struct Zones {
    /// When the world began: what is asked of an earlier time is what held then.
    start: Instant,
    /// Oldest first.
    entries: Vec<(Instant, NameEntry)>,
}

/// What an honest server says of a question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Says {
    pub(crate) code: u8,
    /// The data of its records, sorted.
    pub(crate) data: Vec<Vec<u8>>,
}

impl Zones {
    pub(crate) fn new(scenario: &Scenario, start: Instant) -> Self {
        let entries = scenario.names.iter().cloned();

        Self {
            start,
            entries: entries.map(|entry| (start, entry)).collect(),
        }
    }

    /// Something else is said of a name from `now` on.
    pub(crate) fn set(&mut self, now: Instant, entry: NameEntry) {
        self.entries.push((now, entry));
    }

    /// What holds for a name at `at`, for those at `site` or elsewhere.
    pub(crate) fn entry(&self, at: Instant, site: Option<&str>, name: &str) -> Option<&NameEntry> {
        let of = |place: Option<&str>| {
            let mut entries = self.entries.iter().rev();
            let found = entries.find(|(since, entry)| {
                *since <= at && entry.name == name && entry.site.as_deref() == place
            });
            found.map(|(_, entry)| entry).filter(|entry| exists(entry))
        };

        site.and_then(|site| of(Some(site))).or_else(|| of(None))
    }

    /// What an honest server at `site`, or elsewhere, says at `at`.
    pub(crate) fn say(&self, at: Instant, site: Option<&str>, name: &str, kind: u16) -> Says {
        match self.entry(at, site, name) {
            Some(entry) => Says {
                code: code::NOERROR,
                data: data_of(entry, kind),
            },
            None => Says {
                code: code::NXDOMAIN,
                data: Vec::new(),
            },
        }
    }

    /// Whether such a server says, or said at any time since `from`, what `is_meant`.
    pub(crate) fn any(
        &self,
        (from, until): (Instant, Instant),
        (site, name): (Option<&str>, &str),
        kind: u16,
        is_meant: impl Fn(&Says) -> bool,
    ) -> bool {
        let mut times = self.times((from, until), name);

        times.any(|at| is_meant(&self.say(at, site, name, kind)))
    }

    /// The same for all the time.
    pub(crate) fn all(
        &self,
        span: (Instant, Instant),
        of: (Option<&str>, &str),
        kind: u16,
        is_meant: impl Fn(&Says) -> bool,
    ) -> bool {
        !self.any(span, of, kind, |says| !is_meant(says))
    }

    /// Whether anything else is said of a name in a span.
    pub(crate) fn changes(&self, span: (Instant, Instant), name: &str) -> bool {
        self.times(span, name).count() > 1
    }

    fn times(
        &self,
        (from, until): (Instant, Instant),
        name: &str,
    ) -> impl Iterator<Item = Instant> {
        let from = from.max(self.start);
        let changes = self
            .entries
            .iter()
            .filter(move |(since, entry)| *since > from && *since <= until && entry.name == name);

        [from].into_iter().chain(changes.map(|(since, _)| *since))
    }
}

fn exists(entry: &NameEntry) -> bool {
    !entry.ips.is_empty() || entry.text.is_some() || entry.srv.is_some()
}

fn data_of(entry: &NameEntry, kind: u16) -> Vec<Vec<u8>> {
    let mut data: Vec<Vec<u8>> = match RecordKind(kind) {
        RecordKind::A => of_family(entry, true).collect(),
        RecordKind::AAAA => of_family(entry, false).collect(),
        RecordKind::TXT => entry.text.map(|len| text(entry, len)).into_iter().collect(),
        RecordKind::SRV => {
            let srv = entry.srv.as_ref().map(|(port, host)| {
                let head = [[0, 0], [0, 0], port.to_be_bytes()].concat();
                [head, to_name(host)].concat()
            });
            srv.into_iter().collect()
        }
        _ => Vec::new(),
    };
    data.sort_unstable();

    data
}

fn of_family(entry: &NameEntry, is_ipv4: bool) -> impl Iterator<Item = Vec<u8>> {
    let ips = entry.ips.iter().filter(move |ip| ip.is_ipv4() == is_ipv4);

    ips.map(|ip| of_ip(*ip))
}

/// Strings of 255 bytes at most (RFC 1035 §3.3.14), which no other name has.
fn text(entry: &NameEntry, len: u16) -> Vec<u8> {
    let site = entry.site.as_deref().unwrap_or("everybody");
    let letters = entry.name.bytes().chain(site.bytes()).cycle();
    let letters: Vec<u8> = letters.take(len.into()).collect();
    let strings = letters.chunks(255).map(|string| {
        let len = u8::try_from(string.len()).unwrap_or(u8::MAX);
        [&[len], string].concat()
    });

    strings.collect::<Vec<_>>().concat()
}
