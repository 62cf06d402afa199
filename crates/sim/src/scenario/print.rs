//! From a [`Scenario`] to the text that is read as the same one.

use std::fmt::{self, Display, Formatter};

use super::events::{Attack, Event, Expectation, FlowKind, Gone, PathWanted};
use super::quantity::{Rate, Span};
use super::{Dependence, Drive, EdgeKind, Link, PerMille, Place, Role, Scenario};
use crate::faults::Faults;

impl Display for Scenario {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "scenario v1 \"{}\"",
            self.name.replace(['"', '#', '\n'], "'")
        )?;
        writeln!(f, "seed {:#x}", self.seed)?;
        match self.drive {
            Drive::Exact => {}
            Drive::EveryMilli => writeln!(f, "drive every-milli")?,
            Drive::Late => writeln!(f, "drive late")?,
        }
        writeln!(f, "lasts {}", Span(self.lasts))?;
        let portal = &self.portal;
        write!(f, "portal latency={}", Span(portal.latency))?;
        span(f, "jitter", portal.jitter)?;
        share(f, "dup", portal.duplicates)?;
        share(f, "reorder", portal.reorders)?;
        writeln!(f)?;
        self.print_hosts(f)?;
        for resource in &self.resources {
            let names: Vec<&str> = resource
                .clients
                .iter()
                .map(|host| self.host(*host))
                .collect();
            let clients = if names.is_empty() {
                "nobody".to_owned()
            } else {
                names.join(",")
            };
            let (name, network, site) = (&resource.name, resource.network, &resource.site);
            writeln!(f, "res {name} cidr={network} site={site} for={clients}")?;
        }
        for (at, event) in &self.events {
            write!(f, "t={} ", Span(*at))?;
            self.print_event(f, event)?;
            writeln!(f)?;
        }
        for expectation in &self.expect {
            write!(f, "expect ")?;
            self.print_expectation(f, expectation)?;
            writeln!(f)?;
        }

        Ok(())
    }
}

impl Scenario {
    fn print_hosts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for edge in &self.edges {
            write!(f, "edge {} ", edge.name)?;
            match edge.kind {
                EdgeKind::Nat(nat) => {
                    let (map, filter) = (dependence(nat.mapping), dependence(nat.filtering));
                    let (ip4, expiry) = (nat.ip4, Span(nat.expiry));
                    write!(f, "nat ip4={ip4} map={map} filter={filter} expiry={expiry}")?;
                    flag(f, "keeps-ports", nat.keeps_ports)?;
                    flag(f, "hairpin", nat.hairpin)?;
                }
                EdgeKind::Firewall { expiry } => write!(f, "firewall expiry={}", Span(expiry))?,
                EdgeKind::OnlyPort(port) => write!(f, "only-port port={port}")?,
                EdgeKind::Blocked => write!(f, "blocked")?,
            }
            self.print_behind(f, edge.behind)?;
            writeln!(f)?;
        }
        for host in &self.hosts {
            write!(f, "host {} ", host.name)?;
            match &host.role {
                Role::Client { token_ends_at } => {
                    write!(f, "client")?;
                    if let Some(at) = token_ends_at {
                        write!(f, " token-ends={}", Span(*at))?;
                    }
                }
                Role::Gateway { site } => write!(f, "gateway site={site}")?,
                Role::Relay => write!(f, "relay")?,
            }
            self.print_place(f, &host.place)?;
            writeln!(f)?;
        }
        for host in &self.hosts {
            if host.link != Link::default() {
                write!(f, "link {}", host.name)?;
                print_link(f, &host.link)?;
                writeln!(f)?;
            }
            if host.faults != Faults::default() {
                write!(f, "faults {}", host.name)?;
                print_faults(f, &host.faults)?;
                writeln!(f)?;
            }
        }

