//! What relays may send, and must.
//!
//! A relay is seen from outside: what arrives at its sockets, and what leaves them. From requests and their answers follows
//! who has which port and which channels (RFC 8656 §7, §12); from these, which data may leave: what arrived under a channel of
//! its sender, or from a channel's peer, each once. It doesn't matter who has really sent it: to a relay an address is all that
//! somebody is. Who never proved to be anybody gets answers that are little longer than what was sent, and nothing else; and
//! whatever a host of the world asks is answered in time, whoever else sends what.

mod data;
mod loans;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use connlib_os::fake::FakeTrain;
use connlib_wire::stun::{Class, Message, Method, TransactionId};

use crate::limits::CONTROL;
use crate::network::Origin;
use crate::relay::PORT;
use crate::report::Judged;
use crate::scenario::{Host, Place, Role, Scenario};
use data::{Arrived, hash};
use loans::Loans;

/// Where an attacker sends from who doesn't pretend to be anybody, and has no credentials.
pub(crate) const OUTSIDER: &str = "198.18.66.6";
pub(crate) const OUTSIDER_V6: &str = "2001:db8:bad::6";

/// Where one sends from who has some.
pub(crate) const INSIDER: &str = "198.18.66.7";

/// What an error says besides what was asked: SOFTWARE, ERROR-CODE, REALM, NONCE and MESSAGE-INTEGRITY.
const ERROR_SIZE: usize = 160;

/// How many datagrams of strangers in somebody's name may keep answers from it that need no proof: half of what relays let pass
/// in a row.
const MANY: u64 = 500;

/// How many answers it gives in a row to who proves nothing, and how many more in each second (`Limits::default`).
const UNPROVEN_BURST: u64 = 1_000;
const UNPROVEN_PER_SEC: u64 = 250;

/// What relays do, by host.
pub(crate) struct Relays {
    seen: BTreeMap<usize, Seen>,
    /// Relays, and where each is.
    plans: BTreeMap<usize, Plan>,
    controls: u64,
    slowest: Duration,
    relayed: u64,
    strange: u64,
}

/// What is known of a relay before it begins.
#[derive(Clone, Copy, Debug, Default)]
struct Plan {
    place: Place,
    /// Whether its sockets are full at times: then an answer may leave after data that it lets leave by another socket.
    is_full: bool,
}

/// What one has done since it began.
#[derive(Default)]
struct Seen {
    plan: Plan,
    loans: Loans,
    /// Requests that have no answer yet, by who asked.
    asked: HashMap<Key, Asked>,
    /// Those of hosts of the world, in the order in which they came.
    due: VecDeque<(Instant, Key)>,
    /// Data that may leave: from which port, to whom, and a hash of all of it; how often.
    may_leave: HashMap<(u16, SocketAddr, u64), u32>,
    /// Data that nothing lets leave yet: something may be bound, or lent no longer, before it is served.
    undecided: VecDeque<Arrived>,
    /// Data that has left, and that an answer must still let leave: since when.
    early: Vec<(Instant, (u16, SocketAddr, u64))>,
    /// How many datagrams strangers sent in each name.
    named: BTreeMap<IpAddr, u64>,
    /// When it was first seen, and how many answers it has given since then to who has no credentials.
    since: Option<Instant>,
    to_outsiders: u64,
}

/// A request: from whom, and which. What a way has changed may be another one.
type Key = (SocketAddr, TransactionId, Method);

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    at: Instant,
    length: usize,
    /// How often it has come, and was not answered.
    times: u32,
    /// Whether a host of the world has had no answer to it.
    is_due: bool,
    pub(super) method: Method,
    pub(super) user: Option<String>,
    pub(super) channel: Option<(u16, SocketAddr)>,
}

impl Relays {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let hosts = scenario.hosts.iter().enumerate();
        let relays = hosts.filter(|(_, host)| host.role == Role::Relay);

        Self {
            seen: BTreeMap::new(),
            plans: relays
                .map(|(host, host_plan)| (host, Plan::of(host_plan)))
                .collect(),
            controls: 0,
            slowest: Duration::ZERO,
            relayed: 0,
            strange: 0,
        }
    }

    /// What runs on a host begins or ends.
    pub(crate) fn begins(&mut self, host: usize) {
        self.seen.remove(&host);
    }

    /// A host has stood still: nobody asked it in vain.
    pub(crate) fn wakes(&mut self, host: usize) {
        if let Some(seen) = self.seen.get_mut(&host) {
            seen.due.clear();
        }
    }

    /// How much was judged.
    pub(crate) fn count(&self, judged: &mut Judged) {
        judged.controls += self.controls;
        judged.slowest_control = judged.slowest_control.max(self.slowest);
        judged.relayed += self.relayed;
        judged.strange += self.strange;
    }

    /// A train arrives at a relay.
    pub(crate) fn hears(&mut self, now: Instant, host: usize, train: &FakeTrain, origin: Origin) {
        if train.from.port() == 0 {
            return;
        }
        let seen = seen_of(&mut self.seen, &self.plans, host);
        seen.loans.pass(now);
        if origin == Origin::Stranger {
            let count = train.datagrams().count() as u64;
            self.strange += count;
            *seen.named.entry(train.from.ip()).or_default() += count;
        }
        for datagram in train.datagrams() {
            let is_request = train.to.port() == PORT;
            if let Ok(message) = Message::parse(datagram)
                && is_request
            {
                seen.is_asked(now, train.from, &message, origin);
                continue;
            }
            seen.arrives(Arrived {
                port: train.to.port(),
                from: train.from,
                bytes: datagram.to_vec(),
            });
        }
    }

    /// A relay has taken a turn: judges what it sends, and how many allocations it has then.
    ///
    /// # Errors
    ///
    /// It must not have sent that, or must have sent something else.
    pub(crate) fn sends<'a>(
        &mut self,
        now: Instant,
        host: usize,
        sent: impl Iterator<Item = (SocketAddr, SocketAddr, &'a [u8])>,
        allocations: usize,
    ) -> Result<(), String> {
        let seen = seen_of(&mut self.seen, &self.plans, host);
        // Answers first: they say what may leave.
        let mut data = Vec::new();
        for (local, to, datagram) in sent {
            let answer = Message::parse(datagram)
                .ok()
                .filter(|_| local.port() == PORT);
            let Some(answer) = answer else {
                data.push((local.port(), to, datagram));
                continue;
            };
            if let Some(took) = seen.answers(now, to, &answer)? {
                self.controls += 1;
                self.slowest = self.slowest.max(took);
            }
        }
        self.relayed += data.len() as u64;
        for (port, to, datagram) in data {
            seen.leaves(now, (port, to, hash(datagram)), datagram.len())?;
        }
        seen.are_justified(now)?;
        seen.loans.pass(now);
        let told = seen.loans.len() + seen.untold();
        if allocations > told {
            return Err(format!("has {allocations} allocations and told of {told}"));
        }

        seen.is_in_time(now)
    }
}

