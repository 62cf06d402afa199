//! Who may reach what, and when.

mod conditions;
mod plan;

use std::collections::{BTreeMap, BTreeSet};

use connlib_wire::id::ResourceId;

pub use conditions::{Circumstances, Conformity, Property, evaluate};
pub(crate) use conditions::{earlier, holds, lateness};
pub use plan::{Change, Changes, Noun, Plan, plan};

use crate::model::{ActorId, Directory, Grant, Policy, Resource};

/// Every resource that `actor` may reach now, each with the policy that lets it in.
pub fn reachable<'a>(
    directory: &'a Directory,
    actor: ActorId,
    circumstances: &Circumstances,
) -> BTreeMap<ResourceId, Decision<'a>> {
    let mut reachable = BTreeMap::new();
    for policy in policies_of(directory, actor) {
        let Some(resource) = directory.resources().get(&policy.resource) else {
            continue;
        };
        let Conformity::Holds { until } = evaluate(&policy.conditions, circumstances) else {
            continue;
        };
        let decision = Decision {
            resource,
            policy,
            until,
        };
        let best = reachable.entry(resource.id).or_insert(decision);
        if decision.outlasts(best) {
            *best = decision;
        }
    }

    reachable
}

/// May `actor` reach `resource` now, by which policy, and until when?
///
/// Of several policies that let it in, the one that does for the longest decides, and among equals the first by id
/// (portal-protocol.md §10.4).
///
/// # Errors
///
/// [`Denied`].
pub fn decide<'a>(
    directory: &'a Directory,
    actor: ActorId,
    resource: ResourceId,
    circumstances: &Circumstances,
) -> Result<Decision<'a>, Denied> {
    let of_resource = policies_of(directory, actor).filter(|policy| policy.resource == resource);
    let resource = directory
        .resources()
        .get(&resource)
        .ok_or(Denied::NotFound)?;
    let mut best: Option<Decision<'_>> = None;
    let mut violated = BTreeSet::new();
    let mut is_known = false;
    for policy in of_resource {
        is_known = true;
        match evaluate(&policy.conditions, circumstances) {
            Conformity::Holds { until } => {
                let decision = Decision {
                    resource,
                    policy,
                    until,
                };
                if best.is_none_or(|best| decision.outlasts(&best)) {
                    best = Some(decision);
                }
            }
            Conformity::Violated(properties) => violated.extend(properties),
        }
    }

    match best {
        Some(decision) => Ok(decision),
        None if is_known => Err(Denied::Forbidden(violated)),
        None => Err(Denied::NotFound),
    }
}

/// A yes.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// What may be reached.
    pub resource: &'a Resource,
    /// The policy that says so.
    pub policy: &'a Policy,
    /// When the policy's conditions hold no longer, in Unix seconds. `None` means that time changes nothing.
    pub until: Option<u64>,
}

/// A no.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Denied {
    /// There is no such resource, or no policy is about it.
    NotFound,
    /// There are policies, and none conforms: all that is against it.
    Forbidden(BTreeSet<Property>),
}

impl Decision<'_> {
    fn outlasts(&self, other: &Decision<'_>) -> bool {
        lateness(self.until) > lateness(other.until)
    }
}

/// What is left of a grant when the directory or the circumstances changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// It is as good as before.
    Stands,
    /// It stands, by the decision of another policy or until another time.
    Renewed(Grant),
    /// It is void.
    Falls,
}

/// Judges `grant` by who and what is in `directory`, whatever the conditions are; its token, its expiry and what its
/// resource was before are not looked at.
pub(crate) fn standing(directory: &Directory, grant: &Grant) -> Fate {
    let Some(policies) = policies_for(directory, grant) else {
        return Fate::Falls;
    };
    if policies.iter().any(|policy| policy.id == grant.policy) {
        return Fate::Stands;
    }

    match policies.first() {
        Some(policy) => Fate::Renewed(Grant {
            policy: policy.id,
            ..grant.clone()
        }),
        None => Fate::Falls,
    }
}

/// Judges `grant` by `directory` and the circumstances of its client. It lasts as long as the best policy lets it, and
/// no longer than its token.
pub(crate) fn fate(directory: &Directory, grant: &Grant, circumstances: &Circumstances) -> Fate {
    let conforming = policies_for(directory, grant)
        .into_iter()
        .flatten()
        .filter_map(|policy| match evaluate(&policy.conditions, circumstances) {
            Conformity::Holds { until } => Some((policy, until)),
            Conformity::Violated(_) => None,
        });
    // One that outlasts the others decides, and among equals the one that did so far.
    let best = conforming.reduce(|best, other| {
        let rank =
            |(policy, until): (&Policy, Option<u64>)| (lateness(until), policy.id == grant.policy);
        match rank(other) > rank(best) {
            true => other,
            false => best,
        }
    });
    let Some((policy, until)) = best else {
        return Fate::Falls;
    };
    let token = directory.tokens().get(&grant.token);
    let expires_at = earlier(until, token.and_then(|token| token.expires_at));
    if (policy.id, expires_at) == (grant.policy, grant.expires_at) {
        return Fate::Stands;
    }

    Fate::Renewed(Grant {
        policy: policy.id,
        expires_at,
        ..grant.clone()
    })
}

/// The policies that are about the actor and the resource of `grant`, in the order of their ids. `None` if its parts are
/// gone, or no longer at the same site.
fn policies_for<'a>(directory: &'a Directory, grant: &Grant) -> Option<Vec<&'a Policy>> {
    let key = grant.key;
    let client = directory.clients().get(&key.client)?;
    let gateway = directory.gateways().get(&key.gateway)?;
    let resource = directory.resources().get(&key.resource)?;
    if !resource.sites.contains(&gateway.site) {
        return None;
    }
    let policies =
        policies_of(directory, client.actor).filter(|policy| policy.resource == key.resource);

    Some(policies.collect())
}

/// The policies of the groups that `actor` is in, in the order of their ids.
pub(crate) fn policies_of(directory: &Directory, actor: ActorId) -> impl Iterator<Item = &Policy> {
    let groups = directory.actors().get(&actor).map(|actor| &actor.groups);

    directory
        .policies()
        .values()
        .filter(move |policy| groups.is_some_and(|groups| groups.contains(&policy.group)))
}

#[cfg(test)]
mod tests;
