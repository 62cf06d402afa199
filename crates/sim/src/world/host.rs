//! A machine of the world: what runs on it, and its channel to the portal.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use connlib_tunnel::client::{Client, NameRecord};
use connlib_tunnel::gateway::Gateway;
use connlib_tunnel::{Settings, Status};
use connlib_wire::secret::Secret;
use rand::RngExt as _;
use rand::rngs::StdRng;

use super::{LATEST, UNIX, seed};
use crate::host::Node;
use crate::hostile::{AnyClient, Forged};
use crate::portal::Says;
use crate::relay::RelayNode;
use crate::scenario::{self, Drive, Place};

/// The most turns for timers alone within a span.
const IDLE_SPAN: Duration = Duration::from_millis(200);
const MAX_IDLE_TURNS: u32 = 150;

pub(super) struct Host {
    pub(super) role: Role,
    pub(super) channel: Channel,
    /// Until when it stands still.
    pub(super) asleep_until: Option<Instant>,
    /// Its addresses in the tunnel, once it knows them.
    pub(super) addresses: Option<(Ipv4Addr, Ipv6Addr)>,
    /// Where a client answers for name servers, once it has said so.
    pub(super) name_servers: Vec<IpAddr>,
    /// The addresses of names that clients on it gave out.
    pub(super) records: Vec<NameRecord>,
    /// Why it didn't take one of them back.
    pub(super) not_restored: Option<String>,
    /// What a client on it is made to send.
    pub(super) forged: Forged,
    /// How often it has moved: what was asked by another network has no answer.
    pub(super) moves: u32,
    /// A relay's secret.
    pub(super) secret: Secret,
    /// How often it began to run, and when it last did.
    pub(super) life: u32,
    pub(super) began_at: Instant,
    /// Whether somebody is on the way to unstall its devices.
    pub(super) is_stalled: bool,
    /// Since when turns for a timer alone are counted, and how many there were.
    idle_turns: (Option<Instant>, u32),
    /// A deadline, and when it is met where all are met late.
    late: Option<(Instant, Instant)>,
}

/// What runs.
pub(super) enum Role {
    Client(Box<Node<AnyClient>>),
    Gateway(Box<Node<Gateway>>),
    Relay(Box<RelayNode>),
    Down,
}

/// A host's end of the control channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    /// The number of the latest attempt; whatever belongs to others is void.
    pub(super) epoch: u64,
    /// The number of the latest attempt that the host has closed, as its system does for a program that ends: however late the
    /// portal hears of it, it hears that, too.
    pub(super) closed: u64,
    pub(super) state: ChannelState,
    /// Whether the portal can't be reached.
    pub(super) is_cut: bool,
    /// Whether nothing comes through.
    pub(super) hangs: bool,
    /// What waits until something does.
    pub(super) held_to_portal: Vec<String>,
    pub(super) held_to_host: Vec<Says>,
    /// When the latest text arrives at either end.
    pub(super) to_portal_at: Option<Instant>,
    pub(super) to_host_at: Option<Instant>,
    pub(super) joined_at: Option<Instant>,
    /// How long to wait before the next attempt.
    pub(super) delay: Duration,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum ChannelState {
    #[default]
    Away,
    Connecting,
    Joined,
}

impl Host {
    pub(super) fn new(plan: &scenario::Host, now: Instant, rng: &mut StdRng) -> Self {
        let mut host = Self {
            role: Role::Down,
            channel: Channel::default(),
            asleep_until: None,
            addresses: None,
            name_servers: Vec::new(),
            records: Vec::new(),
            not_restored: None,
            forged: Forged::default(),
            moves: 0,
            secret: secret(rng),
            life: 0,
            began_at: now,
            is_stalled: false,
            idle_turns: (None, 0),
            late: None,
        };
        host.begin(
            plan,
            &plan.place,
            now,
            UNIX,
            plan.faults.tun_comes_at.is_zero(),
            rng,
        );

        host
    }

    /// Runs, and knows nothing yet.
    pub(super) fn begin(
        &mut self,
        plan: &scenario::Host,
        place: &Place,
        now: Instant,
        unix: Duration,
        is_tun_here: bool,
        rng: &mut StdRng,
    ) {
        let (seed, settings) = (seed(rng), Settings { unix });
        let faults = &plan.faults;
        self.role = match &plan.role {
            scenario::Role::Client { .. } => {
                let mut core = Client::new(now, seed, settings);
                for record in &self.records {
                    if let Err(why) = core.restore_name(record) {
                        self.not_restored = Some(why.to_string());
                    }
                }
                let core = AnyClient::new(core, self.forged.clone());
                Role::Client(Box::new(Node::new(core, place, faults, is_tun_here)))
            }
            scenario::Role::Gateway { .. } => {
                let core = Gateway::new(now, seed, settings);
                Role::Gateway(Box::new(Node::new(core, place, faults, is_tun_here)))
            }
            scenario::Role::Relay => {
                let node = RelayNode::new(place, self.secret.clone(), seed, faults);
                Role::Relay(Box::new(node))
            }
        };
        self.life += 1;
        self.began_at = now;
        self.name_servers.clear();
        self.is_stalled = false;
        self.late = None;
    }

