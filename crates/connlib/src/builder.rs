//! What the builders and handles of client and gateway have in common: everything; and what a relay's has in common with them.

use connlib_wire::secret::Secret;

use crate::error::{Error, Misconfigured};
use crate::tls::ClientCertificate;
use crate::uplink::PortalUrl;

/// Where the portal is for whoever has these credentials.
///
/// # Errors
///
/// The address is none, the host is none, or there are no credentials.
pub(crate) fn portal_url(
    api_url: &str,
    token: Option<&Secret>,
    certificate: Option<&ClientCertificate>,
    mtls_host: Option<&str>,
) -> Result<PortalUrl, Error> {
    let url = PortalUrl::parse(api_url)?;
    if certificate.is_some() {
        return Ok(match mtls_host {
            Some(host) => url.at_host(host)?,
            None => url,
        });
    }
    if token.is_none() {
        return Err(Misconfigured::Missing {
            what: "the token",
            next_step: "give it by --token-file or in the environment, or give a client certificate",
        }
        .into());
    }

    Ok(url)
}

macro_rules! node {
    ($handle:ident, $builder:ident, $role:ident) => {
        impl $handle {
            /// Begins to describe one.
            pub fn builder() -> $builder {
                $builder::default()
            }

            /// Waits until the TUN device is up and the portal has said what is what.
            ///
            /// # Errors
            ///
            /// Why it ended before it was ready.
            pub fn wait_ready(&self) -> Result<(), Error> {
                self.handle.wait_ready()
            }

            /// Waits until it has ended: for ever, unless it is stopped or can't go on.
            ///
            /// # Errors
            ///
            /// Why it could not go on.
            pub fn wait(&self) -> Result<(), Error> {
                self.handle.wait()
            }

            /// How it is doing, as `connlib status --json` shows it; `None` once it has ended.
            pub fn status(&self) -> Option<serde_json::Value> {
                self.handle.report()
            }

            /// How things stand with the portal, and what it has refused last.
            pub fn portal(&self) -> Watch<PortalView> {
                self.handle.portal()
            }

            /// What would become of a packet, and why, as `connlib why --json` shows it; `None` once it has ended.
            pub fn why(&self, packet: Question) -> Option<serde_json::Value> {
                self.handle.explain(packet)
            }

            /// The network changed: new sockets, new key, and every link starts over.
            pub fn reset(&self) {
                self.handle.reset();
            }

            /// Says goodbye to every peer and ends, within a second or so; [`wait`](Self::wait) tells when.
            pub fn stop(&self) {
                self.handle.stop();
            }
        }

        impl $builder {
            /// Where the portal is: `wss://…`, or `ws://…` where nobody listens in.
            pub fn api_url(mut self, url: impl Into<String>) -> Self {
                self.config.api_url = Some(url.into());
                self
            }

            /// What the portal knows us by.
            pub fn token(mut self, token: Secret) -> Self {
                self.config.token = Some(token);
                self
            }

            /// What tells this device from others with the same token, run after run. Without it, each run is another
            /// device.
            pub fn id(mut self, id: impl Into<String>) -> Self {
                self.config.id = Some(id.into());
                self
            }

            /// What people call it; the host's name by default.
            pub fn name(mut self, name: impl Into<String>) -> Self {
                self.config.name = Some(name.into());
                self
            }

            /// The TUN device's name; `tun-firezone` by default.
            pub fn tun_name(mut self, name: impl Into<String>) -> Self {
                self.config.tun_name = Some(name.into());
                self
            }

            /// A PEM file of root certificates to trust beside the usual ones.
            pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
                self.config.ca_file = Some(path.into());
                self
            }

            /// Shows the portal a certificate where it asks for one: the chain in PEM, our own certificate first, and its key in PEM.
            /// It needs an address with `wss:` or `https:`; no token is needed then.
            pub fn client_certificate(mut self, chain: impl Into<String>, key: Secret) -> Self {
                let chain = chain.into();
                self.config.certificate = Some(ClientCertificate { chain, key });
                self
            }

            /// The host where the portal asks for certificates; by default that of its address. Without a certificate it isn't
            /// looked at.
            pub fn mtls_host(mut self, host: impl Into<String>) -> Self {
                self.config.mtls_host = Some(host.into());
                self
            }

            /// Who connects it to the portal, and finds the portal's addresses; by default it does so itself. The environment is
            /// not looked at, unless the caller does by [`Proxy::usual`].
            pub fn proxy(mut self, proxy: Proxy) -> Self {
                self.config.proxy = Some(proxy);
                self
            }

            /// How long the portal may be away in one go; for ever by default.
            pub fn max_partition_time(mut self, limit: Duration) -> Self {
                self.config.max_partition_time = Some(limit);
                self
            }

            /// Where [`status::query`](crate::status::query) finds it; see
            /// [`status::default_path`](crate::status::default_path).
            pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
                self.config.socket = Some(path.into());
                self
            }

            /// Makes the TUN device, binds sockets, starts two threads and connects to the portal.
            ///
            /// # Errors
            ///
            /// Something is missing, or the operating system refuses. A portal that is away is no error here.
            pub fn start(self) -> Result<$handle, Error> {
                let handle = start::<$role>(self.config)?;

                Ok($handle { handle })
            }
        }
    };
}
pub(crate) use node;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shows_a_certificate_goes_to_the_host_that_asks_for_one() {
        let certificate = ClientCertificate {
            chain: String::new(),
            key: Secret::from(""),
        };
        let token = Secret::from("t");
        for (certificate, host, expected) in [
            (
                Some(&certificate),
                Some("m.example"),
                "wss://m.example:8443/x",
            ),
            (Some(&certificate), None, "wss://p.example:8443/x"),
            (None, Some("m.example"), "wss://p.example:8443/x"),
        ] {
            let url = "https://p.example:8443/x/";
            let url = portal_url(url, Some(&token), certificate, host).unwrap();
            assert_eq!(url.base(), expected);
        }
    }
}
