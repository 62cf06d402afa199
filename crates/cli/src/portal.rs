//! `connlib portal …`: the control plane and its verbs.

mod audit;
mod explain;
mod show;

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use connlib::Portal;
use connlib::portal::admin::{self, AdminError, Request, Response, Target, TokenFor, call};
use connlib::portal::{Database, TlsFiles, TrustedProxies};
use connlib::status;
use connlib_os::clock::Clock;
use connlib_portal::policy::Changes;
use connlib_portal::store::StoreError;
use serde::Serialize;
use serde_json::json;

use crate::args::{
    ApplyArgs, AuditArgs, BackupArgs, DEFAULT_LISTEN, ExplainArgs, PortalCommand, PortalPlace,
    ServeArgs, ShowArgs, TokenCommand, TokenCreateArgs, TokenRevokeArgs, VerifyArgs,
};
use crate::environment::Environment;
use crate::exit::{Exit, Failure, print};
use crate::ready::Ready;
use crate::settings::{Role, Settings, name};
use crate::{logging, run};

/// The database unless somebody says otherwise.
const DEFAULT_DB: &str = "./connlib.sqlite";

/// What the portal's socket is called.
const PORTAL: &str = "portal";

/// What stands for a database that is gone with its process.
const MEMORY: &str = ":memory:";

/// Carries out a verb of the portal.
///
/// # Errors
///
/// Whatever the verb fails with.
pub(crate) fn run(command: &PortalCommand, environment: &Environment) -> Result<(), Failure> {
    match command {
        PortalCommand::Serve(args) => serve(args, environment),
        PortalCommand::Apply(args) => apply(args, environment),
        PortalCommand::Token(TokenCommand::Create(args)) => create_token(args, environment),
        PortalCommand::Token(TokenCommand::Revoke(args)) => revoke_token(args, environment),
        PortalCommand::Show(args) => show(args, environment),
        PortalCommand::Explain(args) => explain(args, environment),
        PortalCommand::Verify(args) => verify(args, environment),
        PortalCommand::Backup(args) => backup(args, environment),
        PortalCommand::Audit(args) => audit(args, environment),
    }
}

fn serve(args: &ServeArgs, environment: &Environment) -> Result<(), Failure> {
    let mut settings = Settings::open(Role::Portal, args.common.config.as_deref(), environment)?;
    let listen = settings.with_default::<SocketAddr>(
        name::LISTEN,
        args.listen.as_deref(),
        &DEFAULT_LISTEN.to_string(),
    )?;
    let cert = settings.optional::<PathBuf>(name::TLS_CERT, args.tls_cert.as_deref())?;
    let key = settings.optional::<PathBuf>(name::TLS_KEY, args.tls_key.as_deref())?;
    let db = settings.with_default::<PathBuf>(name::DB, args.place.db.as_deref(), DEFAULT_DB)?;
    let default_socket = status::default_path(PORTAL);
    let admin_socket = settings.with_default_path(
        name::ADMIN_SOCKET,
        args.place.admin_socket.as_deref(),
        default_socket.clone(),
    )?;
    let countries = settings.optional::<PathBuf>(name::COUNTRIES, args.countries.as_deref())?;
    let proxies = settings
        .optional::<TrustedProxies>(name::TRUSTED_PROXIES, args.trusted_proxies.as_deref())?;
    let insecure_plaintext = settings.switch(name::INSECURE_PLAINTEXT, args.insecure_plaintext)?;
    let ready_fd = settings.optional::<u32>(name::READY_FD, args.common.ready_fd.as_deref())?;
    if args.common.print_config {
        return print(settings.print());
    }

    let ready = Ready::new(ready_fd, environment)?;
    logging::init(environment)?;
    run::use_all_descriptors();
    let mut builder = Portal::builder().listen(listen).database(database(&db));
    if let Some(files) = tls_files(cert, key)? {
        builder = builder.tls(files);
    }
    if let Some(socket) = admin_socket {
        if Some(&socket) == default_socket.as_ref() {
            make_room(&socket)?;
        }
        builder = builder.admin_socket(socket);
    }
    if let Some(file) = countries {
        builder = builder.countries(file);
    }
    if let Some(proxies) = proxies {
        builder = builder.trusted_proxies(proxies);
    }
    if insecure_plaintext {
        builder = builder.insecure_plaintext();
    }

    run::until_stopped(builder.start()?, ready, Duration::ZERO)
}

