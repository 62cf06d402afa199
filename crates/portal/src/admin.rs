//! What an admin asks for, and the answers (cli.md "Roles").
//!
//! [`perform`] is pure: it turns a request into an answer and the edits that make it true. A running portal and a
//! process that opens the database itself use the same one, so their answers are the same.

#[cfg(feature = "server")]
mod call;
mod explain;
mod perform;
mod show;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use connlib_wire::id::ClientId;
use connlib_wire::secret::Secret;
use serde::{Deserialize, Serialize};

#[cfg(feature = "server")]
pub use call::{AdminError, Target, call};
pub use explain::{ExplainedPolicy, Explanation, Verdict};
pub use perform::{Answer, Known, Performed, perform};
pub use show::{
    Show, ShownActor, ShownClient, ShownGateway, ShownGrant, ShownNetwork, ShownPolicy, ShownRelay,
    ShownResource, ShownSite, ShownToken,
};

use crate::audit::Row;
use crate::model::{Country, TokenId};
use crate::policy::Changes;
use crate::topology::TopologyError;

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
    /// Show who changed what, and when.
    Audit {
        /// No more rows than this, the newest. `None` means all.
        limit: Option<u32>,
        /// No row before this time, in Unix seconds.
        since: Option<u64>,
    },
    /// Copy the database, while it is in use or not.
    Backup {
        /// The new file; its path is absolute.
        file: PathBuf,
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
    /// Who changed what, the newest last.
    Audited {
        /// The rows.
        rows: Vec<Row>,
    },
    /// The copy is made, and safe from a loss of power.
    BackedUp {
        /// The file.
        file: PathBuf,
    },
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
    /// A path means another file to the portal than to whoever asks.
    #[error("the path {} is not absolute; the portal runs in a directory of its own", file.display())]
    RelativePath {
        /// The path.
        file: PathBuf,
    },
    /// A running portal couldn't make the backup.
    #[error("{problem}")]
    NoBackup {
        /// What its store says.
        problem: String,
    },
    /// A running portal couldn't read what it was asked for.
    #[error("the portal could not read its store: {problem}")]
    NotRead {
        /// What its store says.
        problem: String,
    },
    /// A running portal couldn't store the change; nothing changed.
    #[error("the portal could not store the change: {problem}")]
    NotStored {
        /// What its store says.
        problem: String,
    },
}

#[cfg(test)]
mod tests;
