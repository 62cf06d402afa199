//! The channel between hosts and the portal: ordered, with latency, and with what can go wrong on it.

use std::time::{Duration, Instant};

use connlib::event_loop::Command;
use connlib_tunnel::PortalState;
use connlib_wire::portal::phoenix::{self, Control, Envelope};
use connlib_wire::portal::{client, gateway};
use rand::RngExt as _;

use super::host::{ChannelState, Role};
use super::{Happening, World};
use crate::portal::{ChannelId, Hello, Says};
use crate::scenario::Gone;

/// How many one-way delays pass before the portal has read a join: TCP and TLS come first.
const JOIN_WAYS: u32 = 5;

/// The delays between attempts, like those of the shipped uplink: the first, the factor, the longest.
const FIRST_DELAY: Duration = Duration::from_millis(500);
const DELAY_FACTOR: f64 = 1.5;
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// How often a host says that it is there (portal-protocol.md §3.2).
const HEARTBEAT_EVERY: Duration = Duration::from_secs(30);

/// How much later a message arrives that is overtaken, at most.
const OVERTAKEN: Duration = Duration::from_millis(200);

/// How long after a message a second copy of it arrives, at most.
const AGAIN: Duration = Duration::from_millis(300);

impl World {
    /// A host connects at once, under the key that it has.
    pub(super) fn connect(&mut self, host: usize) {
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        entry.channel.epoch += 1;
        entry.channel.state = ChannelState::Connecting;
        let channel = ChannelId {
            host,
            epoch: entry.channel.epoch,
        };
        self.post(Duration::ZERO, Happening::HostConnects(channel));
    }

    pub(super) fn host_connects(&mut self, channel: ChannelId) {
        let is_attached = self.network.is_attached(channel.host);
        let place = self.network.place(channel.host).unwrap_or_default();
        let now = self.now;
        let Some(entry) = self.hosts.get_mut(channel.host) else {
            return;
        };
        if entry.channel.epoch != channel.epoch {
            return;
        }
        let ip4 = place.ip4.map(|ip| ip.to_string());
        let ip6 = place.ip6.map(|ip| ip.to_string());
        let hello = match &entry.role {
            Role::Client(node) => Hello {
                public_key: Some(node.core().public_key().to_string()),
                ..Hello::default()
            },
            Role::Gateway(node) => Hello {
                public_key: Some(node.core().public_key().to_string()),
                ..Hello::default()
            },
            Role::Relay(_) => Hello {
                ipv4: ip4,
                ipv6: ip6,
                secret: Some(entry.secret.clone()),
                ..Hello::default()
            },
            Role::Down => return,
        };
        if entry.channel.is_cut || !is_attached || !entry.is_awake(now) {
            let after = self.scenario.portal.latency;
            self.post(after, Happening::HostRefused(channel));
            return;
        }
        let after = self.scenario.portal.latency * JOIN_WAYS;
        self.post(after, Happening::PortalOpens(channel, Box::new(hello)));
    }

    pub(super) fn host_refused(&mut self, channel: ChannelId) {
        let factor = self.rng.random_range(0.5..1.5);
        let Some(entry) = self.hosts.get_mut(channel.host) else {
            return;
        };
        if entry.channel.epoch != channel.epoch {
            return;
        }
        let delay = entry.channel.delay.max(FIRST_DELAY);
        entry.channel.delay = delay.mul_f64(DELAY_FACTOR).min(LONGEST_DELAY);
        self.post(delay.mul_f64(factor), Happening::HostConnects(channel));
    }

    pub(super) fn portal_opens(&mut self, channel: ChannelId, hello: &Hello) {
        let clock = (self.now, self.unix().as_secs());
        let is_open = self.portal.open(clock, channel, &self.scenario, hello);
        let after = self.scenario.portal.latency;
        let host = self.hosts.get(channel.host);
        if !is_open {
            self.post(after, Happening::HostRefused(channel));
        } else if host.is_some_and(|host| channel.epoch <= host.channel.closed) {
            self.post(after, Happening::PortalLoses(channel));
        }
        self.drain_portal();
    }