        Ok(())
    }

    fn print_place(&self, f: &mut Formatter<'_>, place: &Place) -> fmt::Result {
        if let Some(ip4) = place.ip4 {
            write!(f, " ip4={ip4}")?;
        }
        if let Some(ip6) = place.ip6 {
            write!(f, " ip6={ip6}")?;
        }

        self.print_behind(f, place.behind)
    }

    fn print_behind(&self, f: &mut Formatter<'_>, behind: Option<usize>) -> fmt::Result {
        match behind.and_then(|edge| self.edges.get(edge)) {
            Some(edge) => write!(f, " behind={}", edge.name),
            None => Ok(()),
        }
    }

    #[expect(
        clippy::too_many_lines,
        reason = "a line for each event, and nothing else"
    )]
    fn print_event(&self, f: &mut Formatter<'_>, event: &Event) -> fmt::Result {
        let host = |host: &usize| self.host(*host);
        let resource = |resource: &usize| {
            let resource = self.resources.get(*resource);
            resource.map_or("?", |resource| resource.name.as_str())
        };
        match event {
            Event::Flow(flow) => {
                let (from, to, name) = (self.host(flow.host), flow.to, &flow.name);
                match flow.kind {
                    FlowKind::Ping { count, every, size } => {
                        let every = Span(every);
                        write!(
                            f,
                            "ping {from} {to} count={count} every={every} size={size} id={name}"
                        )
                    }
                    FlowKind::Fetch { bytes } => {
                        write!(f, "fetch {from} {to} bytes={bytes} id={name}")
                    }
                }
            }
            Event::Detach { host: it } => write!(f, "detach {}", host(it)),
            Event::Attach { host: it, place } => {
                write!(f, "attach {}", host(it))?;
                self.print_place(f, place)
            }
            Event::End {
                host: it,
                how: Gone::Stopped,
            } => write!(f, "stop {}", host(it)),
            Event::End {
                host: it,
                how: Gone::Killed,
            } => write!(f, "kill {}", host(it)),
            Event::Start {
                host: it,
                keeps_secret,
            } => {
                write!(f, "start {}", host(it))?;
                flag(f, "new-secret", !keeps_secret)
            }
            Event::Link { host: it, link } => {
                write!(f, "link {}", host(it))?;
                print_link(f, link)
            }
            Event::Block { hosts: [one, two] } => write!(f, "block {} {}", host(one), host(two)),
            Event::Unblock { hosts: [one, two] } => {
                write!(f, "unblock {} {}", host(one), host(two))
            }
            Event::PortalDown { host: it } => write!(f, "portal-down {}", host(it)),
            Event::PortalUp { host: it } => write!(f, "portal-up {}", host(it)),
            Event::PortalHangs { host: it } => write!(f, "portal-hangs {}", host(it)),
            Event::PortalGoesOn { host: it } => write!(f, "portal-goes-on {}", host(it)),
            Event::PortalRestarts { after } => write!(f, "portal-restarts after={}", Span(*after)),
            Event::Suspend { host: it, time } => {
                write!(f, "suspend {} for={}", host(it), Span(*time))
            }
            Event::ClockSteps { seconds } => write!(f, "clock-steps seconds={seconds}"),
            Event::Forget { edge } => {
                let edge = self.edges.get(*edge).map_or("?", |edge| edge.name.as_str());
                write!(f, "forget {edge}")
            }
            Event::Allow {
                host: it,
                resource: to,
            } => write!(f, "allow {} {}", host(it), resource(to)),
            Event::Revoke {
                host: it,
                resource: to,
            } => write!(f, "revoke {} {}", host(it), resource(to)),
            Event::Attack {
                host: it,
                attack,
                count,
            } => {
                let attack = match attack {
                    Attack::Replay => "replay",
                    Attack::ReplayElsewhere => "replay-elsewhere",
                    Attack::Garbage => "garbage",
                    Attack::Stun => "stun",
                    Attack::Handshakes => "handshakes",
                };
                write!(f, "attack {} {attack} count={count}", host(it))
            }
        }
    }

    fn print_expectation(&self, f: &mut Formatter<'_>, expectation: &Expectation) -> fmt::Result {
        let flow = |flow: &usize| self.flow_name(*flow);
        match expectation {
            Expectation::Complete { flow: it, by } => {
                write!(f, "complete {} by={}", flow(it), Span(*by))
            }
            Expectation::Answered {
                flow: it,
                least,
                most,
            } => {
                write!(f, "answered {} least={least}", flow(it))?;
                match *most {
                    u32::MAX => Ok(()),
                    most => write!(f, " most={most}"),
                }
            }
            Expectation::Path { host, path, at } => {
                let path = match path {
                    PathWanted::Direct => "direct",
                    PathWanted::Relayed => "relayed",
                    PathWanted::None => "none",
                };
                write!(f, "path {} {path} at={}", self.host(*host), Span(*at))
            }
            Expectation::PathChanges { host, most, from } => {
                write!(f, "path-changes {} most={most}", self.host(*host))?;
                span(f, "from", *from)
            }
            Expectation::Gap {
                flow: it,
                most,
                from,
            } => {
                write!(f, "gap {} most={}", flow(it), Span(*most))?;
                span(f, "from", *from)
            }
            Expectation::Within { flow: it, most } => {
                write!(f, "within {} most={}", flow(it), Span(*most))
            }
            Expectation::Quiet { from, until, most } => {
                write!(
                    f,
                    "quiet from={} until={} most={most}",
                    Span(*from),
                    Span(*until)
                )
            }
        }
    }

    pub(crate) fn host(&self, host: usize) -> &str {
        self.hosts.get(host).map_or("?", |host| host.name.as_str())
    }

    pub(crate) fn flow_name(&self, number: usize) -> &str {
        self.flows()
            .nth(number)
            .map_or("?", |flow| flow.name.as_str())
    }

    pub(crate) fn flows(&self) -> impl Iterator<Item = &super::Flow> {
        self.events.iter().filter_map(|(_, event)| {
            if let Event::Flow(flow) = event {
                Some(flow)
            } else {
                None
            }
        })
    }
}

