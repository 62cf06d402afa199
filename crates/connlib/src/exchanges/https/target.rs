//! What is requested, and of whom.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use connlib_tunnel::dns::ExchangeError;
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, Version, http};
use url::Host;

/// The only media type that is asked for and taken (RFC 8484 §6).
pub(super) const MEDIA_TYPE: &str = "application/dns-message";

/// A server's URL, in parts.
#[derive(Debug)]
pub(super) struct Target {
    /// As it was given.
    pub(super) url: String,
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// Host and port, as HTTP wants them.
    authority: String,
    /// Path and the query so far, up to the value of `dns`.
    path: String,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, ExchangeError> {
        let failed = |cause: &str| ExchangeError::Failed(format!("{url}: {cause}"));
        let parsed = url::Url::parse(url).map_err(|error| failed(&error.to_string()))?;
        if parsed.scheme() != "https" {
            return Err(failed("only https is spoken"));
        }
        let (host, port) = (parsed.host(), parsed.port_or_known_default());
        let (Some(host), Some(port)) = (host, port) else {
            return Err(failed("it names no host"));
        };
        let authority = match parsed.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_string(),
        };
        let path = match parsed.query() {
            Some(query) => format!("{}?{query}&dns=", parsed.path()),
            None => format!("{}?dns=", parsed.path()),
        };

        Ok(Self {
            url: url.to_owned(),
            host: match host {
                Host::Domain(name) => name.to_owned(),
                Host::Ipv4(ip) => ip.to_string(),
                Host::Ipv6(ip) => ip.to_string(),
            },
            port,
            authority,
            path,
        })
    }

    /// Asks for the answer to a message. Its id is 0 for all, so that caches on the way have one answer for all
    /// (RFC 8484 §4.1).
    pub(super) fn request(
        &self,
        message: &[u8],
        version: Version,
    ) -> http::Result<Request<String>> {
        let mut message = message.to_vec();
        if let Some(id) = message.first_chunk_mut::<2>() {
            *id = [0; 2];
        }
        let (authority, path) = (&self.authority, &self.path);
        let message = BASE64_URL_SAFE_NO_PAD.encode(message);
        let request = if version == Version::HTTP_2 {
            Request::get(format!("https://{authority}{path}{message}"))
        } else {
            Request::get(format!("{path}{message}")).header(HOST, authority)
        };

        request.header(ACCEPT, MEDIA_TYPE).body(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_host_path_and_message() {
        let message = [0xab, 0xcd, 0xff, 0xfe];
        for (url, host, port, http1, http2) in [
            (
                "https://dns.test/dns-query",
                ("dns.test", "dns.test"),
                443,
                "/dns-query?dns=AAD__g",
                "https://dns.test/dns-query?dns=AAD__g",
            ),
            (
                "https://[2001:db8::1]:8443/q?x=1#y",
                ("2001:db8::1", "[2001:db8::1]:8443"),
                8443,
                "/q?x=1&dns=AAD__g",
                "https://[2001:db8::1]:8443/q?x=1&dns=AAD__g",
            ),
            (
                "https://192.0.2.1",
                ("192.0.2.1", "192.0.2.1"),
                443,
                "/?dns=AAD__g",
                "https://192.0.2.1/?dns=AAD__g",
            ),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!((target.host.as_str(), target.port), (host.0, port));
            let request = target.request(&message, Version::HTTP_11).unwrap();
            assert_eq!(request.uri(), http1);
            assert_eq!(request.headers()[HOST], host.1);
            assert_eq!(request.headers()[ACCEPT], MEDIA_TYPE);
            let request = target.request(&message, Version::HTTP_2).unwrap();
            assert_eq!(request.uri(), http2);
        }
    }

    #[test]
    fn other_urls_are_refused_by_name() {
        for url in [
            "http://dns.test/",
            "dns.test",
            "https://",
            "https:///x y",
            "",
        ] {
            let Err(ExchangeError::Failed(cause)) = Target::parse(url) else {
                // A lenient parser finds a host in a path.
                assert_eq!(url, "https:///x y");
                continue;
            };
            assert!(cause.starts_with(&format!("{url}: ")), "{cause}");
        }
    }
}