impl Plan {
    fn of(host: &Host) -> Self {
        Self {
            place: host.place,
            is_full: host.faults.wire.is_some(),
        }
    }
}

impl Seen {
    /// How many clients may have an allocation that they have not been told of.
    fn untold(&self) -> usize {
        match self.plan.is_full {
            true => self
                .asked
                .keys()
                .filter(|(_, _, method)| *method == Method::Allocate)
                .count(),
            false => 0,
        }
    }

    fn is_asked(&mut self, now: Instant, from: SocketAddr, message: &Message<'_>, origin: Origin) {
        if message.class() != Class::Request {
            return;
        }
        let key = (from, message.transaction_id(), message.method());
        let asked = self.asked.entry(key).or_insert_with(|| Asked {
            at: now,
            length: message.bytes().len(),
            times: 0,
            is_due: false,
            method: message.method(),
            user: None,
            channel: None,
        });
        asked.times += 1;
        // What the way has changed may have come before it as it was sent.
        if asked.times == 1 || origin == Origin::Host {
            asked.user = message.username().map(str::to_owned);
            asked.channel = message.channel_number().zip(message.peer_address());
        }
        if origin == Origin::Host {
            (asked.at, asked.is_due) = (now, true);
            self.due.push_back((now, key));
        }
    }

    /// An answer to `to`. Returns how long it took if a host of the world waits for it.
    fn answers(
        &mut self,
        now: Instant,
        to: SocketAddr,
        answer: &Message<'_>,
    ) -> Result<Option<Duration>, String> {
        let method = answer.method();
        let key = (to, answer.transaction_id(), method);
        let Some(asked) = self.asked.get_mut(&key) else {
            return Err(format!("answers {method:?} of {to}, who has not asked"));
        };
        asked.times -= 1;
        let is_due = std::mem::take(&mut asked.is_due);
        let asked = match asked.times {
            0 => self.asked.remove(&key),
            _ => Some(asked.clone()),
        };
        let Some(asked) = asked else {
            return Ok(None);
        };

        if is_outsider(to) {
            self.to_outsiders += 1;
            let since = *self.since.get_or_insert(now);
            let seconds = (now - since).as_secs() + 1;
            if self.to_outsiders > UNPROVEN_BURST + UNPROVEN_PER_SEC * seconds {
                let count = self.to_outsiders;
                return Err(format!(
                    "has given {count} answers to {to}, who proves nothing"
                ));
            }
        }
        let is_success = answer.class() == Class::Success;
        let length = answer.bytes().len();
        if !is_success && length > asked.length + ERROR_SIZE {
            let asked = asked.length;
            return Err(format!(
                "sends {length} bytes to {to}, who sent {asked} and proved nothing"
            ));
        }
        if is_success && method != Method::Binding {
            if is_outsider(to) {
                return Err(format!("lets {to} in, who has no credentials"));
            }
            self.loans.granted(now, to, &asked, answer)?;
            let undecided = std::mem::take(&mut self.undecided);
            for arrived in undecided {
                self.arrives(arrived);
            }
        }
        Ok(is_due.then(|| now - asked.at))
    }

    /// Whoever is part of the world has an answer in time.
    fn is_in_time(&mut self, now: Instant) -> Result<(), String> {
        while let Some((at, key)) = self.due.front().copied() {
            let (from, ..) = key;
            let asked = self.asked.get(&key);
            let asked = asked.filter(|asked| asked.is_due && asked.at <= at);
            match asked {
                // A name that strangers have used a lot gets no answers that need no proof.
                Some(_) if self.named.get(&from.ip()).is_some_and(|many| *many > MANY) => {}
                Some(_) if now <= at + CONTROL.holds => return Ok(()),
                Some(asked) => {
                    let method = asked.method;
                    let waits = now - at;
                    return Err(format!("lets {method:?} of {from} wait for {waits:?}"));
                }
                None => {}
            }
            self.due.pop_front();
        }

        Ok(())
    }
}

fn is_outsider(addr: SocketAddr) -> bool {
    let ip = addr.ip().to_string();

    ip == OUTSIDER || ip == OUTSIDER_V6
}

fn seen_of<'a>(
    seen: &'a mut BTreeMap<usize, Seen>,
    plans: &BTreeMap<usize, Plan>,
    host: usize,
) -> &'a mut Seen {
    seen.entry(host).or_insert_with(|| Seen {
        plan: plans.get(&host).copied().unwrap_or_default(),
        ..Seen::default()
    })
}
