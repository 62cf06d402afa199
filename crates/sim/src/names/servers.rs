//! Name servers: honest ones, and others.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::message::{Message, code, to_name};
use super::zones::Zones;
use crate::scenario::{Manners, RecordKind, Scenario, ServerAt, Via};

/// What liars say that a name has for an address (RFC 5737).
pub(crate) const LIE: [u8; 4] = [198, 51, 100, 66];

/// What takes an answer without EDNS by UDP (RFC 1035 §4.2.1).
const PLAIN_UDP: u16 = 512;

/// All name servers of a world.
pub(crate) struct Servers {
    list: Vec<Server>,
    start: Instant,
}

pub(crate) struct Server {
    pub(crate) at: ServerAt,
    pub(crate) site: Option<String>,
    /// How it has behaved, oldest first.
    manners: Vec<(Instant, Manners)>,
}

/// What comes of a question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Reply {
    /// These messages, in this order, after that much time.
    Says(Duration, Vec<Vec<u8>>),
    /// It ends the connection.
    Resets(Duration),
    /// Nothing.
    Nothing,
}

impl Servers {
    pub(crate) fn new(scenario: &Scenario, start: Instant) -> Self {
        let list = scenario.servers.iter().map(|plan| Server {
            at: plan.at.clone(),
            site: plan.site.clone(),
            manners: vec![(start, plan.manners)],
        });

        Self {
            list: list.collect(),
            start,
        }
    }

    pub(crate) fn set(&mut self, now: Instant, server: usize, manners: Manners) {
        if let Some(server) = self.list.get_mut(server) {
            server.manners.push((now, manners));
        }
    }

    pub(crate) fn get(&self, server: usize) -> Option<&Server> {
        self.list.get(server)
    }

    pub(crate) fn find(&self, at: &ServerAt) -> Option<usize> {
        self.list.iter().position(|server| server.at == *at)
    }

    pub(crate) fn at_ip(&self, ip: IpAddr) -> Option<usize> {
        self.find(&ServerAt::Ip(ip))
    }

    /// The longest time from a question to its answer.
    pub(crate) fn longest(&self) -> Duration {
        let manners = self.list.iter().flat_map(|server| &server.manners);

        manners
            .map(|(_, manners)| manners.latency * 2)
            .max()
            .unwrap_or_default()
    }

    /// The longest time for which an answer may be kept.
    pub(crate) fn longest_ttl(&self) -> Duration {
        let manners = self.list.iter().flat_map(|server| &server.manners);
        let longest = manners.map(|(_, manners)| manners.ttl).max();

        Duration::from_secs(longest.unwrap_or_default().into())
    }

    /// Whether a server answers each question in all of a span, and rightly.
    pub(crate) fn is_good(&self, server: usize, (from, until): (Instant, Instant)) -> bool {
        let Some(server) = self.list.get(server) else {
            return false;
        };
        let mut manners = server.during(from, until);

        manners.all(|manners| {
            let silent = manners.silent.is_some_and(|(begins, ends)| {
                self.start + begins <= until && from <= self.start + ends
            });
            let loses = manners.loss.0 > 0;
            !(silent || loses || manners.refuses || manners.fails || manners.resets)
        })
    }

    /// Whether a server cuts answers short at any time of a span.
    pub(crate) fn truncates(&self, server: &Server, (from, until): (Instant, Instant)) -> bool {
        let mut manners = server.during(from.max(self.start), until);

        manners.any(|manners| manners.truncates)
    }

    /// Answers a question that leaves its asker at `now`.
    pub(crate) fn reply(
        &self,
        now: Instant,
        server: usize,
        (question, via): (&[u8], Via),
        zones: &Zones,
        rng: &mut StdRng,
    ) -> Reply {
        let (Some(server), Some(asked)) = (self.list.get(server), Message::parse(question)) else {
            return Reply::Nothing;
        };
        let Some(manners) = server.manners_at(now) else {
            return Reply::Nothing;
        };
        let (elapsed, is_udp) = (now - self.start, via == Via::Udp);
        let is_silent = manners
            .silent
            .is_some_and(|(from, until)| (from..until).contains(&elapsed));
        let is_lost = (0..2).any(|_| rng.random_range(0..1_000) < manners.loss.0);
        if is_silent || is_udp && is_lost {
            return Reply::Nothing;
        }
        // TCP comes first, and what is at a URL needs it, too.
        let ways = if is_udp { 2 } else { 4 };
        let takes = manners.latency * ways;
        if manners.resets && !is_udp {
            return Reply::Resets(takes);
        }
        let mut messages = Vec::new();
        if manners.lies && is_udp {
            messages.extend(lies(&asked));
        }
        messages.push(server.honest(now, &asked, manners, is_udp, zones));

        Reply::Says(takes, messages)
    }
}

impl Server {
    fn manners_at(&self, at: Instant) -> Option<&Manners> {
        let mut manners = self.manners.iter().rev();
        let found = manners.find(|(since, _)| *since <= at);

        found.map(|(_, manners)| manners)
    }

    fn during(&self, from: Instant, until: Instant) -> impl Iterator<Item = &Manners> {
        let later = self
            .manners
            .iter()
            .filter(move |(since, _)| *since > from && *since <= until);

        self.manners_at(from)
            .into_iter()
            .chain(later.map(|(_, manners)| manners))
    }

    fn honest(
        &self,
        now: Instant,
        asked: &Message,
        manners: &Manners,
        is_udp: bool,
        zones: &Zones,
    ) -> Vec<u8> {
        let Some((name, kind)) = &asked.question else {
            return asked.answer(1, 0, 0, &[]);
        };
        if manners.refuses {
            return asked.answer(code::REFUSED, 0, 0, &[]);
        }
        if manners.fails {
            return asked.answer(code::SERVFAIL, 0, 0, &[]);
        }
        let says = zones.say(now, self.site.as_deref(), name, *kind);
        let answer = asked.answer(says.code, manners.ttl, *kind, &says.data);
        let fits = answer.len() <= usize::from(asked.edns.unwrap_or(PLAIN_UDP).max(PLAIN_UDP));

        match is_udp && (manners.truncates || !fits) {
            true => asked.truncated(),
            false => answer,
        }
    }
}

/// What somebody says who doesn't see the question: another id, another name, noise.
fn lies(asked: &Message) -> Vec<Vec<u8>> {
    let lie =
        |asked: &Message| asked.answer(code::NOERROR, 3_600, RecordKind::A.0, &[LIE.to_vec()]);
    let mut other_id = asked.clone();
    other_id.id = asked.id.wrapping_add(1);
    let mut other_name = asked.clone();
    if let Some((name, _)) = &mut other_name.question {
        *name = format!("www.{name}");
        other_name.spelt = to_name(name);
    }

    vec![lie(&other_id), lie(&other_name), b"nothing of use".to_vec()]
}
