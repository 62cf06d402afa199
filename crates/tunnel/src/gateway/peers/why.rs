//! Why a client's packet would pass, or not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use connlib_wire::dns::Name;
use connlib_wire::id::{ClientId, ResourceId};
use connlib_wire::ip::IcmpError;

use super::judging::is_own;
use super::{Grant, Peer, Peers};
use crate::drops::DropReason;
use crate::filter::permits_port;
use crate::ranges;
use crate::why::{ExplainedResource, Explanation, Question, Target, Verdict, told};

impl Peers {
    /// What would become of a packet if each of the clients sent it.
    pub(in crate::gateway) fn explain(
        &mut self,
        now: Instant,
        question: &Question,
        own: Option<(Ipv4Addr, Ipv6Addr)>,
    ) -> Vec<(ClientId, Explanation)> {
        self.expire(now);
        let peers = self.by_id.iter_mut();

        peers
            .map(|(id, peer)| (*id, peer.explain(now, question, own)))
            .collect()
    }
}

impl Peer {
    fn explain(
        &mut self,
        now: Instant,
        question: &Question,
        own: Option<(Ipv4Addr, Ipv6Addr)>,
    ) -> Explanation {
        match &question.to {
            Target::Address(ip) if is_own(*ip, own) => {
                let why = "it is for the gateway itself";
                Explanation::new(question, Verdict::Passes, why)
            }
            Target::Address(ip) if ip.is_multicast() => {
                let why = "what is for many is not passed on, and not answered";
                Explanation::new(question, Verdict::Refused, why)
            }
            Target::Address(ip) if ranges::is_proxy(*ip) => self.explain_named(now, question, *ip),
            Target::Address(ip) => self.explain_address(now, question, *ip),
            Target::Name(name) => match self.nat.address_of(name) {
                Some(ip) => self.explain_named(now, question, ip),
                None => self.explain_unknown(question, name),
            },
        }
    }

    fn explain_address(&mut self, now: Instant, question: &Question, ip: IpAddr) -> Explanation {
        if ranges::is_tunnel(ip) {
            return refused(
                question,
                "clients don't reach each other through a gateway",
                IcmpError::Prohibited,
            );
        }
        let wanted = (ip, question.transport, question.port);
        let choice = self.networks.choose(wanted);
        let explanation = match self.reach(wanted) {
            Ok(()) => {
                let why = match choice {
                    Some(choice) if choice.is_permitted => "a resource of the client has it",
                    Some(_) | None => "the client may use the Internet",
                };
                Explanation::new(question, Verdict::Passes, why)
            }
            Err((error, DropReason::Filtered)) => {
                let why =
                    "the filters of none of the client's resources with this address let it pass";
                refused(question, why, error)
            }
            Err((error, DropReason::NoResource)) => {
                let why = "no resource that the client may use has this address";
                refused(question, why, error)
            }
            Err((error, _)) => {
                let why = "the address isn't one of the Internet's, and no other resource has it";
                refused(question, why, error)
            }
        };
        let internet = || {
            let mut grants = self.grants.iter();
            grants
                .find(|(_, grant)| grant.is_internet())
                .map(|(id, _)| *id)
        };
        let is_internet = explanation.verdict == Verdict::Passes
            && !choice.is_some_and(|choice| choice.is_permitted);
        let resource = match is_internet {
            true => internet(),
            false => choice.map(|choice| choice.resource),
        };

        self.of_resource(now, explanation, resource)
    }

    fn explain_named(&self, now: Instant, question: &Question, proxy: IpAddr) -> Explanation {
        let Some(translation) = self.nat.translation(proxy) else {
            let why = "the address stands for no name that the client has told of";
            return refused(question, why, IcmpError::Prohibited);
        };
        let lets_pass = |id: &&ResourceId| {
            self.grants.get(id).is_some_and(|grant| {
                permits_port(grant.filters(), question.transport, question.port)
            })
        };
        let permitting = translation.resources.iter().find(lets_pass);
        let resource = permitting
            .or_else(|| translation.resources.first())
            .copied();
        let name = translation.name.as_str();
        let mut explanation = match (permitting, translation.real) {
            (None, _) => {
                let why = "the filters of none of the name's resources let it pass";
                refused(question, why, IcmpError::Prohibited)
            }
            (Some(_), None) => {
                let family = if proxy.is_ipv4() { "IPv4" } else { "IPv6" };
                let why = format!("{name} has no address of {family}");
                refused(question, why, IcmpError::Unreachable)
            }
            (Some(_), Some(real)) => {
                let why = format!("it stands for {name}, and goes to {real}");
                Explanation::new(question, Verdict::Passes, why)
            }
        };
        explanation.address = translation.real;

        self.of_resource(now, explanation, resource)
    }

    fn explain_unknown(&self, question: &Question, name: &Name) -> Explanation {
        let why = match self.grants.values().any(|grant| grant.matches(name)) {
            true => {
                "a resource of the client has the name, and the client hasn't told which addresses stand for it"
            }
            false => "no resource that the client may use has such a name",
        };

        Explanation::new(question, Verdict::Refused, why)
    }

    /// Adds what is known of the resource.
    fn of_resource(
        &self,
        now: Instant,
        explanation: Explanation,
        resource: Option<ResourceId>,
    ) -> Explanation {
        let known = resource.and_then(|id| Some((id, self.grants.get(&id)?)));
        let Some((id, grant)) = known else {
            return explanation;
        };
        let mut explanation = explanation.with_filters(grant.filters());
        explanation.resource = Some(described(id, grant));
        explanation.ends_in_secs = grant
            .until
            .map(|until| until.saturating_duration_since(now).as_secs());

        explanation
    }
}

fn refused(question: &Question, why: impl Into<String>, error: IcmpError) -> Explanation {
    let why = format!("{}; {}", why.into(), told(error));

    Explanation::new(question, Verdict::Refused, why)
}

fn described(id: ResourceId, grant: &Grant) -> ExplainedResource {
    let (name, address) = grant.described();

    ExplainedResource {
        id: id.to_string(),
        name,
        address,
    }
}
