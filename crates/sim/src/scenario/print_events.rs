//! From what happens, and what is expected, to the text that is read as the same.

use std::fmt::{self, Formatter};

use super::Scenario;
use super::events::{Attack, Event, Expectation, Flow, FlowKind, Forgery, Gone, PathWanted};
use super::print::{flag, print_link, span};
use super::print_names::{
    joined, print_address, print_filters, print_lookup, print_manners, print_name, print_said,
    print_target, print_upstream,
};
use super::quantity::Span;

impl Scenario {
    #[expect(
        clippy::too_many_lines,
        reason = "a line for each event, and nothing else"
    )]
    pub(super) fn print_event(&self, f: &mut Formatter<'_>, event: &Event) -> fmt::Result {
        let host = |host: &usize| self.host(*host);
        let resource = |resource: &usize| {
            let resource = self.resources.get(*resource);
            resource.map_or("?", |resource| resource.name.as_str())
        };
        match event {
            Event::Flow(flow) => self.print_flow(f, flow),
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
            Event::Change {
                resource: it,
                address,
                filters,
                site,
            } => {
                write!(f, "change {} ", resource(it))?;
                print_address(f, address)?;
                print_filters(f, filters)?;
                write!(f, " site={site}")
            }
            Event::Name(entry) => print_name(f, entry),
            Event::Manners { server, manners } => {
                write!(f, "dns {}", self.server(*server))?;
                print_manners(f, manners)
            }
            Event::Resolvers { host: it, servers } => {
                write!(f, "resolvers {} {}", host(it), joined(servers))
            }
            Event::Upstream(upstream) => print_upstream(f, upstream),
            Event::Internet {
                host: it,
                is_wanted,
            } => {
                let wanted = if *is_wanted { "on" } else { "off" };
                write!(f, "internet {} {wanted}", host(it))
            }
            Event::Forge {
                host: it,
                forgery,
                count,
            } => {
                let mut named = Forgery::NAMED.into_iter();
                let name = named.find(|(_, other)| other == forgery);
                let name = name.map_or("?", |(name, _)| name);
                write!(f, "forge {} {name} count={count}", host(it))
            }
            Event::Reset { host: it } => write!(f, "reset {}", host(it)),
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
                    Attack::Turn => "turn",
                    Attack::Flood => "flood",
                };
                write!(f, "attack {} {attack} count={count}", host(it))
            }
        }
    }

    pub(super) fn print_expectation(
        &self,
        f: &mut Formatter<'_>,
        expectation: &Expectation,
    ) -> fmt::Result {
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
            Expectation::Said(said) => print_said(f, self.flow_name(said.flow), said),
            Expectation::Reaches { flow: it, ip } => write!(f, "reaches {} ip={ip}", flow(it)),
            Expectation::Fair {
                flows,
                least,
                from,
                until,
            } => {
                let names: Vec<&str> = flows.iter().map(flow).collect();
                let (from, until) = (Span(*from), Span(*until));
                write!(
                    f,
                    "fair flows={} least={least} from={from} until={until}",
                    names.join(",")
                )
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

    fn print_flow(&self, f: &mut Formatter<'_>, flow: &Flow) -> fmt::Result {
        let keyword = match flow.kind {
            FlowKind::Ping { .. } => "ping",
            FlowKind::Fetch { .. } => "fetch",
            FlowKind::Lookup(_) => "lookup",
        };
        write!(f, "{keyword} {} ", self.host(flow.host))?;
        print_target(f, &flow.to)?;
        match &flow.kind {
            FlowKind::Ping { count, every, size } => {
                write!(f, " count={count} every={} size={size}", Span(*every))?;
            }
            FlowKind::Fetch { bytes } => write!(f, " bytes={bytes}")?,
            FlowKind::Lookup(lookup) => print_lookup(f, lookup)?,
        }
        if flow.service != flow.kind.default_service() {
            write!(f, " proto={}", flow.service)?;
        }
        if let Some(port) = flow.port {
            write!(f, " port={port}")?;
        }

        write!(f, " id={}", flow.name)
    }
}
