//! From requests to answers.

use std::path::PathBuf;
use std::time::Duration;

use connlib_wire::id::ClientId;
use rand::Rng;
use uuid::{Builder, Uuid};

use super::explain::{Question, explain};
use super::{Failure, Request, Response, Show, TokenFor};
use crate::audit::{self, Entry, Filter, Who};
use crate::model::{Client, Directory, Edit, Locations, Token, TokenId, TokenKind};
use crate::policy::plan;
use crate::state::Presence;
use crate::store::{Store, StoreError};
use crate::token;
use crate::topology::Topology;

/// The end of the year 9999, in Unix seconds: no token that expires expires later.
pub(super) const LAST_EXPIRY: u64 = 253_402_300_799;

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

/// What is to be done about a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Performed {
    /// What makes the answer true.
    pub edits: Vec<Edit>,
    /// What the audit says of it.
    pub entries: Vec<Entry>,
    /// The answer.
    pub answer: Answer,
}

/// An answer, or what the store is to be asked for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It is known, and true once the edits are stored.
    Known(Response),
    /// These rows of the audit.
    Audit(Filter),
    /// A copy in this new file.
    Backup(PathBuf),
}

impl Performed {
    /// Stores what is to be stored, and gives the answer.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; nothing has changed then.
    pub fn answer_from(&self, store: &mut dyn Store) -> Result<Response, StoreError> {
        if !self.edits.is_empty() || !self.entries.is_empty() {
            store.write(&self.edits, &self.entries)?;
        }

        match &self.answer {
            Answer::Known(response) => Ok(response.clone()),
            Answer::Audit(filter) => {
                let rows = store.audit(*filter)?;
                Ok(Response::Audited { rows })
            }
            Answer::Backup(file) => {
                store.backup(file)?;
                Ok(Response::BackedUp { file: file.clone() })
            }
        }
    }

    fn known(response: Response) -> Self {
        Self::look(Answer::Known(response))
    }

    /// Changes nothing.
    fn look(answer: Answer) -> Self {
        Self {
            edits: vec![],
            entries: vec![],
            answer,
        }
    }
}

/// Turns a request of `who` into its answer, and the edits that make it true.
///
/// Nothing is changed: whoever calls this stores the edits, and only then gives the answer.
///
/// # Errors
///
/// Any [`Failure`] but those that a store causes.
pub fn perform(
    known: &Known<'_>,
    who: Who,
    request: &Request,
    random: &mut impl Rng,
) -> Result<Performed, Failure> {
    match request {
        Request::Apply {
            text,
            file_name,
            dry_run,
        } => {
            let topology = Topology::parse(text, file_name).map_err(Failure::Topology)?;
            Ok(apply(known, who, &topology, *dry_run, random))
        }
        Request::CreateToken { kind, expires } => {
            let kind = token_kind(known.directory, kind)?;
            Ok(create_token(known, who, kind, *expires, random))
        }
        Request::RevokeToken { id } => revoke_token(known, who, *id),
        Request::VerifyClient { id, verified } => verify(known, who, *id, *verified),
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
            let explanation = explain(known, &question)?;
            Ok(Performed::known(Response::Explained(Box::new(explanation))))
        }
        Request::Audit { limit, since } => Ok(Performed::look(Answer::Audit(Filter {
            limit: *limit,
            since: *since,
        }))),
        Request::Backup { file } if file.is_relative() => {
            Err(Failure::RelativePath { file: file.clone() })
        }
        Request::Backup { file } => Ok(Performed::look(Answer::Backup(file.clone()))),
        Request::Show => {
            let show = Show::of(known.directory, known.presence, known.unix);
            Ok(Performed::known(Response::Shown(Box::new(show))))
        }
    }
}

fn apply(
    known: &Known<'_>,
    who: Who,
    topology: &Topology,
    dry_run: bool,
    random: &mut impl Rng,
) -> Performed {
    let plan = plan(known.directory, topology, &mut || new_id(random));
    let entries = audit::of_changes(&plan.changes, who, known.unix);
    let changes = plan.changes;
    let response = Response::Applied { changes, dry_run };

    match dry_run {
        true => Performed::known(response),
        false => performed(known, who, plan.edits, entries, response),
    }
}

fn create_token(
    known: &Known<'_>,
    who: Who,
    kind: TokenKind,
    expires: Option<Duration>,
    random: &mut impl Rng,
) -> Performed {
    let unix = known.unix;
    let expires_at = expires.map(|expires| unix.saturating_add(expires.as_secs()).min(LAST_EXPIRY));
    let (token, text) = token::mint(random, kind, unix, expires_at);
    let response = Response::TokenCreated {
        id: token.id,
        token: text,
        expires_at,
    };
    let entry = audit::of_token(known.directory, &token, "added", who, unix);

    performed(
        known,
        who,
        vec![Edit::PutToken(token)],
        vec![entry],
        response,
    )
}

/// What was asked for, and what the audit says of it and of the grants that fall with it.
fn performed(
    known: &Known<'_>,
    who: Who,
    edits: Vec<Edit>,
    mut entries: Vec<Entry>,
    response: Response,
) -> Performed {
    let fallen = edits
        .iter()
        .filter(|edit| matches!(edit, Edit::DropGrant(_)))
        .filter_map(|edit| audit::of_edit(known.directory, edit, who, known.unix));
    entries.extend(fallen);

    Performed {
        edits,
        entries,
        answer: Answer::Known(response),
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

fn revoke_token(known: &Known<'_>, who: Who, id: TokenId) -> Result<Performed, Failure> {
    let directory = known.directory;
    let response = Response::TokenRevoked { id };
    let token = directory.tokens().get(&id);
    let token = token.ok_or(Failure::UnknownToken { id })?;
    if token.revoked_at.is_some() {
        return Ok(Performed::known(response));
    }
    let revoked = Edit::PutToken(Token {
        revoked_at: Some(known.unix),
        ..token.clone()
    });
    let grants = (directory.grants().values())
        .filter(|grant| grant.token == token.id)
        .map(|grant| Edit::DropGrant(grant.key));
    let edits = std::iter::once(revoked).chain(grants).collect();
    let entry = audit::of_token(directory, token, "revoked", who, known.unix);

    Ok(performed(known, who, edits, vec![entry], response))
}

fn verify(known: &Known<'_>, who: Who, id: ClientId, verified: bool) -> Result<Performed, Failure> {
    let response = Response::ClientVerified { id, verified };
    let client = known.directory.clients().get(&id);
    let client = client.ok_or(Failure::UnknownClient { id })?;
    if client.verified == verified {
        return Ok(Performed::known(response));
    }
    let entry = audit::of_verification(known.directory, client, verified, who, known.unix);
    let edit = Edit::PutClient(Client {
        verified,
        ..client.clone()
    });

    Ok(performed(known, who, vec![edit], vec![entry], response))
}

fn new_id(random: &mut impl Rng) -> Uuid {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);

    Builder::from_random_bytes(bytes).into_uuid()
}