fn apply(args: &ApplyArgs, environment: &Environment) -> Result<(), Failure> {
    let text = fs::read_to_string(&args.file).map_err(|error| {
        Failure::new(
            Exit::WrongUse,
            format_args!(
                "can't read the topology file {}: {error}",
                args.file.display()
            ),
        )
    })?;
    let request = Request::Apply {
        text,
        file_name: args.file.display().to_string(),
        dry_run: args.dry_run,
    };

    let answer = ask(&args.place, environment, &request)?;
    let Response::Applied { changes, dry_run } = answer else {
        return Err(odd_answer());
    };
    print(told(&changes, dry_run))
}

fn create_token(args: &TokenCreateArgs, environment: &Environment) -> Result<(), Failure> {
    let owner = &args.owner;
    let kind = match (&owner.client, &owner.gateway) {
        (Some(actor), _) => TokenFor::Client {
            actor: actor.clone(),
        },
        (None, Some(site)) => TokenFor::Gateway { site: site.clone() },
        (None, None) => TokenFor::Relay,
    };
    let request = Request::CreateToken {
        kind,
        expires: args.expires.map(|span| span.0),
    };

    let Response::TokenCreated { token, .. } = ask(&args.place, environment, &request)? else {
        return Err(odd_answer());
    };
    // Alone on stdout, and shown this once: that is what the verb is for.
    print(format_args!("{}\n", token.expose()))
}

fn revoke_token(args: &TokenRevokeArgs, environment: &Environment) -> Result<(), Failure> {
    let id = args.id.parse().map_err(|_| {
        Failure::new(
            Exit::WrongUse,
            // It may be a token that was given instead of an id.
            "this is no token's id; `connlib portal show` lists the ids",
        )
    })?;

    let request = Request::RevokeToken { id };
    let Response::TokenRevoked { id } = ask(&args.place, environment, &request)? else {
        return Err(odd_answer());
    };
    print(format_args!("revoked the token {id}\n"))
}

fn show(args: &ShowArgs, environment: &Environment) -> Result<(), Failure> {
    let Response::Shown(shown) = ask(&args.place, environment, &Request::Show)? else {
        return Err(odd_answer());
    };
    match args.json {
        true => print_json(&shown),
        false => print(show::table(&shown)),
    }
}

fn explain(args: &ExplainArgs, environment: &Environment) -> Result<(), Failure> {
    let request = Request::Explain {
        actor: args.actor.clone(),
        resource: args.resource.clone(),
        remote_ip: args.from,
        country: args.country,
    };
    let Response::Explained(explanation) = ask(&args.place, environment, &request)? else {
        return Err(odd_answer());
    };
    match args.json {
        true => print_json(&explanation),
        false => print(explain::text(&explanation)),
    }
}

fn verify(args: &VerifyArgs, environment: &Environment) -> Result<(), Failure> {
    let id = args.id.parse().map_err(|_| {
        Failure::new(
            Exit::WrongUse,
            "this is no client's id; `connlib portal show --json` lists the ids",
        )
    })?;
    let request = Request::VerifyClient {
        id,
        verified: !args.undo,
    };
    let Response::ClientVerified { id, verified } = ask(&args.place, environment, &request)? else {
        return Err(odd_answer());
    };
    match verified {
        true => print(format_args!("the client {id} is verified\n")),
        false => print(format_args!("the client {id} is not verified any longer\n")),
    }
}

fn backup(args: &BackupArgs, environment: &Environment) -> Result<(), Failure> {
    let request = Request::Backup {
        file: args.file.clone(),
    };
    let Response::BackedUp { file } = ask(&args.place, environment, &request)? else {
        return Err(odd_answer());
    };
    print(format_args!("the copy is in {}\n", file.display()))
}

fn audit(args: &AuditArgs, environment: &Environment) -> Result<(), Failure> {
    let now = Clock::new().unix();
    let since = args.since.map(|span| now.saturating_sub(span.0).as_secs());
    let request = Request::Audit {
        limit: args.limit,
        since,
    };
    let Response::Audited { rows } = ask(&args.place, environment, &request)? else {
        return Err(odd_answer());
    };
    match args.json {
        true => print_json(&json!({ "rows": rows })),
        false => print(audit::text(&rows)),
    }
}

fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Exit::Failed, format_args!("can't print that: {error}")))?;
    print(format_args!("{json}\n"))
}

