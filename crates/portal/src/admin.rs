//! What an admin asks for, and the answers (cli.md "Roles").
//!
//! [`perform`] is pure: it turns a request into an answer and the edits that make it true. A running portal and a
//! process that opens the database itself use the same one, so their answers are the same.

#[cfg(feature = "server")]
mod call;
mod explain;
mod show;

use std::net::IpAddr;
use std::time::Duration;

use connlib_wire::id::ClientId;
use connlib_wire::secret::Secret;
use rand::Rng;
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid};

#[cfg(feature = "server")]
pub use call::{AdminError, Target, call};
pub use explain::{ExplainedPolicy, Explanation, Verdict};
pub use show::{
    Show, ShownActor, ShownClient, ShownGateway, ShownGrant, ShownNetwork, ShownPolicy, ShownRelay,
    ShownResource, ShownSite, ShownToken,
};

use crate::model::{Client, Country, Directory, Edit, Locations, Token, TokenId, TokenKind};
use crate::policy::{Changes, plan};
use crate::state::Presence;
use crate::token;
use crate::topology::{Topology, TopologyError};
use explain::Question;

/// The end of the year 9999, in Unix seconds: no token that expires expires later.
const LAST_EXPIRY: u64 = 253_402_300_799;

/// What an admin asks for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "request", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Make everything equal to a topology file.
    Apply {
        /// The file's text.
        text: String,
        /// The file's name, for errors.
        file_name: String,
        /// Whether to say only what would change.
        dry_run: bool,
    },
    /// Make a token.
    CreateToken {
        /// What it opens.
        kind: TokenFor,
        /// How long it is good; whole seconds. `None` means for ever.
        expires: Option<Duration>,
    },
    /// Revoke a token, and end its sessions and grants. Revoking it again does nothing.
    RevokeToken {
        /// Which.
        id: TokenId,
    },
    /// Mark a client as verified, or no longer. Doing it again does nothing.
    VerifyClient {
        /// Which.
        id: ClientId,
        /// Whether it is.
        verified: bool,
    },
    /// Say whether an actor may reach a resource now, and what decides.
    Explain {
        /// The actor's name.
        actor: String,
        /// The resource's name.
        resource: String,
        /// From where, if none of its clients is connected.
        remote_ip: Option<IpAddr>,
        /// In which country, if none of its clients is connected. `None` means where the address is.
        country: Option<Country>,
    },
    /// Show everything.
    Show,
}

/// What a token is to open, by name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub enum TokenFor {
    /// The client socket.
    Client {
        /// On whose behalf.
        actor: String,
    },
    /// The gateway socket.
    Gateway {
        /// For which site.
        site: String,
    },
    /// The relay socket.
    Relay,
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "response", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Response {
    /// The topology is applied, or would be.
    Applied {
        /// What that changes.
        changes: Changes,
        /// Whether nothing was done.
        dry_run: bool,
    },
    /// The token is made.
    TokenCreated {
        /// Its id, to revoke it by.
        id: TokenId,
        /// The token. It can't be asked for again.
        token: Secret,
        /// When it ends, in Unix seconds.
        expires_at: Option<u64>,
    },
    /// The token is revoked.
    TokenRevoked {
        /// Which.
        id: TokenId,
    },
    /// The client is marked.
    ClientVerified {
        /// Which.
        id: ClientId,
        /// Whether it is verified now.
        verified: bool,
    },
    /// What decides.
    Explained(Box<Explanation>),
    /// Everything.
    Shown(Box<Show>),
}

/// Why a request can't be answered.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "failure", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Failure {
    /// The topology file is wrong.
    #[error(transparent)]
    Topology(TopologyError),
    /// No actor has this name.
    #[error("there is no actor named `{name}`; `portal show` lists them")]
    UnknownActor {
        /// The name.
        name: String,
    },
    /// No resource has this name.
    #[error("there is no resource named `{name}`; `portal show` lists them")]
    UnknownResource {
        /// The name.
        name: String,
    },
    /// No site has this name.
    #[error("there is no site named `{name}`; `portal show` lists them")]
    UnknownSite {
        /// The name.
        name: String,
    },
    /// No token has this id.
    #[error("there is no token with the id {id}; `portal show` lists them")]
    UnknownToken {
        /// The id.
        id: TokenId,
    },
    /// No client has this id.
    #[error("there is no client with the id {id}; `portal show --json` lists them")]
    UnknownClient {
        /// The id.
        id: ClientId,
    },
    /// A running portal couldn't store the change; nothing changed.
    #[error("the portal could not store the change: {problem}")]
    NotStored {
        /// What its store says.
        problem: String,
    },
}

