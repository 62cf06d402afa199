//! May this actor reach this resource now, and what decides?

use std::net::IpAddr;

use connlib_wire::id::ClientId;
use serde::{Deserialize, Serialize};

use super::{Failure, Known};
use crate::model::{Actor, Client, Condition, Country, Policy, PolicyId, Resource};
use crate::policy::{Circumstances, Conformity, decide, evaluate, holds, policies_of};
use crate::state::fit;

/// Whether an actor may reach a resource, and why.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Explanation {
    /// Who, by name.
    pub actor: String,
    /// What, by name.
    pub resource: String,
    /// Whether one of [`Explanation::verdicts`] is a yes.
    pub allowed: bool,
    /// What stands against it whatever the circumstances are, in plain words. Empty if a policy concerns both.
    pub reasons: Vec<String>,
    /// The gateways that are connected and could give access, by name. Without one, a yes is of no use.
    pub gateways: Vec<String>,
    /// One for each client of the actor that is connected. If there is none, one for each that is known, or a single one
    /// for any client, by the circumstances that were asked about.
    pub verdicts: Vec<Verdict>,
}

/// What is decided for one client.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Verdict {
    /// Which client. `None` for one that never connected.
    pub client: Option<ClientId>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_name: Option<String>,
    /// Whether it is connected; if not, its circumstances are those that were asked about.
    pub online: bool,
    /// Its address.
    pub remote_ip: Option<IpAddr>,
    /// Where that is.
    pub country: Option<Country>,
    /// Whether an admin marked it as verified.
    pub verified: bool,
    /// Whether it may reach the resource.
    pub allowed: bool,
    /// Until when at the latest, in Unix seconds. `None` means that time changes nothing, or that it may not. Access
    /// ends with the client's token too.
    pub until: Option<u64>,
    /// The policy that lets it in.
    pub decided_by: Option<ExplainedPolicy>,
    /// Those of [`Explanation::gateways`] that don't get on with its version, as far as it is connected: `gw (1.7.0)`.
    #[serde(default)]
    pub unfit_gateways: Vec<String>,
    /// All other policies that concern the actor and the resource.
    pub others: Vec<ExplainedPolicy>,
}

/// A policy, and what became of it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ExplainedPolicy {
    /// Its id.
    pub id: PolicyId,
    /// The group that it is for.
    pub group: String,
    /// Its conditions, in words.
    pub conditions: Vec<String>,
    /// Whether all of them hold.
    pub holds: bool,
    /// Until when, in Unix seconds. `None` means that time changes nothing, or that they don't.
    pub until: Option<u64>,
    /// Those that don't hold and why: `weekdays mon-fri 08:00-18:00 Europe/Berlin: it is Sun 03:12 there`.
    pub failed: Vec<String>,
}

/// What is asked.
pub(super) struct Question<'a> {
    pub(super) actor: &'a str,
    pub(super) resource: &'a str,
    pub(super) remote_ip: Option<IpAddr>,
    pub(super) country: Option<Country>,
}

/// Answers `question`.
///
/// # Errors
///
/// [`Failure::UnknownActor`] and [`Failure::UnknownResource`].
pub(super) fn explain(known: &Known<'_>, question: &Question<'_>) -> Result<Explanation, Failure> {
    let actor = known.directory.actor_named(question.actor);
    let actor = actor.ok_or_else(|| Failure::UnknownActor {
        name: question.actor.to_owned(),
    })?;
    let resource = known.directory.resource_named(question.resource);
    let resource = resource.ok_or_else(|| Failure::UnknownResource {
        name: question.resource.to_owned(),
    })?;

    let verdicts: Vec<Verdict> = cases(known, actor, question)
        .into_iter()
        .map(|(client, circumstances)| verdict(known, (actor, resource), client, &circumstances))
        .collect();
    let gateways = (known.directory.gateways().values())
        .filter(|gateway| resource.sites.contains(&gateway.site))
        .filter(|gateway| known.presence.gateways.contains_key(&gateway.id));

    Ok(Explanation {
        actor: actor.name.clone(),
        resource: resource.name.clone(),
        allowed: verdicts.iter().any(|verdict| verdict.allowed),
        reasons: reasons(known, actor, resource),
        gateways: gateways
            .map(|gateway| gateway.device.name.clone())
            .collect(),
        verdicts,
    })
}

/// The clients in question, and the circumstances of each.
fn cases<'a>(
    known: &Known<'a>,
    actor: &Actor,
    question: &Question<'_>,
) -> Vec<(Option<&'a Client>, Circumstances)> {
    let directory = known.directory;
    let clients = (directory.clients().values()).filter(|client| client.actor == actor.id);
    let connected: Vec<_> = (clients.clone())
        .filter_map(|client| {
            let circumstances = known.presence.circumstances.get(&client.id)?;
            // Time went on since they were noted.
            let unix = known.unix;
            Some((
                Some(client),
                Circumstances {
                    unix,
                    ..*circumstances
                },
            ))
        })
        .collect();
    if !connected.is_empty() {
        return connected;
    }

    let remote_ip = question.remote_ip.map(|address| address.to_canonical());
    let location = remote_ip.and_then(|address| known.locations.locate(address));
    let asked = |client: Option<&Client>| Circumstances {
        remote_ip,
        country: question.country.or_else(|| Some(location?.country)),
        verified: client.is_some_and(|client| client.verified),
        unix: known.unix,
    };
    let known: Vec<_> = clients
        .map(|client| (Some(client), asked(Some(client))))
        .collect();

    match known.is_empty() {
        true => vec![(None, asked(None))],
        false => known,
    }
}

