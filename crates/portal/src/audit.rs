//! Who changed what, and when.
//!
//! The audit only grows. What an admin does, devices that appear, and access that is given or taken back each leave an
//! entry, which the store keeps together with the edits that it is about. No secret is in it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::model::{ActorId, Client, Device, Directory, Edit, Grant, GrantKey, Token, TokenKind};
use crate::policy::{Change, Changes, Noun};

/// Something that happened.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Entry {
    /// When, in Unix seconds.
    pub at: u64,
    /// By whose doing.
    pub who: Who,
    /// What: a verb and a noun, like `added policy`.
    pub what: String,
    /// To what: its name, or its id if it has none.
    pub subject: String,
    /// More about it: an object.
    pub details: Value,
}

/// By whose doing something happened.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// An admin.
    Admin {
        /// The system's number of the user that asked.
        uid: u32,
    },
    /// A client or gateway.
    Peer,
    /// The portal itself, because something is no longer allowed.
    Portal,
}

/// An entry and its place.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Row {
    /// Its number. Later entries have greater ones.
    pub sequence: u64,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
}

/// Which rows are wanted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    /// No more than this many, the newest. `None` means all.
    pub limit: Option<u32>,
    /// None before this time, in Unix seconds.
    pub since: Option<u64>,
}

/// The entry for an edit that is about to be made to `directory`. `None` if it isn't worth one: a device is only renamed, a
/// grant only refreshed, or over already.
pub(crate) fn of_edit(directory: &Directory, edit: &Edit, who: Who, at: u64) -> Option<Entry> {
    let entry = |what: &str, subject: String, details: Value| {
        Some(Entry {
            at,
            who,
            what: what.to_owned(),
            subject,
            details,
        })
    };

    match edit {
        Edit::PutClient(client) if !directory.clients().contains_key(&client.id) => {
            let owner = actor_name(directory, client.actor);
            let details = about_device(&client.device, "actor", owner);
            entry("added client", client.id.to_string(), details)
        }
        Edit::PutGateway(gateway) if !directory.gateways().contains_key(&gateway.id) => {
            let site = directory.sites().get(&gateway.site);
            let details = about_device(&gateway.device, "site", site.map(|site| site.name.clone()));
            entry("added gateway", gateway.id.to_string(), details)
        }
        Edit::PutGrant(grant) => match live(directory, grant.key, at) {
            Some(_) => None,
            None => entry(
                "gave grant",
                grant.id.to_string(),
                about_grant(directory, grant),
            ),
        },
        Edit::DropGrant(key) => {
            let grant = live(directory, *key, at)?;
            entry(
                "withdrew grant",
                grant.id.to_string(),
                about_grant(directory, grant),
            )
        }
        // What an admin does is told by what was asked.
        Edit::SetNetwork(_)
        | Edit::PutSite(_)
        | Edit::DropSite(_)
        | Edit::PutActor(_)
        | Edit::DropActor(_)
        | Edit::PutResource(_)
        | Edit::DropResource(_)
        | Edit::PutPolicy(_)
        | Edit::DropPolicy(_)
        | Edit::PutToken(_)
        | Edit::PutClient(_)
        | Edit::PutGateway(_) => None,
    }
}

/// One entry for each thing that a topology file adds, changes or removes.
pub(crate) fn of_changes(changes: &Changes, who: Who, at: u64) -> Vec<Entry> {
    let kinds = [
        ("added", &changes.added),
        ("changed", &changes.changed),
        ("removed", &changes.removed),
    ];
    let entry = |verb: &str, change: &Change| Entry {
        at,
        who,
        what: format!("{verb} {}", noun(change.noun)),
        subject: change.name.clone(),
        details: match change.details.is_empty() {
            true => json!({}),
            false => json!({"changes": change.details}),
        },
    };

    (kinds.into_iter())
        .flat_map(|(verb, changes)| changes.iter().map(move |change| entry(verb, change)))
        .collect()
}

/// The entry for a token that is made or revoked, as `verb` says.
pub(crate) fn of_token(
    directory: &Directory,
    token: &Token,
    verb: &str,
    who: Who,
    at: u64,
) -> Entry {
    let (kind, owner) = match token.kind {
        TokenKind::Client(actor) => ("client", actor_name(directory, actor)),
        TokenKind::Gateway(site) => {
            let site = directory.sites().get(&site);
            ("gateway", site.map(|site| site.name.clone()))
        }
        TokenKind::Relay => ("relay", None),
    };

    Entry {
        at,
        who,
        what: format!("{verb} token"),
        subject: token.id.to_string(),
        details: json!({"kind": kind, "owner": owner, "expires_at": token.expires_at}),
    }
}

/// The entry for a client that is marked as verified, or no longer.
pub(crate) fn of_verification(
    directory: &Directory,
    client: &Client,
    verified: bool,
    who: Who,
    at: u64,
) -> Entry {
    let verb = match verified {
        true => "verified",
        false => "unverified",
    };
    let owner = actor_name(directory, client.actor);

    Entry {
        at,
        who,
        what: format!("{verb} client"),
        subject: client.id.to_string(),
        details: about_device(&client.device, "actor", owner),
    }
}

fn about_device(device: &Device, kind: &str, owner: Option<String>) -> Value {
    json!({"name": device.name, "external_id": device.external_id, kind: owner})
}

fn about_grant(directory: &Directory, grant: &Grant) -> Value {
    let key = grant.key;
    let client = directory.clients().get(&key.client);
    let resource = directory.resources().get(&key.resource);
    let policy = directory.policies().get(&grant.policy);

    json!({
        "client": key.client,
        "client_name": client.map(|client| client.device.name.clone()),
        "actor": client.and_then(|client| actor_name(directory, client.actor)),
        "resource": resource.map(|resource| resource.name.clone()),
        "gateway": key.gateway,
        "policy": grant.policy,
        "group": policy.map(|policy| policy.group.clone()),
        "remote_ip": grant.remote_ip,
        "expires_at": grant.expires_at,
    })
}

fn live(directory: &Directory, key: GrantKey, unix: u64) -> Option<&Grant> {
    let grant = directory.grants().get(&key);

    grant.filter(|grant| grant.is_live(unix))
}

fn actor_name(directory: &Directory, id: ActorId) -> Option<String> {
    let actor = directory.actors().get(&id);

    actor.map(|actor| actor.name.clone())
}

fn noun(noun: Noun) -> &'static str {
    match noun {
        Noun::Network => "network",
        Noun::Site => "site",
        Noun::Actor => "actor",
        Noun::Resource => "resource",
        Noun::Policy => "policy",
    }
}