    /// A host sends a text.
    pub(super) fn say(&mut self, host: usize, text: String) {
        if !self.network.is_attached(host) {
            return;
        }
        let latency = self.latency();
        let now = self.now;
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        let channel = &mut entry.channel;
        if channel.state != ChannelState::Joined {
            return;
        }
        if channel.hangs {
            channel.held_to_portal.push(text);
            return;
        }
        let at = in_order(&mut channel.to_portal_at, now + latency);
        let epoch = channel.epoch;
        self.post_at(at, Happening::PortalHears(ChannelId { host, epoch }, text));
    }

    pub(super) fn portal_hears(&mut self, channel: ChannelId, text: &str) {
        let unix = self.unix().as_secs();
        self.portal.hears(self.now, unix, channel, text);
        self.drain_portal();
    }

    pub(super) fn portal_hears_pong(&mut self, channel: ChannelId) {
        let unix = self.unix().as_secs();
        self.portal.hears_pong(self.now, unix, channel);
        self.drain_portal();
    }

    pub(super) fn portal_loses(&mut self, channel: ChannelId) {
        let unix = self.unix().as_secs();
        self.portal.loses(self.now, unix, channel);
        self.drain_portal();
    }

    /// Sends what the portal has to say.
    pub(super) fn drain_portal(&mut self) {
        let unix = self.unix().as_secs();
        while let Some((channel, says)) = self.portal.poll(self.now, unix) {
            self.send_to_host(channel, says);
        }
    }

    fn send_to_host(&mut self, channel: ChannelId, says: Says) {
        let link = self.scenario.portal;
        let latency = self.latency();
        let is_overtaken = link.reorders.0 > 0 && self.rng.random_range(0..1_000) < link.reorders.0;
        let is_twice = link.duplicates.0 > 0 && self.rng.random_range(0..1_000) < link.duplicates.0;
        let [later, again] = [OVERTAKEN, AGAIN].map(|most| self.random_span(most));
        let now = self.now;
        let Some(entry) = self.hosts.get_mut(channel.host) else {
            return;
        };
        if entry.channel.epoch != channel.epoch {
            return;
        }
        if entry.channel.hangs {
            entry.channel.held_to_host.push(says);
            return;
        }
        let at = match is_overtaken {
            true => now + latency + later,
            false => in_order(&mut entry.channel.to_host_at, now + latency),
        };
        let copy = match &says {
            Says::Text(text) if is_twice => Some(Says::Text(text.clone())),
            Says::Text(_) | Says::Ping | Says::Refused | Says::Close => None,
        };
        self.post_at(at, Happening::HostHears(channel, says));
        if let Some(copy) = copy {
            // Where the order is kept, a copy has its original's place: what was true once would be told as news.
            let again_at = match link.reorders.0 > 0 {
                true => now + latency + again,
                false => at,
            };
            self.post_at(again_at, Happening::HostHears(channel, copy));
        }
    }

    pub(super) fn host_hears(&mut self, channel: ChannelId, says: Says) {
        let host = channel.host;
        let is_attached = self.network.is_attached(host);
        let now = self.now;
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        if entry.channel.epoch != channel.epoch {
            return;
        }
        if let Some(until) = entry.asleep_until.filter(|until| *until > now) {
            self.post_at(until, Happening::HostHears(channel, says));
            return;
        }
        if !is_attached {
            return;
        }
        let text = match says {
            Says::Text(text) => text,
            Says::Ping => {
                let latency = self.latency();
                return self.post(latency, Happening::PortalHearsPong(channel));
            }
            Says::Refused => return self.host_refused(channel),
            Says::Close => {
                self.channel_breaks(host);
                self.retry(host);
                return;
            }
        };
        let Ok(envelope) = Envelope::parse(&text) else {
            self.violate(format!("the portal said {text}"));
            return;
        };
        match Control::parse(&envelope) {
            Some(Control::Ok { reference: 0 }) => self.joined(host),
            Some(Control::TokenExpired) => self.end(host, Gone::Stopped),
            Some(_) => {}
            None => self.take_message(host, &envelope),
        }
    }

