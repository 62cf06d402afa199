//! What would become of a packet of this machine: the same decisions as for real ones, told.

use std::net::IpAddr;
use std::time::Instant;

use connlib_link::PeerId;
use connlib_wire::id::{GatewayId, ResourceId};
use connlib_wire::ip::{IcmpError, Packet};
use connlib_wire::portal::resource::IpStack;

use super::setups::Known;
use super::traffic::Way;
use super::{Client, PortalState};
use crate::drops::DropReason;
use crate::filter::permits_port;
use crate::why::{ExplainedResource, Explanation, Question, Target, Verdict, probe, told};

impl Client {
    /// Tells what would become of a packet, and why. It changes nothing, and asks nobody.
    pub fn explain(&mut self, now: Instant, question: &Question) -> Vec<Explanation> {
        let Some((own_v4, own_v6)) = self.addresses else {
            let why = "the portal hasn't told yet what is where";
            return vec![Explanation::new(question, Verdict::Outside, why)];
        };
        let destination = match self.destination(question) {
            Ok(destination) => destination,
            Err(explanation) => return vec![*explanation],
        };
        let source = match destination {
            IpAddr::V4(_) => IpAddr::V4(own_v4),
            IpAddr::V6(_) => IpAddr::V6(own_v6),
        };
        let probe = probe(self.links.pool(), question, source, destination);
        let Some(packet) = probe else {
            let why = "no packet can be made of that";
            return vec![Explanation::new(question, Verdict::Outside, why)];
        };
        let len = packet.bytes().len();
        let way = match Packet::parse(packet.bytes()) {
            Ok(view) => self.way(&view, len),
            Err(_) => Way::Nowhere(DropReason::Malformed),
        };
        let candidates = self.candidates_for(destination);
        let mut explanation = match way {
            Way::To(gateway) => self.explain_link(question, gateway),
            Way::Named(key) => match self.setups.known(&key) {
                Known::Active => self.explain_link(question, key.gateway),
                Known::Failed => {
                    let why = "the gateway has found no address for the name";
                    Explanation::new(question, Verdict::Refused, why)
                }
                Known::Asked => {
                    let why = "the gateway is being told which name the address stands for";
                    Explanation::new(question, Verdict::Waits, why)
                }
                Known::Not => {
                    let why = "the gateway is told first which name the address stands for";
                    Explanation::new(question, Verdict::Waits, why)
                }
            }
            .through(key.gateway),
            Way::NameServer => {
                let why = "it is a question for a name server, which is answered here";
                Explanation::new(question, Verdict::Passes, why)
            }
            Way::Ask(resource) => self.explain_asking(now, question, resource),
            Way::Refuse(error, _) => {
                self.explain_refusal(question, destination, error, &candidates)
            }
            Way::Nowhere(_) => {
                let why = match self.grants.gateway_at(destination) {
                    Some(_) => "it comes from an address that isn't ours",
                    None => "no resource has this address, so that it doesn't enter the tunnel",
                };
                Explanation::new(question, Verdict::Outside, why)
            }
        };
        let chosen = self.chosen(question, destination, &candidates);
        if let Some(id) = chosen {
            explanation.resource = self.described(id);
            explanation = explanation.with_filters(self.resources.filters(id));
        }
        if matches!(question.to, Target::Name(_)) || explanation.resource.is_some() {
            explanation.address = Some(destination);
        }

        vec![explanation]
    }

    /// Where a packet goes: to what it says, or to an address that stands for the name.
    fn destination(&mut self, question: &Question) -> Result<IpAddr, Box<Explanation>> {
        let name = match &question.to {
            Target::Address(ip) => return Ok(*ip),
            Target::Name(name) => name,
        };
        let Some(first) = self.resources.named(name).first().copied() else {
            let why = "no resource has such a name: the system's name servers are asked, and the address that they say decides";
            return Err(Box::new(Explanation::new(question, Verdict::Outside, why)));
        };
        let wants_v6 = self.resources.ip_stack(first) == IpStack::Ipv6Only;
        let addresses = self.name_server.names.addresses_of(name);
        let address = addresses
            .into_iter()
            .flatten()
            .find(|ip| ip.is_ipv6() == wants_v6);

        if let Some(address) = address {
            return Ok(address);
        }
        // It has none yet, but what may pass is known.
        let candidates = self.resources.named(name);
        let lets_pass = |id: &&ResourceId| {
            let filters = self.resources.filters(**id);
            permits_port(filters, question.transport, question.port)
        };
        let permitting = candidates.iter().find(lets_pass).copied();
        let mut explanation = match permitting {
            Some(_) => {
                let why = "the name belongs to a resource, and gets addresses when it is asked for";
                Explanation::new(question, Verdict::Waits, why)
            }
            None => refused_by_filters(question, candidates.len()),
        };
        let resource = permitting.unwrap_or(first);
        explanation.resource = self.described(resource);

        Err(Box::new(
            explanation.with_filters(self.resources.filters(resource)),
        ))
    }

