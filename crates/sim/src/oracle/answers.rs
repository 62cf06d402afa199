//! What a client may say to a question (client.md §4.3): the names of resources stand for its own addresses, and all others
//! for what an honest server said not longer ago than its answer holds.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Names;
use super::names::{LAG, during};
use super::pattern;
use super::view::{Told, View};
use crate::names::{Ask, Message, Says, Servers, Verdict, Zones, code, to_ip, to_name};
use crate::scenario::{RecordKind, Role, Scenario, ServerAt, Via};

/// Firefox leaves our answers alone where this name doesn't exist.
const CANARY: &str = "use-application-dns.net";

/// For how many seconds an answer of the client's own may be kept (client.md §4.3).
const OWN_TTL: u32 = 1;

/// For how long an answer that no longer holds is better than none (RFC 8767 §5).
const STALE: Duration = Duration::from_secs(24 * 3_600);

/// The addresses of a family that a message has.
fn addresses(message: &Message, is_ipv4: bool) -> Vec<IpAddr> {
    let kind = match is_ipv4 {
        true => RecordKind::A,
        false => RecordKind::AAAA,
    };

    message
        .data(kind.0)
        .iter()
        .filter_map(|data| to_ip(data))
        .collect()
}

/// Whose site is asked: the resource with the most specific pattern, and of several the greatest id (client.md §4.3).
fn best<'a>(meant: &[&'a Told]) -> Option<&'a Told> {
    let meant = meant.iter().copied();

    meant.min_by(|one, other| {
        let order = pattern::compare(&one.pattern, &other.pattern);
        order.then(other.id.cmp(&one.id))
    })
}

/// What a datagram of an answer takes everywhere on its way (gateway.md §12).
const FITS: usize = 1_200;

/// What there is to know of names.
pub(crate) struct Truth<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) zones: &'a Zones,
    pub(crate) servers: &'a Servers,
}

impl View {
    /// Whether the client has known for a while that nobody else is to be asked (client.md §4.3).
    pub(super) fn is_own(&self, ask: &Ask) -> bool {
        let kind = RecordKind(ask.kind);
        let address = reverse(&ask.name).filter(|_| kind == RecordKind::PTR);
        if let Some(name) = address.and_then(|ip| self.name_at(ip)) {
            let mut given = self.given.get(name).into_iter();
            return given.any(|at| *at + LAG < ask.asked_at);
        }
        let is_served = [
            RecordKind::A,
            RecordKind::AAAA,
            RecordKind::ANY,
            RecordKind::HTTPS,
            RecordKind::SVCB,
        ]
        .contains(&kind);
        let from = ask.asked_at.checked_sub(LAG).unwrap_or(ask.asked_at);
        let mut versions = during(&self.told, from, ask.asked_at + LAG).peekable();
        let is_told = |told: &Vec<Told>| {
            let mut told = told.iter();
            told.any(|it| pattern::matches(&it.pattern, &ask.name))
        };

        ask.name == CANARY || is_served && versions.peek().is_some() && versions.all(is_told)
    }
}

impl Names {
    /// Judges an answer.
    ///
    /// # Errors
    ///
    /// It is none that the client may give.
    pub(crate) fn judge(
        &mut self,
        now: Instant,
        ask: &Ask,
        truth: &Truth<'_>,
    ) -> Result<Verdict, String> {
        let Some((_, message)) = &ask.answer else {
            return Ok(Verdict::Fine);
        };
        let kind = RecordKind(ask.kind);
        if [RecordKind::A, RecordKind::AAAA, RecordKind::ANY].contains(&kind)
            && self.is_named(ask, now)
            && message.answers.iter().all(|record| record.ttl == OWN_TTL)
        {
            for is_ipv4 in [true, false] {
                let ips = addresses(message, is_ipv4);
                if !ips.is_empty() {
                    self.note((now, ask.host), &ask.name, is_ipv4, &ips)?;
                }
            }
        }
        let default = View::default();
        let view = self.view(ask.host).unwrap_or(&default);
        let from = ask.asked_at.checked_sub(LAG).unwrap_or(ask.asked_at);
        let mut versions: Vec<&[Told]> = during(&view.told, from, now).map(Vec::as_slice).collect();
        versions.reverse();
        if versions.is_empty() {
            versions.push(&[]);
        }
        let is_steady = versions.len() == 1;
        let verdicts = versions
            .into_iter()
            .filter_map(|told| self.verdict(now, (ask, message), (view, told), truth));

        verdicts
            // Whoever asks while resources change may have asked the wrong ones.
            .map(|verdict| if is_steady { verdict } else { Verdict::Fine })
            .min_by_key(|verdict| matches!(verdict, Verdict::Failed { .. }))
            .ok_or_else(|| {
                let data: Vec<_> = message
                    .answers
                    .iter()
                    .map(|it| (it.kind, &it.data))
                    .collect();
                let (name, code) = (&ask.name, message.code());
                format!("`{name}` {}: the answer {code} {data:?} is wrong", ask.kind)
            })
    }

