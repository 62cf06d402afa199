//! Which policies stay, change or come.
//!
//! A policy has no name: several of the same group and resource are told apart by their conditions, which may change.

use std::collections::{BTreeMap, BTreeSet};

use super::{Noun, Planner, describe};
use crate::model::{Directory, Edit, Policy, PolicyId, conditions_text};
use crate::topology::PolicyEntry;

impl Planner<'_> {
    /// Returns the policies that stay, as they were or with other conditions.
    pub(super) fn put_policies(&mut self, wanted: &[PolicyEntry]) -> BTreeSet<PolicyId> {
        let mut kept = BTreeSet::new();
        for (entry, current) in matched(self.before, wanted) {
            let resource = (self.after.resources().values())
                .find(|resource| resource.name == entry.resource)
                .map(|resource| resource.id);
            let Some(resource) = resource else {
                continue;
            };
            let id = current.map_or_else(|| PolicyId((self.new_id)()), |current| current.id);
            let mut details = vec![];
            if let Some(current) = current {
                kept.insert(current.id);
                describe(
                    &mut details,
                    "conditions",
                    &conditions_text(&current.conditions),
                    &conditions_text(&entry.conditions),
                );
            }
            let name = match current {
                Some(_) => short_name(entry),
                None => policy_name(entry),
            };
            let policy = Policy {
                id,
                group: entry.group.clone(),
                resource,
                conditions: entry.conditions.clone(),
            };

            let is_new = current.is_none();
            self.put(
                is_new,
                Noun::Policy,
                &name,
                details,
                Edit::PutPolicy(policy),
            );
        }

        kept
    }
}

/// Each policy that is wanted, with the one that it is so far: of the same group and resource those with equal conditions,
/// then in order those that are left over on both sides.
fn matched<'a>(
    before: &'a Directory,
    wanted: &'a [PolicyEntry],
) -> Vec<(&'a PolicyEntry, Option<&'a Policy>)> {
    let mut alternatives: BTreeMap<(String, String), Vec<&Policy>> = BTreeMap::new();
    for policy in before.policies().values() {
        let entry = entry_of(before, policy);
        let key = (entry.group, entry.resource);
        alternatives.entry(key).or_default().push(policy);
    }
    let mut take = |entry: &PolicyEntry, fits: &dyn Fn(&Policy) -> bool| {
        let key = (entry.group.clone(), entry.resource.clone());
        let left = alternatives.get_mut(&key)?;
        let position = left.iter().position(|policy| fits(policy))?;
        Some(left.remove(position))
    };

    let equal: Vec<Option<&Policy>> = (wanted.iter())
        .map(|entry| take(entry, &|policy| policy.conditions == entry.conditions))
        .collect();
    (wanted.iter().zip(equal))
        .map(|(entry, equal)| (entry, equal.or_else(|| take(entry, &|_| true))))
        .collect()
}

pub(super) fn entry_of(directory: &Directory, policy: &Policy) -> PolicyEntry {
    let resource = directory.resources().get(&policy.resource);

    PolicyEntry {
        group: policy.group.clone(),
        resource: resource.map_or_else(String::new, |resource| resource.name.clone()),
        conditions: policy.conditions.clone(),
    }
}

fn short_name(entry: &PolicyEntry) -> String {
    format!("{} -> {}", entry.group, entry.resource)
}

pub(super) fn policy_name(entry: &PolicyEntry) -> String {
    match entry.conditions.is_empty() {
        true => short_name(entry),
        false => format!(
            "{}, if {}",
            short_name(entry),
            conditions_text(&entry.conditions)
        ),
    }
}
