//! A portal in this process, and the verbs of whoever runs one.

use std::net::SocketAddr;
use std::path::PathBuf;

pub use connlib_portal::admin;
pub use connlib_portal::server::{Database, TlsFiles, TrustedProxies};
use connlib_portal::server::{Server, ServerConfig};
pub use connlib_portal::topology;

use crate::error::Error;
use crate::handle::{Handle, Request, pair};
use crate::process::runtime;

/// A running portal. Clones share it; dropping the last one stops it.
#[derive(Clone, Debug)]
pub struct Portal {
    handle: Handle,
    local_addr: SocketAddr,
}

/// What a portal is told before it starts.
#[derive(Debug)]
#[must_use = "nothing starts before `start`"]
pub struct PortalBuilder {
    config: ServerConfig,
}

impl Portal {
    /// Begins to describe one: plain, on a free port of loopback, with a store that is gone with it.
    pub fn builder() -> PortalBuilder {
        PortalBuilder {
            config: ServerConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                tls: None,
                db: Database::Memory,
                admin_socket: None,
                insecure_plaintext: false,
                countries: None,
                trusted_proxies: TrustedProxies::default(),
            },
        }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Waits until it has ended: for ever, unless it is stopped.
    ///
    /// # Errors
    ///
    /// Its thread crashed.
    pub fn wait(&self) -> Result<(), Error> {
        self.handle.wait()
    }

    /// Closes every connection and ends; [`wait`](Self::wait) tells when.
    pub fn stop(&self) {
        self.handle.stop();
    }
}

impl PortalBuilder {
    /// Where to listen.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.config.listen = addr;
        self
    }

    /// Speaks TLS with this certificate and key.
    pub fn tls(mut self, files: TlsFiles) -> Self {
        self.config.tls = Some(files);
        self
    }

    /// Where everything is kept.
    pub fn database(mut self, database: Database) -> Self {
        self.config.db = database;
        self
    }

    /// Where [`admin::call`] finds it.
    pub fn admin_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.admin_socket = Some(path.into());
        self
    }

    /// Speaks without TLS beyond loopback too: whoever listens in can then take tokens.
    pub fn insecure_plaintext(mut self) -> Self {
        self.config.insecure_plaintext = true;
        self
    }

    /// A file of where addresses are, for policies that ask for a country: lines of `network,country[,latitude,longitude]`.
    pub fn countries(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.countries = Some(path.into());
        self
    }

    /// Proxies in front of this portal, whose `X-Forwarded-For` says where peers connect from.
    pub fn trusted_proxies(mut self, proxies: TrustedProxies) -> Self {
        self.config.trusted_proxies = proxies;
        self
    }

    /// Opens the store, listens, and starts a thread.
    ///
    /// # Errors
    ///
    /// The store can't be used, the address is taken, or the certificate or the file of countries can't be read.
    pub fn start(self) -> Result<Portal, Error> {
        let runtime = runtime()?;
        let server = runtime.block_on(Server::start(self.config))?;
        let local_addr = server.local_addr();
        let (handle, mut control) = pair();
        let progress = control.progress.clone();
        progress.set_ready();
        progress.run_on_thread("portal", move || {
            runtime.block_on(async move {
                while let Some(request) = control.requests.recv().await {
                    match request {
                        Request::Stop => break,
                        Request::Reset | Request::Internet(_) => {}
                        Request::Report(answer) | Request::Explain(_, answer) => {
                            answer.give(serde_json::json!({"role": "portal"}))
                        }
                    }
                }
                server.stop().await;
            });
            Ok(())
        })?;

        Ok(Portal { handle, local_addr })
    }
}
