//! What all roles that join a portal are told alike.

use std::path::PathBuf;

use connlib::{Proxy, Secret};

use crate::args::PeerArgs;
use crate::certificate::{Certificate, CertificateSource};
use crate::duration::Span;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::ready::Ready;
use crate::settings::{Role, Settings, name, own_variable};
use crate::token::TokenSource;
use crate::{identity, logging, proxy};

/// How long a gateway goes on without a portal unless somebody says otherwise (gateway.md §14.1).
const GATEWAY_PARTITION_TIME: &str = "24h";

/// The settings of everything that joins a portal.
pub(super) struct PeerSettings {
    pub(super) api_url: Option<String>,
    token: TokenSource,
    certificate: Option<CertificateSource>,
    pub(super) ca: Option<PathBuf>,
    pub(super) proxy: Option<Proxy>,
    pub(super) name: String,
    pub(super) socket: Option<PathBuf>,
    pub(super) max_partition_time: Option<Span>,
    ready_fd: Option<u32>,
}

impl PeerSettings {
    pub(super) fn read(
        settings: &mut Settings<'_>,
        role: Role,
        args: &PeerArgs,
    ) -> Result<Self, Failure> {
        let limit = args.max_partition_time.as_deref();
        let api_url: Option<String> = settings.optional(name::API_URL, args.api_url.as_deref())?;

        Ok(Self {
            proxy: proxy::find(settings, args.proxy.as_deref(), api_url.as_deref())?,
            api_url,
            token: TokenSource::find(settings, role, args.token_file.as_deref())?,
            certificate: CertificateSource::find(
                settings,
                args.client_cert.as_deref(),
                args.client_key.as_deref(),
                args.mtls_host.as_deref(),
            )?,
            ca: settings.optional(name::CA, args.ca.as_deref())?,
            name: settings.with_default(
                name::NAME,
                args.name.as_deref(),
                &identity::host_name(),
            )?,
            socket: settings.optional(name::SOCKET, args.socket.as_deref())?,
            max_partition_time: match role {
                Role::Gateway => {
                    let default = GATEWAY_PARTITION_TIME;
                    Some(settings.with_default(name::MAX_PARTITION_TIME, limit, default)?)
                }
                Role::Client | Role::Relay | Role::Portal => {
                    settings.optional(name::MAX_PARTITION_TIME, limit)?
                }
            },
            ready_fd: settings.optional(name::READY_FD, args.common.ready_fd.as_deref())?,
        })
    }

    /// Client and gateway are nothing without a portal.
    pub(super) fn require_api_url(&self) -> Result<(), Failure> {
        if self.api_url.is_some() {
            return Ok(());
        }
        let variable = own_variable(name::API_URL);

        Err(Failure::new(
            Exit::WrongUse,
            format_args!(
                "`api-url` is missing: the portal's address; give --api-url, {variable} or the key in a --config file"
            ),
        ))
    }

    /// What the portal is to know us by. With a certificate there may be no token.
    pub(super) fn credentials(&self) -> Result<(Option<Secret>, Option<Certificate>), Failure> {
        let certificate = self.certificate.as_ref();
        let certificate = certificate.map(CertificateSource::read).transpose()?;
        let token = match (&self.token, &certificate) {
            (TokenSource::Missing { .. }, Some(_)) => None,
            (token, _) => Some(token.read()?),
        };

        Ok((token, certificate))
    }

    /// Takes over what the parent has left open, and starts to log.
    pub(super) fn begin(self, environment: &Environment) -> Result<(Self, Ready), Failure> {
        let ready = Ready::new(self.ready_fd, environment)?;
        logging::init(environment)?;

        Ok((self, ready))
    }
}

/// Tells a builder, of whatever role, what may be left out of a [`PeerSettings`].
macro_rules! told {
    ($builder:expr, $peer:expr) => {{
        let mut builder = $builder;
        if let Some(api_url) = &$peer.api_url {
            builder = builder.api_url(api_url);
            let (token, certificate) = $peer.credentials()?;
            if let Some(token) = token {
                builder = builder.token(token);
            }
            if let Some(certificate) = certificate {
                builder = builder.client_certificate(certificate.chain, certificate.key);
                if let Some(host) = certificate.host {
                    builder = builder.mtls_host(host);
                }
            }
        }
        if let Some(path) = $peer.ca {
            builder = builder.ca_file(path);
        }
        if let Some(proxy) = $peer.proxy {
            builder = builder.proxy(proxy);
        }
        if let Some(path) = $peer.socket {
            builder = builder.socket(path);
        }
        if let Some(limit) = $peer.max_partition_time {
            builder = builder.max_partition_time(limit.0);
        }
        builder
    }};
}
pub(super) use told;