fn verdict(
    known: &Known<'_>,
    (actor, resource): (&Actor, &Resource),
    client: Option<&Client>,
    circumstances: &Circumstances,
) -> Verdict {
    let directory = known.directory;
    // The code that decides says what it decides.
    let decision = decide(directory, actor.id, resource.id, circumstances).ok();
    let deciding = decision.map(|decision| decision.policy.id);
    let (decided_by, others) = policies_of(directory, actor.id)
        .filter(|policy| policy.resource == resource.id)
        .map(|policy| explained(policy, circumstances))
        .partition::<Vec<_>, _>(|policy| Some(policy.id) == deciding);

    Verdict {
        client: client.map(|client| client.id),
        client_name: client.map(|client| client.device.name.clone()),
        online: client.is_some_and(|client| known.presence.clients.contains_key(&client.id)),
        remote_ip: circumstances.remote_ip,
        country: circumstances.country,
        verified: circumstances.verified,
        allowed: decision.is_some(),
        until: decision.and_then(|decision| decision.until),
        decided_by: decided_by.into_iter().next(),
        unfit_gateways: client.map_or_else(Vec::new, |client| unfit(known, client, resource)),
        others,
    }
}

/// The connected gateways of a resource whose versions don't get on with that of a connected client.
fn unfit(known: &Known<'_>, client: &Client, resource: &Resource) -> Vec<String> {
    let presence = known.presence;
    let Some(ours) = presence.clients.get(&client.id) else {
        return vec![];
    };
    let gateways = known.directory.gateways().values();
    let of_resource = gateways.filter(|gateway| resource.sites.contains(&gateway.site));

    of_resource
        .filter_map(|gateway| {
            let theirs = *presence.gateways.get(&gateway.id)?;
            let version = theirs.map_or_else(|| "unknown".to_owned(), |it| it.to_string());
            (!fit(*ours, theirs)).then(|| format!("{} ({version})", gateway.device.name))
        })
        .collect()
}

fn explained(policy: &Policy, circumstances: &Circumstances) -> ExplainedPolicy {
    let (is_met, until) = match evaluate(&policy.conditions, circumstances) {
        Conformity::Holds { until } => (true, until),
        Conformity::Violated(_) => (false, None),
    };
    let failed = (policy.conditions.iter()).filter(|condition| !holds(condition, circumstances));

    ExplainedPolicy {
        id: policy.id,
        group: policy.group.clone(),
        conditions: policy.conditions.iter().map(ToString::to_string).collect(),
        holds: is_met,
        until,
        failed: failed
            .map(|condition| format!("{condition}: {}", because(condition, circumstances)))
            .collect(),
    }
}

/// Why `condition` doesn't hold.
fn because(condition: &Condition, circumstances: &Circumstances) -> String {
    let Circumstances {
        remote_ip,
        country,
        unix,
        ..
    } = circumstances;

    match condition {
        Condition::RemoteIp(_) | Condition::NotRemoteIp(_) => match remote_ip {
            Some(address) => format!("the client connects from {address}"),
            None => "it is not known where the client connects from".to_owned(),
        },
        Condition::Country(_) | Condition::NotCountry(_) => match (country, remote_ip) {
            (Some(country), _) => format!("the client is in {country}"),
            (None, Some(address)) => format!("it is not known which country {address} is in"),
            (None, None) => "it is not known which country the client is in".to_owned(),
        },
        Condition::Verified => "no admin marked the device as verified".to_owned(),
        Condition::Time(window) => format!("it is {} there", window.timezone.clock_at(*unix)),
    }
}

/// Why no policy concerns both, if none does.
fn reasons(known: &Known<'_>, actor: &Actor, resource: &Resource) -> Vec<String> {
    let (name, of) = (&actor.name, &resource.name);
    let mut groups: Vec<&str> = (known.directory.policies().values())
        .filter(|policy| policy.resource == resource.id)
        .map(|policy| policy.group.as_str())
        .collect();
    groups.sort_unstable();
    groups.dedup();
    if groups.is_empty() {
        return vec![format!("no policy lets anyone into `{of}`")];
    }
    if groups.iter().any(|group| actor.groups.contains(*group)) {
        return vec![];
    }

    let own: Vec<&str> = actor.groups.iter().map(String::as_str).collect();
    let own = match own.as_slice() {
        [] => "in no group".to_owned(),
        own => format!("in {}", quoted(own)),
    };
    vec![format!(
        "`{name}` is {own}, and the policies for `{of}` are for {}",
        quoted(&groups)
    )]
}

fn quoted(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();

    names.join(", ")
}

#[cfg(test)]
mod tests;