/// Asks the running portal, else the database itself (cli.md "Roles").
fn ask(
    place: &PortalPlace,
    environment: &Environment,
    request: &Request,
) -> Result<Response, Failure> {
    let mut settings = Settings::open(Role::Portal, None, environment)?;
    let socket = settings.optional::<PathBuf>(name::ADMIN_SOCKET, place.admin_socket.as_deref())?;
    let db = settings.optional::<PathBuf>(name::DB, place.db.as_deref())?;
    // What only a running portal has can't be opened.
    let db = db.filter(|db| db != Path::new(MEMORY));
    let default_socket = || status::default_path(PORTAL);
    // Nobody who names a database means the one of another portal, unless that has it.
    let targets: Vec<Target> = match (socket, db) {
        (Some(socket), None) => vec![Target::Socket(socket)],
        (Some(socket), Some(db)) => vec![Target::Socket(socket), Target::File(db)],
        (None, Some(db)) => [Target::File(db)]
            .into_iter()
            .chain(default_socket().map(Target::Socket))
            .collect(),
        (None, None) => default_socket()
            .map(Target::Socket)
            .into_iter()
            .chain([Target::File(DEFAULT_DB.into())])
            .collect(),
    };

    run::block_on(ask_first_of(&targets, request))
}

/// Asks the first target that is there. The error is that of the last one that was tried.
async fn ask_first_of(targets: &[Target], request: &Request) -> Result<Response, Failure> {
    let mut result = Err(Failure::new(Exit::WrongUse, "there is no portal to ask"));
    for target in targets {
        match call(target, request.clone()).await {
            Err(
                error @ (AdminError::NotRunning { .. }
                | AdminError::Store(StoreError::InUse { .. })),
            ) => result = Err(error.into()),
            answer => return answer.map_err(Failure::from),
        }
    }

    result
}

fn tls_files(cert: Option<PathBuf>, key: Option<PathBuf>) -> Result<Option<TlsFiles>, Failure> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles { cert, key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(Failure::new(
            Exit::WrongUse,
            "`tls-key` is missing; a certificate needs its key",
        )),
        (None, Some(_)) => Err(Failure::new(
            Exit::WrongUse,
            "`tls-cert` is missing; a key needs its certificate",
        )),
    }
}

/// Makes the directory of the default socket, if it is missing. The socket itself says who may use it.
fn make_room(socket: &Path) -> Result<(), Failure> {
    let Some(directory) = socket.parent() else {
        return Ok(());
    };

    fs::create_dir_all(directory).map_err(|error| {
        Failure::os(
            format_args!(
                "make the directory {}; choose another place with --admin-socket",
                directory.display()
            ),
            &error,
        )
    })
}

fn database(path: &Path) -> Database {
    match path == Path::new(MEMORY) {
        true => Database::Memory,
        false => Database::File(path.to_owned()),
    }
}

/// What `apply` did, a line each.
fn told(changes: &Changes, dry_run: bool) -> String {
    if changes.is_empty() {
        return "nothing to change\n".into();
    }
    let verbs = match dry_run {
        true => ["would add", "would change", "would remove"],
        false => ["added", "changed", "removed"],
    };
    let lists = [&changes.added, &changes.changed, &changes.removed];
    let mut text = String::new();
    for (verb, list) in verbs.into_iter().zip(lists) {
        for change in list {
            // Writing to a text can't fail.
            let _ = writeln!(text, "{verb} {change}");
        }
    }

    text
}

fn odd_answer() -> Failure {
    Failure::new(
        Exit::Failed,
        "the portal's answer makes no sense; is it of another version?",
    )
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        let exit = match &error {
            AdminError::Failed(
                admin::Failure::Topology(_)
                | admin::Failure::UnknownActor { .. }
                | admin::Failure::UnknownResource { .. }
                | admin::Failure::UnknownSite { .. }
                | admin::Failure::UnknownToken { .. }
                | admin::Failure::UnknownClient { .. }
                | admin::Failure::RelativePath { .. },
            ) => Exit::WrongUse,
            AdminError::Store(error) => exit_of_store(error),
            AdminError::NotRunning { .. } => Exit::Network,
            AdminError::NotAllowed { .. } | AdminError::NoRandomness(_) => Exit::Os,
            AdminError::Failed(_) | AdminError::NoAnswer { .. } | _ => Exit::Failed,
        };

        Self::new(exit, error)
    }
}

fn exit_of_store(error: &StoreError) -> Exit {
    match error {
        StoreError::Missing { .. }
        | StoreError::NotOurs { .. }
        | StoreError::Newer { .. }
        | StoreError::Damaged { .. } => Exit::WrongUse,
        StoreError::Unopenable { .. } => Exit::Os,
        StoreError::InUse { .. }
        | StoreError::Unwritable { .. }
        | StoreError::BackupExists { .. }
        | StoreError::BackupFailed { .. }
        | StoreError::NotInAFile
        | _ => Exit::Failed,
    }
}
