//! Who may reach what.

mod plan;

use std::collections::BTreeMap;

use connlib_wire::id::ResourceId;

pub use plan::{Change, Changes, Noun, Plan, plan};

use crate::model::{ActorId, Directory, Grant, Policy, Resource};

/// Every resource that `actor` may reach, each with the policy that lets it in.
pub fn reachable(directory: &Directory, actor: ActorId) -> BTreeMap<ResourceId, Decision<'_>> {
    let mut reachable = BTreeMap::new();
    for policy in policies_of(directory, actor) {
        let Some(resource) = directory.resources().get(&policy.resource) else {
            continue;
        };
        // The first policy by id decides, here and in `decide`: with no conditions all of them are equal.
        reachable
            .entry(resource.id)
            .or_insert(Decision { resource, policy });
    }

    reachable
}

/// May `actor` reach `resource`, and by which policy? `None` is no.
pub fn decide(directory: &Directory, actor: ActorId, resource: ResourceId) -> Option<Decision<'_>> {
    let policy = policies_of(directory, actor).find(|policy| policy.resource == resource)?;
    let resource = directory.resources().get(&resource)?;

    Some(Decision { resource, policy })
}

/// A yes.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// What may be reached.
    pub resource: &'a Resource,
    /// The policy that says so.
    pub policy: &'a Policy,
}

/// What is left of a grant when the directory around it changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// It is as good as before.
    Stands,
    /// It stands, by the decision of another policy.
    Renewed(Grant),
    /// It is void.
    Falls,
}

/// Judges `grant` by `directory` alone; its token, its expiry and what its resource was before are not looked at.
pub(crate) fn fate(directory: &Directory, grant: &Grant) -> Fate {
    let key = grant.key;
    let (Some(client), Some(gateway)) = (
        directory.clients().get(&key.client),
        directory.gateways().get(&key.gateway),
    ) else {
        return Fate::Falls;
    };
    let Some(decision) = decide(directory, client.actor, key.resource) else {
        return Fate::Falls;
    };
    if !decision.resource.sites.contains(&gateway.site) {
        return Fate::Falls;
    }
    let still_decides = policies_of(directory, client.actor)
        .any(|policy| policy.id == grant.policy && policy.resource == key.resource);
    if still_decides {
        return Fate::Stands;
    }

    Fate::Renewed(Grant {
        policy: decision.policy.id,
        ..grant.clone()
    })
}

fn policies_of(directory: &Directory, actor: ActorId) -> impl Iterator<Item = &Policy> {
    let groups = directory.actors().get(&actor).map(|actor| &actor.groups);

    directory
        .policies()
        .values()
        .filter(move |policy| groups.is_some_and(|groups| groups.contains(&policy.group)))
}

#[cfg(test)]
mod tests;
