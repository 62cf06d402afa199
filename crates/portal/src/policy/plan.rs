//! From what is there to what a topology file wants.

mod policies;

use std::collections::BTreeSet;
use std::fmt;

use connlib_wire::id::{ResourceId, SiteId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Fate, standing};
use crate::model::{
    Actor, ActorId, Address, Directory, Edit, Network, PolicyId, Resource, Site, filter_text,
};
use crate::topology::{ActorEntry, ResourceEntry, Topology};
use policies::{entry_of, policy_name};

/// What applying a topology does, for people and for the directory.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// For people.
    pub changes: Changes,
    /// For the directory, in this order.
    pub edits: Vec<Edit>,
}

/// What applying a topology adds, changes and removes.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Changes {
    /// What is new.
    pub added: Vec<Change>,
    /// What is different.
    pub changed: Vec<Change>,
    /// What is gone.
    pub removed: Vec<Change>,
}

/// One thing that is new, different or gone.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Change {
    /// What kind of thing.
    pub noun: Noun,
    /// What it is called.
    pub name: String,
    /// What about it is different: `address: 10.0.0.0/8 -> 10.20.0.0/16`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// A kind of thing.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Noun {
    /// The network's settings.
    Network,
    /// A site.
    Site,
    /// An actor.
    Actor,
    /// A resource.
    Resource,
    /// A policy.
    Policy,
}

impl Changes {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = match self.noun {
            Noun::Network => return write!(f, "network ({})", self.details.join("; ")),
            Noun::Site => "site",
            Noun::Actor => "actor",
            Noun::Resource => "resource",
            Noun::Policy => "policy",
        };
        write!(f, "{noun} `{}`", self.name)?;
        if !self.details.is_empty() {
            write!(f, " ({})", self.details.join("; "))?;
        }

        Ok(())
    }
}

/// Says what makes `directory` equal to `topology`. Things keep their ids while they keep their names.
///
/// `new_id` gives a fresh random id at each call.
pub fn plan(directory: &Directory, topology: &Topology, new_id: &mut dyn FnMut() -> Uuid) -> Plan {
    let mut planner = Planner {
        before: directory,
        after: directory.clone(),
        new_id,
        plan: Plan::default(),
    };

    planner.network(&topology.network);
    planner.add_sites(&topology.sites);
    planner.put_actors(&topology.actors);
    planner.put_resources(&topology.resources);
    let kept = planner.put_policies(&topology.policies);
    let drops = planner.drops(topology, &kept);
    planner.judge_grants(&drops);
    for edit in drops {
        planner.edit(edit);
    }

    planner.plan
}

struct Planner<'a> {
    before: &'a Directory,
    after: Directory,
    new_id: &'a mut dyn FnMut() -> Uuid,
    plan: Plan,
}