fn print_link(f: &mut Formatter<'_>, link: &Link) -> fmt::Result {
    let default = Link::default();
    write!(f, " latency={}", Span(link.latency))?;
    span(f, "jitter", link.jitter)?;
    share(f, "loss", link.loss)?;
    share(f, "dup", link.duplicates)?;
    share(f, "reorder", link.reorders)?;
    share(f, "corrupt", link.corrupts)?;
    if link.mtu != default.mtu {
        write!(f, " mtu={}", link.mtu)?;
    }
    if let Some(rate) = link.rate {
        write!(f, " rate={}", Rate(rate))?;
    }
    if link.queue != default.queue {
        write!(f, " queue={}", Span(link.queue))?;
    }

    Ok(())
}

fn print_faults(f: &mut Formatter<'_>, faults: &Faults) -> fmt::Result {
    for (key, range) in [
        ("sends-blocked", &faults.sends_blocked),
        ("receives-blocked", &faults.receives_blocked),
        ("writes-blocked", &faults.writes_blocked),
        ("reads-blocked", &faults.reads_blocked),
        ("no-memory", &faults.sends_without_memory),
    ] {
        if *range != (0..0) {
            write!(f, " {key}={}..{}", range.start, range.end)?;
        }
    }
    if let Some(accepts) = faults.accepts {
        write!(f, " accepts={accepts}")?;
    }
    for (key, errors) in [
        ("send-error", &faults.send_errors),
        ("receive-error", &faults.receive_errors),
    ] {
        for (nth, errno) in errors {
            write!(f, " {key}={nth}:{errno}")?;
        }
    }
    flag(f, "refuses-runs", faults.refuses_runs)?;
    span(f, "tun-comes", faults.tun_comes_at)?;
    if let Some(at) = faults.tun_vanishes_at {
        write!(f, " tun-vanishes={}", Span(at))?;
    }
    flag(f, "slow-outputs", faults.outputs_are_slow)?;
    if let Some(workers) = faults.workers {
        write!(f, " workers={workers}")?;
    }

    Ok(())
}

fn dependence(dependence: Dependence) -> &'static str {
    match dependence {
        Dependence::Endpoint => "endpoint",
        Dependence::Address => "address",
        Dependence::AddressAndPort => "port",
    }
}

fn span(f: &mut Formatter<'_>, key: &str, span: std::time::Duration) -> fmt::Result {
    match span.is_zero() {
        true => Ok(()),
        false => write!(f, " {key}={}", Span(span)),
    }
}

fn share(f: &mut Formatter<'_>, key: &str, share: PerMille) -> fmt::Result {
    match share.0 {
        0 => Ok(()),
        _ => write!(f, " {key}={share}"),
    }
}

fn flag(f: &mut Formatter<'_>, flag: &str, is_set: bool) -> fmt::Result {
    match is_set {
        true => write!(f, " {flag}"),
        false => Ok(()),
    }
}
