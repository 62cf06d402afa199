//! The portal on the network: WebSockets, TLS, the admin socket, the database.
//!
//! ```text
//! accept ─TLS─► http ─upgrade─► socket ──texts──► core: State + Store, one task
//! admin socket ────────────────────requests─────►   │
//!                               socket ◄──texts─────┘  (bounded; who is slow is closed)
//! ```
//!
//! Nothing here decides anything: texts go in, texts come out, and what the state wants stored is stored.

mod accept;
mod admin;
pub(crate) mod clock;
mod core;
mod forwarded;
mod http;
mod problem;
mod socket;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Builder;

pub use forwarded::{InvalidProxies, TrustedProxies};
pub use tls::TlsError;

use crate::model::{Account, InvalidLocations, Locations};
use crate::state::State;
use crate::store::memory::Memory;
use crate::store::sqlite::{IfMissing, Sqlite};
use crate::store::{Store, StoreError};
use accept::{Incoming, Places};
use admin::AdminListener;
use core::{Core, CoreHandle};
use http::Shared;

/// How long [`Server::stop`] waits for connections to end by themselves.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Where and how to serve.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen; port zero lets the system choose.
    pub listen: SocketAddr,
    /// Certificate and key. Without them the portal speaks plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Where the directory is kept.
    pub db: Database,
    /// Where admins ask. `None` for nowhere.
    pub admin_socket: Option<PathBuf>,
    /// Whether plain HTTP may be spoken beyond this machine: tokens can be read on the way.
    pub insecure_plaintext: bool,
    /// A file of where addresses are ([`Locations::parse`]). Without it nobody's country is known.
    pub countries: Option<PathBuf>,
    /// Proxies that say whom they were asked by.
    pub trusted_proxies: TrustedProxies,
}

/// A certificate chain and its key, in PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    /// The key of the first certificate.
    pub key: PathBuf,
}

/// Where the directory is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Database {
    /// Nowhere: it is gone with the server.
    Memory,
    /// In an SQLite file, made if it isn't there.
    File(PathBuf),
}

/// Why a server can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// Plain HTTP beyond this machine was not asked for.
    #[error(
        "will not listen on {listen} without TLS: tokens could be read on the way; give a certificate and key, or allow insecure plaintext"
    )]
    PlaintextRefused {
        /// Where it was to listen.
        listen: SocketAddr,
    },
    /// The certificate or key can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The database can't be worked with.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system refuses the address: in use, not there, not allowed.
    #[error(
        "can't listen on {listen}: {source}; choose another address or port, or end the program that has it"
    )]
    Listen {
        /// Where it was to listen.
        listen: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The operating system refuses the admin socket, or another portal has it.
    #[error("can't make the admin socket {}: {source}; choose another path, or end the portal that has it", path.display())]
    AdminSocket {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file of where addresses are can't be read.
    #[error("can't read the locations in {}: {source}; check that this user may read it", path.display())]
    LocationsUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file of where addresses are says something else.
    #[error("{}: {source}", path.display())]
    Locations {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: InvalidLocations,
    },
    /// The operating system has no random numbers.
    #[error("the operating system has no random numbers: {0}")]
    NoRandomness(#[from] getrandom::Error),
}

/// A serving portal. Dropping it ends it at once; [`Server::stop`] says goodbye first.
#[derive(Debug)]
pub struct Server {
    local_addr: SocketAddr,
    core: CoreHandle,
    places: Places,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Starts to serve. Needs a tokio runtime with I/O and time.
    ///
    /// When this returns the portal is listening.
    ///
    /// # Errors
    ///
    /// Any [`ServerError`]; nothing is left behind then but a database that was made.
    pub async fn start(config: ServerConfig) -> Result<Self, ServerError> {
        let listen = config.listen;
        if config.tls.is_none() && !listen.ip().is_loopback() && !config.insecure_plaintext {
            return Err(ServerError::PlaintextRefused { listen });
        }
        let tls = config.tls.as_ref().map(tls::load).transpose()?;
        let locations = config.countries.map(load_locations).transpose()?;
        let account = fresh_account()?;
        let mut store: Box<dyn Store> = match &config.db {
            Database::Memory => Box::new(Memory::new(account)),
            Database::File(file) => Box::new(Sqlite::open(file, IfMissing::Create, &account)?),
        };
        let directory = store.load()?;
        let refused = |source| ServerError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let local_addr = listener.local_addr().map_err(refused)?;
        let admin = config.admin_socket.map(AdminListener::bind).transpose()?;

        let (now, unix, locations) = (clock::now(), clock::unix(), locations.unwrap_or_default());
        let state = State::with_locations(now, unix, directory, seed()?, locations);
        let (core, handle) = Core::new(state, store);
        let (stopping, stop) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(core.run());
        let (incoming, accept) = Incoming::new(listener, tls, local_addr);
        let places = accept.places();
        tasks.spawn(accept.run(stop.clone()));
        let shared = Shared {
            core: handle.clone(),
            proxies: config.trusted_proxies.into(),
        };
        tasks.spawn(http::serve(incoming, shared, stop.clone()));
        if let Some(admin) = admin {
            tasks.spawn(admin.run(handle.clone(), stop));
        }
        tracing::info!(listen = %local_addr, "Portal is listening");

        Ok(Self {
            local_addr,
            core: handle,
            places,
            stopping,
            tasks,
        })
    }

    /// Where the portal listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Tells all peers to come back later, stores what is to be stored, and ends.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        self.core.stop().await;
        if timeout(STOP_WITHIN, self.places.all_free()).await.is_err() {
            tracing::debug!("Cutting connections that don't end by themselves");
        }
        self.tasks.shutdown().await;
    }
}

fn load_locations(path: PathBuf) -> Result<Locations, ServerError> {
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(ServerError::LocationsUnreadable { path, source }),
    };

    Locations::parse(&text).map_err(|source| ServerError::Locations { path, source })
}

/// The account of a database that has none yet.
pub(crate) fn fresh_account() -> Result<Account, getrandom::Error> {
    let mut id = [0; 16];
    getrandom::fill(&mut id)?;
    let key: String = seed()?.iter().map(|byte| format!("{byte:02x}")).collect();

    Ok(Account {
        id: Builder::from_random_bytes(id).into_uuid(),
        slug: "connlib".to_owned(),
        ingest_key: key.into(),
    })
}

/// A generator whose seed comes from the operating system.
pub(crate) fn random() -> Result<StdRng, getrandom::Error> {
    Ok(StdRng::from_seed(seed()?))
}

fn seed() -> Result<[u8; 32], getrandom::Error> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;

    Ok(seed)
}