    fn joined(&mut self, host: usize) {
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        entry.channel.state = ChannelState::Joined;
        entry.channel.joined_at = Some(self.now);
        entry.channel.delay = Duration::ZERO;
        let epoch = entry.channel.epoch;
        tell(&mut entry.role, PortalState::Joined);
        self.names.joined(self.now, host);
        self.post(
            HEARTBEAT_EVERY,
            Happening::Heartbeat(ChannelId { host, epoch }),
        );
    }

    fn take_message(&mut self, host: usize, envelope: &Envelope<'_>) {
        let (event, payload) = (envelope.event.as_str(), envelope.payload());
        let is_client = matches!(
            self.hosts.get(host).map(|entry| &entry.role),
            Some(Role::Client(_))
        );
        let to_client = is_client
            .then(|| client::FromPortal::parse(event, payload).ok())
            .flatten();
        if let Some(message) = &to_client {
            self.told(host, message);
        }
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        let is_understood = match &mut entry.role {
            Role::Client(node) => to_client
                .map(|message| node.command(Command::Portal(message)))
                .is_some(),
            Role::Gateway(node) => gateway::FromPortal::parse(event, payload)
                .map(|message| node.command(Command::Portal(message)))
                .is_ok(),
            Role::Relay(_) | Role::Down => true,
        };
        if !is_understood {
            self.violate(format!("the portal's `{event}` is not understood"));
        }
    }

    pub(super) fn heartbeat(&mut self, channel: ChannelId) {
        let Some(entry) = self.hosts.get(channel.host) else {
            return;
        };
        if entry.channel.epoch != channel.epoch || entry.channel.state != ChannelState::Joined {
            return;
        }
        if entry.is_awake(self.now) {
            self.say(channel.host, phoenix::heartbeat(2));
        }
        self.post(HEARTBEAT_EVERY, Happening::Heartbeat(channel));
    }

    /// A host's end of its channel is gone, and it knows.
    pub(super) fn channel_breaks(&mut self, host: usize) {
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        let channel = &mut entry.channel;
        channel.epoch += 1;
        channel.state = ChannelState::Away;
        channel.held_to_host.clear();
        channel.held_to_portal.clear();
        (channel.to_host_at, channel.to_portal_at) = (None, None);
        tell(&mut entry.role, PortalState::Away);
    }

    /// The other end notices: the operating system closes what a program leaves behind.
    pub(super) fn portal_notices(&mut self, host: usize) {
        if let Some(entry) = self.hosts.get_mut(host) {
            let epoch = entry.channel.epoch;
            entry.channel.closed = epoch;
            let after = self.scenario.portal.latency;
            self.post(after, Happening::PortalLoses(ChannelId { host, epoch }));
        }
    }

    /// Tries again after a while.
    pub(super) fn retry(&mut self, host: usize) {
        if let Some(entry) = self.hosts.get_mut(host) {
            let epoch = entry.channel.epoch;
            entry.channel.state = ChannelState::Connecting;
            self.host_refused(ChannelId { host, epoch });
        }
    }

    /// What waited comes through.
    pub(super) fn channel_goes_on(&mut self, host: usize) {
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        entry.channel.hangs = false;
        entry.channel.joined_at = Some(self.now);
        let to_portal = std::mem::take(&mut entry.channel.held_to_portal);
        let to_host = std::mem::take(&mut entry.channel.held_to_host);
        let epoch = entry.channel.epoch;
        for text in to_portal {
            self.say(host, text);
        }
        for says in to_host {
            self.send_to_host(ChannelId { host, epoch }, says);
        }
    }

    fn latency(&mut self) -> Duration {
        let link = self.scenario.portal;

        link.latency + self.random_span(link.jitter)
    }
}

fn tell(role: &mut Role, state: PortalState) {
    match role {
        Role::Client(node) => node.command(Command::PortalState(state)),
        Role::Gateway(node) => node.command(Command::PortalState(state)),
        Role::Relay(_) | Role::Down => {}
    }
}

/// Texts of one channel arrive in the order they left in.
fn in_order(last_at: &mut Option<Instant>, at: Instant) -> Instant {
    let at = last_at.map_or(at, |last_at| last_at.max(at));
    *last_at = Some(at);

    at
}