    /// The resources that an address may belong to, best first where the packet doesn't matter.
    fn candidates_for(&mut self, destination: IpAddr) -> Vec<ResourceId> {
        match self.name_server.names.name_at(destination).cloned() {
            Some(name) => self.resources.named(&name).to_vec(),
            None => self.resources.covering(destination),
        }
    }

    fn explain_link(&self, question: &Question, gateway: GatewayId) -> Explanation {
        let peer = PeerId::from(gateway);
        let (verdict, why) = match self.sites.is_connected(gateway) {
            true => (
                Verdict::Passes,
                "access is granted, and the gateway is connected",
            ),
            false => (
                Verdict::Waits,
                "access is granted, and the connection to the gateway is being made",
            ),
        };

        let mut explanation = Explanation::new(question, verdict, why).through(gateway);
        explanation.find_path(&self.links, peer);

        explanation
    }

    fn explain_asking(
        &self,
        now: Instant,
        question: &Question,
        resource: ResourceId,
    ) -> Explanation {
        if let Some(error) = self.requests.refusal(now, resource) {
            let why = match error {
                IcmpError::Prohibited => {
                    "the portal refused access a moment ago: no policy allows it"
                }
                IcmpError::Unreachable | IcmpError::TooBig { .. } | _ => {
                    "the portal said a moment ago that no gateway of the resource's site is online"
                }
            };
            return Explanation::new(
                question,
                Verdict::Refused,
                format!("{why}; {}", told(error)),
            );
        }
        let why = match (self.requests.is_pending(resource), self.portal) {
            (true, _) => "the portal has been asked for access, and hasn't answered yet",
            (false, PortalState::Joined) => "the portal is asked for access first",
            (false, PortalState::Away) => {
                "the portal is away: it is asked for access once it is back"
            }
        };

        Explanation::new(question, Verdict::Waits, why)
    }

    fn explain_refusal(
        &self,
        question: &Question,
        destination: IpAddr,
        error: IcmpError,
        candidates: &[ResourceId],
    ) -> Explanation {
        let is_only_internet = candidates.is_empty() && self.resources.has_internet();
        let why = match candidates.len() {
            0 if is_only_internet => {
                "the address isn't one of the Internet's, and no other resource has it"
            }
            0 if self.name_server.names.name_at(destination).is_some() => {
                "the resource that the name belonged to is gone"
            }
            0 => "the address stands for no name",
            count => return refused_by_filters(question, count),
        };

        Explanation::new(
            question,
            Verdict::Refused,
            format!("{why}; {}", told(error)),
        )
    }

    fn described(&self, id: ResourceId) -> Option<ExplainedResource> {
        let view = self.resources.view(id, &self.sites)?;

        Some(ExplainedResource {
            id: view.id.to_string(),
            name: view.name,
            address: view.address,
        })
    }

    /// The resource that a packet belongs to: of those with its address, the first whose filters let it pass.
    fn chosen(
        &mut self,
        question: &Question,
        destination: IpAddr,
        candidates: &[ResourceId],
    ) -> Option<ResourceId> {
        if self.name_server.names.name_at(destination).is_none() {
            let wanted = (destination, question.transport, question.port);
            return self.resources.choose(wanted).map(|choice| choice.resource);
        }
        let permits = |id: &&ResourceId| {
            let filters = self.resources.filters(**id);
            permits_port(filters, question.transport, question.port)
        };

        candidates
            .iter()
            .find(permits)
            .or_else(|| candidates.first())
            .copied()
    }
}

/// The filters of all resources that have the address or the name, which are so many, are against it.
fn refused_by_filters(question: &Question, resources: usize) -> Explanation {
    let why = match resources {
        1 => "the filters of the resource don't let it pass",
        _ => "the filters of none of its resources let it pass",
    };
    let why = format!("{why}; {}", told(IcmpError::Prohibited));

    Explanation::new(question, Verdict::Refused, why)
}
