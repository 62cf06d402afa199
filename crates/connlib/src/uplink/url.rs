//! Where the portal is, and what it is told in the address (portal-protocol.md §1.1).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use connlib_wire::key::PublicKey;
use rustls_pki_types::ServerName;
use sha2::{Digest as _, Sha256};
use url::{Host, Url};
use uuid::Uuid;

/// Why an address can't be that of a portal.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It is no URL.
    #[error("the portal's address is no URL ({source}); write it like wss://portal.example")]
    Invalid {
        /// What is wrong with it.
        source: url::ParseError,
    },
    /// It is a URL of another kind.
    #[error("the portal's address begins with `{scheme}:`; use wss: (or https:, ws:, http:)")]
    Scheme {
        /// How it begins.
        scheme: String,
    },
    /// The host to use instead is none.
    #[error("{host:?} can't be the portal's host ({source}); give the name or the address alone")]
    Host {
        /// What was given.
        host: String,
        /// What is wrong with it.
        source: url::ParseError,
    },
    /// It names no host.
    #[error("the portal's address names no host; write it like wss://portal.example")]
    NoHost,
}

/// The address of a portal, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PortalUrl {
    base: Url,
    port: u16,
    security: Security,
}

/// Whether the connection is encrypted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Security {
    Tls,
    Plain,
}

/// Where to connect to, shown as `host:port`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Place<'a> {
    pub(super) host: Host<&'a str>,
    pub(super) port: u16,
}

/// What the portal learns before anything is said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Introduction {
    pub(crate) external_id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    pub(crate) port: Option<u16>,
}

/// Without an explicit one, also for `ws:` (portal-protocol.md §1.1).
const DEFAULT_PORT: u16 = 443;

impl PortalUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, UrlError> {
        let mut base = Url::parse(text).map_err(|source| UrlError::Invalid { source })?;
        let (scheme, security) = match base.scheme() {
            "http" | "ws" => ("ws", Security::Plain),
            "https" | "wss" => ("wss", Security::Tls),
            scheme => {
                return Err(UrlError::Scheme {
                    scheme: scheme.into(),
                });
            }
        };
        if base.host_str().is_none_or(str::is_empty) {
            return Err(UrlError::NoHost);
        }
        let port = explicit_port(text).unwrap_or(DEFAULT_PORT);

        // All four schemes are of the kind that may be changed into each other.
        let _ = base.set_scheme(scheme);
        let _ = base.set_username("");
        let _ = base.set_password(None);
        base.set_query(None);
        base.set_fragment(None);
        if let Ok(mut segments) = base.path_segments_mut() {
            segments.pop_if_empty();
        }

        Ok(Self {
            base,
            port,
            security,
        })
    }

    /// The same at another host; the port stays.
    pub(crate) fn at_host(mut self, host: &str) -> Result<Self, UrlError> {
        let wrong = |source| UrlError::Host {
            host: host.to_owned(),
            source,
        };
        let host = Host::parse(host).map_err(wrong)?.to_string();
        self.base.set_host(Some(&host)).map_err(wrong)?;

        Ok(self)
    }

    /// The host, for the certificate and the header; an IPv6 address in brackets.
    pub(crate) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place {
            // There is one: others are refused.
            host: self.base.host().unwrap_or(Host::Domain("")),
            port: self.port,
        }
    }

    pub(crate) fn security(&self) -> Security {
        self.security
    }

    /// The address without anything personal, for logs.
    pub(crate) fn base(&self) -> &str {
        self.base.as_str()
    }

    /// The address to connect to. `path` is the role's; `token` stands in it in V1 alone, and then the whole is a secret.
    pub(crate) fn with(
        &self,
        path: &[&str],
        token: Option<&str>,
        introduction: &Introduction,
        key: Option<PublicKey>,
    ) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.extend(path);
        }

        let pairs = [
            ("token", token.map(str::to_owned)),
            (
                "external_id",
                introduction.external_id.as_deref().map(external_id),
            ),
            ("name", introduction.name.clone()),
            ("ipv4", introduction.ipv4.map(|ip| ip.to_string())),
            ("ipv6", introduction.ipv6.map(|ip| ip.to_string())),
            ("port", introduction.port.map(|port| port.to_string())),
            ("public_key", key.map(|key| key.to_string())),
        ];
        {
            let mut query = url.query_pairs_mut();
            for (name, value) in pairs {
                if let Some(value) = value {
                    query.append_pair(name, &value);
                }
            }
        }

        url
    }
}