/// What requests are answered from.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Everything that is kept.
    pub directory: &'a Directory,
    /// Who is connected; nobody, if no portal runs.
    pub presence: &'a Presence,
    /// Where addresses are; nothing is known of them, if no portal runs.
    pub locations: &'a Locations,
    /// What time it is, in Unix seconds.
    pub unix: u64,
}

/// Turns a request into its answer, and the edits that make it true.
///
/// Nothing is changed: whoever calls this stores the edits, and only then gives the answer.
///
/// # Errors
///
/// Any [`Failure`] but [`Failure::NotStored`].
pub fn perform(
    known: &Known<'_>,
    request: &Request,
    random: &mut impl Rng,
) -> Result<(Vec<Edit>, Response), Failure> {
    let Known {
        directory,
        presence,
        unix,
        ..
    } = *known;

    match request {
        Request::Apply {
            text,
            file_name,
            dry_run,
        } => {
            let topology = Topology::parse(text, file_name).map_err(Failure::Topology)?;
            let plan = plan(directory, &topology, &mut || new_id(random));
            let edits = match dry_run {
                true => vec![],
                false => plan.edits,
            };
            let response = Response::Applied {
                changes: plan.changes,
                dry_run: *dry_run,
            };
            Ok((edits, response))
        }
        Request::CreateToken { kind, expires } => {
            let kind = token_kind(directory, kind)?;
            let expires_at =
                expires.map(|expires| unix.saturating_add(expires.as_secs()).min(LAST_EXPIRY));
            let (token, text) = token::mint(random, kind, unix, expires_at);
            let response = Response::TokenCreated {
                id: token.id,
                token: text,
                expires_at,
            };
            Ok((vec![Edit::PutToken(token)], response))
        }
        Request::RevokeToken { id } => {
            let token = directory.tokens().get(id);
            let token = token.ok_or(Failure::UnknownToken { id: *id })?;
            let edits = revoke(directory, token, unix);
            Ok((edits, Response::TokenRevoked { id: *id }))
        }
        Request::VerifyClient { id, verified } => {
            let edits = verify(directory, *id, *verified)?;
            let (id, verified) = (*id, *verified);
            Ok((edits, Response::ClientVerified { id, verified }))
        }
        Request::Explain {
            actor,
            resource,
            remote_ip,
            country,
        } => {
            let question = Question {
                actor,
                resource,
                remote_ip: *remote_ip,
                country: *country,
            };
            let explanation = explain::explain(known, &question)?;
            Ok((vec![], Response::Explained(Box::new(explanation))))
        }
        Request::Show => {
            let show = Show::of(directory, presence, unix);
            Ok((vec![], Response::Shown(Box::new(show))))
        }
    }
}

fn token_kind(directory: &Directory, wanted: &TokenFor) -> Result<TokenKind, Failure> {
    match wanted {
        TokenFor::Client { actor: name } => {
            let actor = directory.actor_named(name);
            let actor = actor.ok_or_else(|| Failure::UnknownActor { name: name.clone() })?;
            Ok(TokenKind::Client(actor.id))
        }
        TokenFor::Gateway { site: name } => {
            let site = directory.site_named(name);
            let site = site.ok_or_else(|| Failure::UnknownSite { name: name.clone() })?;
            Ok(TokenKind::Gateway(site.id))
        }
        TokenFor::Relay => Ok(TokenKind::Relay),
    }
}

fn revoke(directory: &Directory, token: &Token, unix: u64) -> Vec<Edit> {
    if token.revoked_at.is_some() {
        return vec![];
    }
    let revoked = Edit::PutToken(Token {
        revoked_at: Some(unix),
        ..token.clone()
    });
    let grants = (directory.grants().values())
        .filter(|grant| grant.token == token.id)
        .map(|grant| Edit::DropGrant(grant.key));

    std::iter::once(revoked).chain(grants).collect()
}

fn verify(directory: &Directory, id: ClientId, verified: bool) -> Result<Vec<Edit>, Failure> {
    let client = directory.clients().get(&id);
    let client = client.ok_or(Failure::UnknownClient { id })?;
    let marked = Client {
        verified,
        ..client.clone()
    };

    Ok(match marked == *client {
        true => vec![],
        false => vec![Edit::PutClient(marked)],
    })
}

fn new_id(random: &mut impl Rng) -> Uuid {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);

    Builder::from_random_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests;