    /// Whether a name belonged to a resource at any time of a question.
    fn is_named(&self, ask: &Ask, now: Instant) -> bool {
        let Some(view) = self.view(ask.host) else {
            return false;
        };
        let from = ask.asked_at.checked_sub(LAG).unwrap_or(ask.asked_at);
        let mut versions = during(&view.told, from, now);

        versions.any(|told| {
            told.iter()
                .any(|it| pattern::matches(&it.pattern, &ask.name))
        })
    }

    /// What an answer is to a client that was told of certain resources; `None` if it is wrong.
    fn verdict(
        &self,
        now: Instant,
        (ask, message): (&Ask, &Message),
        (view, told): (&View, &[Told]),
        truth: &Truth<'_>,
    ) -> Option<Verdict> {
        let kind = RecordKind(ask.kind);
        let is_empty = message.answers.is_empty() && !message.is_truncated();
        let fine = |is_fine: bool| is_fine.then_some(Verdict::Fine);
        if ask.name == CANARY {
            return fine(message.code() == code::NXDOMAIN && is_empty);
        }
        if let Some(name) = reverse(&ask.name)
            .filter(|_| kind == RecordKind::PTR)
            .and_then(|ip| view.name_at(ip))
        {
            let is_right = message.data(ask.kind) == [to_name(name)] && own(message);
            let was_given = view
                .given
                .get(name)
                .is_some_and(|at| *at + LAG < ask.asked_at);
            if is_right || was_given {
                return fine(is_right);
            }
        }
        let meant: Vec<&Told> = told
            .iter()
            .filter(|it| pattern::matches(&it.pattern, &ask.name))
            .collect();
        if meant.is_empty() {
            return self.upstream(now, (ask, message), view, truth);
        }
        let has = |is_ipv4: bool| meant.iter().any(|it| it.stack.has(is_ipv4));
        let book = view.book.get(&ask.name);
        // The addresses of each family that is asked for and that there are, and nothing else.
        let own_answer = |wants: [bool; 2]| {
            let families = [true, false].into_iter().zip(wants);
            let wanted: Vec<bool> = families
                .filter(|(is_ipv4, wanted)| *wanted && has(*is_ipv4))
                .map(|(is_ipv4, _)| is_ipv4)
                .collect();
            let mut each = wanted.iter().map(|is_ipv4| {
                let known = book.map(|[v4, v6]| if *is_ipv4 { v4 } else { v6 });
                let said = addresses(message, *is_ipv4);
                said.len() == 4 && Some(&said) == known
            });
            own(message) && message.answers.len() == wanted.len() * 4 && each.all(|is_it| is_it)
        };
        match kind {
            RecordKind::A => fine(own_answer([true, false])),
            RecordKind::AAAA => fine(own_answer([false, true])),
            RecordKind::ANY => fine(own_answer([true, true])),
            RecordKind::HTTPS | RecordKind::SVCB => {
                fine(message.code() == code::NOERROR && is_empty)
            }
            _ => self.at_site(now, (ask, message), best(&meant), truth),
        }
    }

    /// The servers of the site know, and nobody else does.
    fn at_site(
        &self,
        now: Instant,
        (ask, message): (&Ask, &Message),
        told: Option<&Told>,
        truth: &Truth<'_>,
    ) -> Option<Verdict> {
        let asked = told.into_iter().flat_map(|told| &told.sites);
        let asked = asked.flat_map(|site| gateways(truth.scenario, site));
        let from = ask.asked_at.checked_sub(truth.servers.longest_ttl() + LAG);
        let span = (from.unwrap_or(ask.asked_at), now);
        let mut servers = asked.flat_map(|gateway| self.systems(gateway, span).flatten());
        let says = |ip: &IpAddr| said(ask, message, span, truth, &ServerAt::Ip(*ip));
        if servers.any(says) {
            return Some(Verdict::Said { at_site: true });
        }

        is_failure(message).then_some(Verdict::Failed { at_site: true })
    }

