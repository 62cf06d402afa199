//! `connlib portal` and its verbs.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use connlib_portal::model::Country;

use super::CommonArgs;
use crate::duration::Span;

#[derive(Debug, Subcommand)]
pub(crate) enum PortalCommand {
    /// Run a portal, until SIGINT or SIGTERM
    Serve(ServeArgs),
    /// Make the portal's state equal to a topology file
    Apply(ApplyArgs),
    /// Create and revoke tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show sites, gateways, relays, clients, resources, policies and grants
    Show(ShowArgs),
    /// May this actor reach this resource now, and which policy and condition decide
    Explain(ExplainArgs),
    /// Mark a client's device as verified, for policies that ask for it
    Verify(VerifyArgs),
    /// Make a copy of the database, also while the portal serves
    Backup(BackupArgs),
    /// Show who changed what, and when
    Audit(AuditArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    #[command(flatten)]
    pub(crate) place: PortalPlace,
    /// Where to listen [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<String>,
    /// The certificate chain, in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<String>,
    /// The certificate's key, in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<String>,
    /// Where addresses are, for policies that ask for a country: lines of `network,country[,latitude,longitude]`
    #[arg(long, value_name = "FILE")]
    pub(crate) countries: Option<String>,
    /// Proxies in front, whose `X-Forwarded-For` says where peers connect from: addresses and networks, with commas between
    #[arg(long, value_name = "NETWORKS")]
    pub(crate) trusted_proxies: Option<String>,
    /// Speak plain WebSocket beyond this machine: everybody on the way can read tokens
    #[arg(long)]
    pub(crate) insecure_plaintext: bool,
    #[arg(long, hide = true)]
    pub(super) metrics: Option<String>,
}

/// Where a portal is found.
#[derive(Args, Debug)]
pub(crate) struct PortalPlace {
    /// The database; `:memory:` keeps nothing [default: ./connlib.sqlite]
    #[arg(long, value_name = "FILE")]
    pub(crate) db: Option<String>,
    /// Where a running portal takes orders [default: /run/connlib/portal.sock]
    #[arg(long, value_name = "PATH")]
    pub(crate) admin_socket: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ApplyArgs {
    /// The topology, in TOML
    pub(crate) file: PathBuf,
    /// Say what would change, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) place: PortalPlace,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and print it; it can't be shown again
    Create(TokenCreateArgs),
    /// Revoke a token
    Revoke(TokenRevokeArgs),
}

#[derive(Args, Debug)]
pub(crate) struct TokenCreateArgs {
    #[command(flatten)]
    pub(crate) owner: TokenOwner,
    /// How long it is good, such as `90d` [default: for ever]
    #[arg(long, value_name = "DURATION")]
    pub(crate) expires: Option<Span>,
    #[command(flatten)]
    pub(crate) place: PortalPlace,
}

/// What a token is for.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct TokenOwner {
    /// For a client of this actor
    #[arg(long, value_name = "ACTOR")]
    pub(crate) client: Option<String>,
    /// For gateways of this site
    #[arg(long, value_name = "SITE")]
    pub(crate) gateway: Option<String>,
    /// For relays
    #[arg(long)]
    pub(crate) relay: bool,
}

#[derive(Args, Debug)]
pub(crate) struct TokenRevokeArgs {
    /// The token's id, as `portal show` has it
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) place: PortalPlace,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PortalPlace,
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// Who, by name
    pub(crate) actor: String,
    /// What, by name
    pub(crate) resource: String,
    /// The address to suppose for clients that aren't connected
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from: Option<IpAddr>,
    /// The country to suppose for them, as two letters [default: where the portal knows the address to be]
    #[arg(long, value_name = "COUNTRY")]
    pub(crate) country: Option<Country>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PortalPlace,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The client's id, as `portal show --json` has it
    pub(crate) id: String,
    /// Take the mark away
    #[arg(long)]
    pub(crate) undo: bool,
    #[command(flatten)]
    pub(crate) place: PortalPlace,
}

#[derive(Args, Debug)]
pub(crate) struct BackupArgs {
    /// The copy, which must not be there yet
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) place: PortalPlace,
}

#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// The newest rows alone, so many
    #[arg(long, value_name = "ROWS")]
    pub(crate) limit: Option<u32>,
    /// The rows of the last while alone, such as `24h`
    #[arg(long, value_name = "DURATION")]
    pub(crate) since: Option<Span>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) place: PortalPlace,
}