impl Planner<'_> {
    fn network(&mut self, wanted: &Network) {
        let current = self.before.network();
        if wanted == current {
            return;
        }
        let mut details = vec![];
        describe(
            &mut details,
            "upstream_dns",
            &servers(current),
            &servers(wanted),
        );
        let domain = |network: &Network| network.search_domain.clone().unwrap_or_default();
        describe(
            &mut details,
            "search_domain",
            &domain(current),
            &domain(wanted),
        );

        self.edit(Edit::SetNetwork(wanted.clone()));
        self.plan.changes.changed.push(Change {
            noun: Noun::Network,
            name: "network".to_owned(),
            details,
        });
    }

    fn add_sites(&mut self, wanted: &[String]) {
        for name in wanted {
            if self.before.site_named(name).is_some() {
                continue;
            }
            let id = SiteId((self.new_id)());
            let name = name.clone();
            self.plan.changes.added.push(change(Noun::Site, &name));
            self.edit(Edit::PutSite(Site { id, name }));
        }
    }

    fn put_actors(&mut self, wanted: &[ActorEntry]) {
        for ActorEntry { name, groups } in wanted {
            let current = self.before.actor_named(name);
            let id = current.map_or_else(|| ActorId((self.new_id)()), |actor| actor.id);
            let actor = Actor {
                id,
                name: name.clone(),
                groups: groups.clone(),
            };
            let mut details = vec![];
            if let Some(current) = current {
                describe(
                    &mut details,
                    "groups",
                    &list(&current.groups),
                    &list(groups),
                );
            }

            let is_new = current.is_none();
            self.put(is_new, Noun::Actor, name, details, Edit::PutActor(actor));
        }
    }

    fn put_resources(&mut self, wanted: &[ResourceEntry]) {
        for entry in wanted {
            let before = self.before;
            let current =
                (before.resources().values()).find(|resource| resource.name == entry.name);
            let id = current.map_or_else(|| ResourceId((self.new_id)()), |resource| resource.id);
            let site = |name: &String| self.after.site_named(name).map(|site| site.id);
            let resource = Resource {
                id,
                name: entry.name.clone(),
                address: entry.address.clone(),
                sites: entry.sites.iter().filter_map(site).collect(),
                filters: entry.filters.clone(),
            };
            let details =
                current.map_or_else(Vec::new, |current| self.differences(current, &resource));

            let is_new = current.is_none();
            self.put(
                is_new,
                Noun::Resource,
                &entry.name,
                details,
                Edit::PutResource(resource),
            );
        }
    }

    /// What is there and not wanted. What names others comes before what is named.
    fn drops(&mut self, wanted: &Topology, kept: &BTreeSet<PolicyId>) -> Vec<Edit> {
        let before = self.before;
        let mut drops = vec![];
        let mut drop = |noun, name: &str, edit| {
            self.plan.changes.removed.push(change(noun, name));
            drops.push(edit);
        };

        for policy in before.policies().values() {
            if !kept.contains(&policy.id) {
                let name = policy_name(&entry_of(before, policy));
                drop(Noun::Policy, &name, Edit::DropPolicy(policy.id));
            }
        }
        for resource in before.resources().values() {
            if !(wanted.resources.iter()).any(|entry| entry.name == resource.name) {
                let edit = Edit::DropResource(resource.id);
                drop(Noun::Resource, &resource.name, edit);
            }
        }
        for actor in before.actors().values() {
            if !(wanted.actors.iter()).any(|entry| entry.name == actor.name) {
                drop(Noun::Actor, &actor.name, Edit::DropActor(actor.id));
            }
        }
        for site in before.sites().values() {
            if !wanted.sites.contains(&site.name) {
                drop(Noun::Site, &site.name, Edit::DropSite(site.id));
            }
        }

        drops
    }

    /// Says what becomes of each grant once `drops` are made. Comes before them: dropping a policy takes the grants
    /// along that it decided, those too that another policy holds up. Conditions aren't looked at: that is for whoever
    /// knows where clients are.
    fn judge_grants(&mut self, drops: &[Edit]) {
        let mut after = self.after.clone();
        for edit in drops {
            after.apply(edit);
        }

        for grant in self.before.grants().values() {
            let address = |directory: &Directory| {
                let resource = directory.resources().get(&grant.key.resource);
                resource.map(|resource| resource.address.clone())
            };
            if address(self.before) != address(&after) {
                self.edit(Edit::DropGrant(grant.key));
                continue;
            }
            match standing(&after, grant) {
                Fate::Stands => {}
                Fate::Renewed(grant) => self.edit(Edit::PutGrant(grant)),
                Fate::Falls => self.edit(Edit::DropGrant(grant.key)),
            }
        }
    }

    fn put(&mut self, is_new: bool, noun: Noun, name: &str, details: Vec<String>, edit: Edit) {
        if is_new {
            self.plan.changes.added.push(change(noun, name));
        } else if details.is_empty() {
            return;
        } else {
            let name = name.to_owned();
            (self.plan.changes.changed).push(Change {
                noun,
                name,
                details,
            });
        }
        self.edit(edit);
    }

    fn differences(&self, current: &Resource, wanted: &Resource) -> Vec<String> {
        let stack = |resource: &Resource| match &resource.address {
            Address::Dns { ip_stack, .. } => format!("{ip_stack:?}"),
            Address::Cidr(_) | Address::Internet => String::new(),
        };
        let sites = |directory: &Directory, resource: &Resource| {
            let name = |id| directory.sites().get(id).map(|site| site.name.clone());
            let names: Vec<String> = resource.sites.iter().filter_map(name).collect();
            names.join(", ")
        };
        let filters = |resource: &Resource| {
            let texts: Vec<String> = resource.filters.iter().map(filter_text).collect();
            texts.join(", ")
        };

        let mut details = vec![];
        describe(
            &mut details,
            "address",
            &current.address.to_string(),
            &wanted.address.to_string(),
        );
        describe(&mut details, "ip_stack", &stack(current), &stack(wanted));
        describe(
            &mut details,
            "sites",
            &sites(self.before, current),
            &sites(&self.after, wanted),
        );
        describe(&mut details, "filters", &filters(current), &filters(wanted));

        details
    }

    fn edit(&mut self, edit: Edit) {
        self.after.apply(&edit);
        self.plan.edits.push(edit);
    }
}

fn describe(details: &mut Vec<String>, key: &str, current: &str, wanted: &str) {
    if current == wanted {
        return;
    }
    let or_nothing = |text: &str| match text {
        "" => "nothing".to_owned(),
        _ => text.to_owned(),
    };
    let (current, wanted) = (or_nothing(current), or_nothing(wanted));
    details.push(format!("{key}: {current} -> {wanted}"));
}

fn servers(network: &Network) -> String {
    let addresses = network.do53.iter().map(ToString::to_string);
    let encrypted = network.dot.iter().chain(&network.doh).cloned();
    let servers: Vec<String> = addresses.chain(encrypted).collect();

    servers.join(", ")
}

fn list(names: &BTreeSet<String>) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();

    names.join(", ")
}

fn change(noun: Noun, name: &str) -> Change {
    Change {
        noun,
        name: name.to_owned(),
        details: vec![],
    }
}