impl Place<'_> {
    /// What a certificate has to name.
    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        Some(match self.host {
            Host::Ipv4(ip) => IpAddr::from(ip).into(),
            Host::Ipv6(ip) => IpAddr::from(ip).into(),
            Host::Domain(name) => ServerName::try_from(name.to_owned()).ok()?,
        })
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// What a portal knows a device by: ids in the form of UUIDs are sent hashed, others are taken to be hashes already.
fn external_id(id: &str) -> String {
    if Uuid::parse_str(id).is_err() {
        return id.to_owned();
    }

    Sha256::digest(id.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The port as it is written: a parsed URL forgets one that is its scheme's default.
fn explicit_port(text: &str) -> Option<u16> {
    let (_, rest) = text.trim().split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (_, port) = authority.rsplit_once(':')?;

    port.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: [&str; 3] = ["client", "v2", "websocket"];

    #[test]
    fn addresses_become_those_of_the_socket() {
        for (given, expected) in [
            ("https://p.example", "wss://p.example/client/v2/websocket"),
            (
                "wss://p.example/x/",
                "wss://p.example/x/client/v2/websocket",
            ),
            (
                "http://p.example:8080/a/b?q=1#f",
                "ws://p.example:8080/a/b/client/v2/websocket",
            ),
            (
                "wss://user:pass@p.example/",
                "wss://p.example/client/v2/websocket",
            ),
            ("ws://[::1]:9000", "ws://[::1]:9000/client/v2/websocket"),
        ] {
            let url = PortalUrl::parse(given).unwrap();
            let url = url.with(&CLIENT, None, &Introduction::default(), None);
            assert_eq!(url.as_str().trim_end_matches('?'), expected);
        }
    }

    #[test]
    fn logs_show_an_address_without_anything_personal() {
        let url = PortalUrl::parse("https://user:pass@p.example:8443/x/?token=t#f").unwrap();
        assert_eq!(url.base(), "wss://p.example:8443/x");
    }

    #[test]
    fn the_port_is_the_explicit_one_or_443() {
        for (text, port) in [
            ("wss://p.example", 443),
            ("ws://p.example/path:80", 443),
            ("ws://p.example:80", 80),
            ("http://[2001:db8::1]", 443),
            ("http://[2001:db8::1]:8443/", 8443),
        ] {
            assert_eq!(PortalUrl::parse(text).unwrap().place().port, port, "{text}");
        }
    }

    #[test]
    fn certificates_are_checked_against_the_name_of_the_host() {
        for (url, name, shown) in [
            ("wss://p.example:1", "p.example", "p.example:1"),
            ("wss://127.0.0.1", "127.0.0.1", "127.0.0.1:443"),
            ("wss://[::1]", "::1", "[::1]:443"),
        ] {
            let url = PortalUrl::parse(url).unwrap();
            assert_eq!(url.place().server_name().unwrap().to_str(), name);
            assert_eq!(url.place().to_string(), shown);
        }
    }

    #[test]
    fn another_host_is_one_and_keeps_the_port() {
        for (host, shown) in [
            ("m.example", "m.example:8443"),
            ("192.0.2.1", "192.0.2.1:8443"),
            ("[2001:db8::1]", "[2001:db8::1]:8443"),
        ] {
            let url = PortalUrl::parse("wss://p.example:8443/x").unwrap();
            let url = url.at_host(host).unwrap();
            assert_eq!(url.place().to_string(), shown);
            let url = url.with(&CLIENT, None, &Introduction::default(), None);
            assert_eq!(url.path(), "/x/client/v2/websocket");
        }
        for host in ["", "m.example:1", "m.example/x", "https://m.example", "a b"] {
            let url = PortalUrl::parse("wss://p.example").unwrap();
            let error = url.at_host(host).unwrap_err();
            assert!(error.to_string().contains(&format!("{host:?}")), "{error}");
        }
    }

    #[test]
    fn other_addresses_are_refused_with_a_hint() {
        for text in ["ftp://p.example", "p.example", "", "wss://", "mailto:me"] {
            let error = PortalUrl::parse(text).unwrap_err();
            assert!(error.to_string().contains("wss:"), "{error}");
        }
    }

    #[test]
    fn the_query_has_its_order_and_escapes() {
        let introduction = Introduction {
            external_id: Some("device".into()),
            name: Some("my laptop & I".into()),
            ipv4: Some(Ipv4Addr::new(203, 0, 113, 9)),
            ipv6: Some("2001:db8::9".parse().unwrap()),
            port: Some(3478),
        };
        let key = PublicKey([0xFB; 32]);

        let url = PortalUrl::parse("wss://p.example").unwrap();
        let url = url.with(
            &["relay", "websocket"],
            Some("a+b.c"),
            &introduction,
            Some(key),
        );

        assert_eq!(
            url.as_str(),
            "wss://p.example/relay/websocket?token=a%2Bb.c&external_id=device&name=my+laptop+%26+I&ipv4=203.0.113.9\
             &ipv6=2001%3Adb8%3A%3A9&port=3478&public_key=%2B%2Fv7%2B%2Fv7%2B%2Fv7%2B%2Fv7%2B%2Fv7%2B%2Fv7%2B%2Fv7%2B%2Fv7%2B%2Fv7%2B%2Fv7%2B%2Fs%3D"
        );
    }

    #[test]
    fn ids_that_are_uuids_are_hashed_as_text() {
        // printf 9f5d3a0e-3c0c-4f0a-8f2b-0f6f3a3c1d2e | sha256sum
        assert_eq!(
            external_id("9f5d3a0e-3c0c-4f0a-8f2b-0f6f3a3c1d2e"),
            "100bd2466c6f1aad90040248a50fe8657cb6b99a60d422c01faada01812e5a6d"
        );
        assert_eq!(external_id("already-a-hash"), "already-a-hash");
    }
}
