//! The topology file: who may reach what, as people write it down (cli.md "Topology file").
//!
//! [`Topology::parse`] takes a file whole or not at all. It knows nothing of ids; the plan to apply it matches
//! names with what is there.

mod conditions;
mod file;

use std::collections::BTreeSet;

use connlib_wire::portal::resource::Filter;
use serde::{Deserialize, Serialize};

use crate::model::{Address, Condition, Network};

/// A topology without contradictions: each name is unique, and whatever is named exists.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Topology {
    /// What every client is told about resolving names.
    pub network: Network,
    /// The sites' names.
    pub sites: Vec<String>,
    /// Who owns clients.
    pub actors: Vec<ActorEntry>,
    /// What may be reached.
    pub resources: Vec<ResourceEntry>,
    /// Who may reach what.
    pub policies: Vec<PolicyEntry>,
}

/// One `[[actor]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ActorEntry {
    /// Its name.
    pub name: String,
    /// The groups it is in.
    pub groups: BTreeSet<String>,
}

/// One `[[resource]]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResourceEntry {
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub address: Address,
    /// The names of its sites; at least one.
    pub sites: Vec<String>,
    /// What may pass; empty for everything.
    pub filters: Vec<Filter>,
}

/// One `[[policy]]`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct PolicyEntry {
    /// The group that may reach it.
    pub group: String,
    /// The resource's name.
    pub resource: String,
    /// When and from where, in an order that doesn't depend on the file's; all must hold.
    pub conditions: Vec<Condition>,
}

/// What is wrong with a topology file, and where.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[error("{file}:{line}: `{key}`: {problem}; nothing was applied")]
pub struct TopologyError {
    /// The file's name as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The key that stands there, or that is missing there.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Topology {
    /// Reads `text`, which came from `file_name`.
    ///
    /// # Errors
    ///
    /// [`TopologyError`] for the first thing that is wrong: TOML itself, an unknown or missing key, a name that is
    /// given twice or to nothing, a bad address, filter or condition.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, TopologyError> {
        file::parse(text, file_name)
    }
}

#[cfg(test)]
mod tests;