    pub(super) fn change_secret(&mut self, rng: &mut StdRng) {
        self.secret = secret(rng);
    }

    pub(super) fn is_awake(&self, now: Instant) -> bool {
        self.asleep_until.is_none_or(|until| until <= now)
    }

    /// When it must be called at the latest.
    pub(super) fn due_at(
        &mut self,
        now: Instant,
        drive: Drive,
        rng: &mut StdRng,
    ) -> Option<Instant> {
        let (due_at, has_work) = match &self.role {
            Role::Client(node) => (node.due_at, node.has_work()),
            Role::Gateway(node) => (node.due_at, node.has_work()),
            Role::Relay(node) => node.due(now),
            Role::Down => return None,
        };
        let at = if has_work {
            now
        } else if drive == Drive::Late {
            let due_at = due_at?;
            match self.late {
                Some((known, met_at)) if known == due_at => met_at,
                Some(_) | None => {
                    // One that is over already is a loop that wants to go on, not a deadline.
                    let late = if due_at <= now {
                        Duration::ZERO
                    } else {
                        LATEST.mul_f64(rng.random::<f64>())
                    };
                    self.late = Some((due_at, due_at + late));
                    due_at + late
                }
            }
        } else {
            due_at?
        };

        Some(self.asleep_until.map_or(at, |until| until.max(at)))
    }

    pub(super) fn wants_turn(&self, now: Instant) -> bool {
        let (due_at, has_work) = match &self.role {
            Role::Client(node) => (node.due_at, node.has_work()),
            Role::Gateway(node) => (node.due_at, node.has_work()),
            Role::Relay(node) => node.due(now),
            Role::Down => return false,
        };
        let due_at = match self.late {
            Some((known, met_at)) if due_at == Some(known) => Some(met_at),
            Some(_) | None => due_at,
        };

        has_work || due_at.is_some_and(|at| at <= now)
    }

    /// Counts a turn. False if there were too many for timers alone: a deadline that is over stays over.
    pub(super) fn counts_turn(&mut self, now: Instant) -> bool {
        if self.has_work() {
            return true;
        }
        let (since, turns) = &mut self.idle_turns;
        if since.is_none_or(|since| now > since + IDLE_SPAN) {
            (*since, *turns) = (Some(now), 0);
        }
        *turns += 1;

        *turns <= MAX_IDLE_TURNS
    }

    fn has_work(&self) -> bool {
        match &self.role {
            Role::Client(node) => node.has_work(),
            Role::Gateway(node) => node.has_work(),
            Role::Relay(node) => node.has_work(),
            Role::Down => false,
        }
    }

    pub(super) fn address(&self, is_ipv4: bool) -> Option<IpAddr> {
        let (v4, v6) = self.addresses?;

        Some(if is_ipv4 { v4.into() } else { v6.into() })
    }

    pub(super) fn status(&self, now: Instant) -> Option<Status> {
        match &self.role {
            Role::Client(node) => Some(node.core().status(now)),
            Role::Gateway(node) => Some(node.core().status(now)),
            Role::Relay(_) | Role::Down => None,
        }
    }

    pub(super) fn unstall(&mut self) {
        self.is_stalled = false;
        match &mut self.role {
            Role::Client(node) => node.unstall(),
            Role::Gateway(node) => node.unstall(),
            Role::Relay(_) | Role::Down => {}
        }
    }

    pub(super) fn tun_comes(&mut self) {
        match &mut self.role {
            Role::Client(node) => node.tun_comes(),
            Role::Gateway(node) => node.tun_comes(),
            Role::Relay(_) | Role::Down => {}
        }
    }

    pub(super) fn tun_vanishes(&mut self) {
        match &mut self.role {
            Role::Client(node) => node.tun_vanishes(),
            Role::Gateway(node) => node.tun_vanishes(),
            Role::Relay(_) | Role::Down => {}
        }
    }
}

/// 64 digits, as relays make them.
fn secret(rng: &mut StdRng) -> Secret {
    let digits = seed(rng).map(|byte| format!("{byte:02x}"));

    Secret::from(digits.concat())
}