    /// The servers that the client has were asked.
    fn upstream(
        &self,
        now: Instant,
        (ask, message): (&Ask, &Message),
        view: &View,
        truth: &Truth<'_>,
    ) -> Option<Verdict> {
        let recent = ask.asked_at.checked_sub(truth.servers.longest_ttl() + LAG);
        let recent = (recent.unwrap_or(ask.asked_at), now);
        let says = |span: (Instant, Instant)| {
            let mut servers = during(&view.servers, span.0, span.1).flatten();
            servers.any(|server| said(ask, message, span, truth, server))
        };
        if says(recent) {
            return Some(Verdict::Said { at_site: false });
        }
        let failed = Verdict::Failed { at_site: false };
        let long_ago = now.checked_sub(STALE);
        let first = view.servers.first().map(|(since, _)| *since);
        let old = (long_ago.or(first).unwrap_or(now), now);
        let is_stale = message.code() == code::NOERROR && says(old);

        (is_failure(message) || is_stale).then_some(failed)
    }
}

/// Whether an honest server said so.
fn said(
    ask: &Ask,
    message: &Message,
    span: (Instant, Instant),
    truth: &Truth<'_>,
    server: &ServerAt,
) -> bool {
    let found = truth
        .servers
        .find(server)
        .and_then(|it| truth.servers.get(it));
    let Some(server) = found else {
        return false;
    };
    let site = server.site.as_deref();
    if message.is_truncated() {
        let is_long = |says: &Says| answer_len(ask, says) > FITS;
        let is_cut = truth.servers.truncates(server, span)
            || (truth.zones).any(span, (site, &ask.name), ask.kind, is_long);
        return ask.via == Via::Udp && message.answers.is_empty() && is_cut;
    }
    let is_it = |says: &Says| {
        let is_complete = message.data(ask.kind) == says.data;
        says.code == message.code() && is_complete && message.answers.len() == says.data.len()
    };

    truth.zones.any(span, (site, &ask.name), ask.kind, is_it)
}

/// The least length of a message that says so: with pointers for all owners, and with EDNS.
fn answer_len(ask: &Ask, says: &Says) -> usize {
    let question = 12 + to_name(&ask.name).len() + 4;
    let records: usize = says.data.iter().map(|data| 12 + data.len()).sum();

    question + records + 11
}

/// Whether it is an answer that the client made itself.
fn own(message: &Message) -> bool {
    let mut records = message.answers.iter();

    message.code() == code::NOERROR
        && !message.is_truncated()
        && records.all(|record| record.ttl == OWN_TTL)
}

fn is_failure(message: &Message) -> bool {
    let is_code = [code::SERVFAIL, code::REFUSED].contains(&message.code());

    is_code && message.answers.is_empty()
}

/// The gateways of a site.
pub(super) fn gateways<'a>(
    scenario: &'a Scenario,
    site: &'a str,
) -> impl Iterator<Item = usize> + 'a {
    let hosts = scenario.hosts.iter().enumerate();

    hosts
        .filter(
            move |(_, host)| matches!(&host.role, Role::Gateway { site: other } if other == site),
        )
        .map(|(number, _)| number)
}

/// The address that a name is the reverse of (RFC 1035 §3.5, RFC 3596 §2.5).
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let numbers: Vec<u8> = labels
            .rsplit('.')
            .map(|label| label.parse().ok())
            .collect::<Option<_>>()?;
        return <[u8; 4]>::try_from(numbers).ok().map(IpAddr::from);
    }
    let labels = name.strip_suffix(".ip6.arpa")?;
    let nibbles: Vec<u8> = labels
        .rsplit('.')
        .map(|label| match label.len() {
            1 => u8::from_str_radix(label, 16).ok(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = nibbles
        .chunks_exact(2)
        .map(|pair| pair.iter().fold(0, |byte, nibble| byte << 4 | nibble))
        .collect();

    <[u8; 16]>::try_from(bytes)
        .ok()
        .filter(|_| nibbles.len() == 32)
        .map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// client.md §15.2.
    #[test]
    fn addresses_are_read_backwards() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        assert_eq!(reverse("1.0.96.100.in-addr.arpa"), ip("100.96.0.1"));
        assert_eq!(reverse("0.1.2.3.4.in-addr.arpa"), None);
        let v6 = "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(reverse(v6), ip("2001:db8::567:89ab"));
        assert_eq!(reverse(&format!("0.{v6}")), None);
        assert_eq!(reverse("4.3.2.1.ip6.arpa"), None);
    }
}
